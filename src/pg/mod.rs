//! Stage 4: PostgreSQL. No HTTP, no configuration types.
