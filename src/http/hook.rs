//! What a background request may say about the client that it was made for.

/// A client that must not stay. A handler leaves it on its (sub)request as a note, with
/// `*request.note_mut::<Option<Refusal>>() = Some(...)`; whoever made the request looks for it when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the close frame that a websocket client gets.
    pub close_code: u16,
    /// The reason in it.
    pub reason: String,
}
