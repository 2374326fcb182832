//! Stage 3: the request.
