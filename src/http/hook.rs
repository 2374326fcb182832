//! What the answer to a hook's subrequest can say to the client on whose behalf it was made.

/// The client must be closed, for its name or its like can never be served. A handler leaves it with its request as the
/// note `Option<Refusal>`; who made the subrequest looks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of websocket's close frame.
    pub close_code: u16,
    /// Why, for the client.
    pub reason: String,
}
