//! Stage 3: the request.

pub mod wire;
