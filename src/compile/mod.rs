//! Stage 2: the merged configuration becomes immutable run-time tables.
