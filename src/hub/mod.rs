//! Stage 4: channels, messages, history, who listens where. Pure: no sockets, no clock, no HTTP, no PostgreSQL.
