//! Stage 1: the syntax tree becomes a checked, typed, merged configuration.
