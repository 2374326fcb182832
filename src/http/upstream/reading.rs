//! The body of an upstream's answer, as it comes.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;

use super::ahead::{Ahead, Room};
use super::source::Source;
use super::store::Storing;
use crate::http::BodyStream;

type Next<'n> = Pin<Box<dyn Future<Output = Option<io::Result<Bytes>>> + 'n>>;

/// A body that is read when the client takes it: it leaves as it comes.
pub(super) struct Direct {
    begun: Bytes,
    source: Source,
}

impl Direct {
    /// A body of which this came with the head.
    pub(super) fn new(begun: Bytes, source: Source) -> Self {
        Self { begun, source }
    }
}

impl BodyStream for Direct {
    fn next(&mut self) -> Next<'_> {
        if self.begun.is_empty() {
            return Box::pin(self.source.next());
        }
        Box::pin(std::future::ready(Some(Ok(std::mem::take(&mut self.begun)))))
    }

    fn flushes(&self) -> bool {
        true
    }
}

/// A body that is read ahead.
pub(super) struct Buffered(Ahead);

impl Buffered {
    /// A body of which this came with the head; it may be stored as well.
    pub(super) fn new(begun: Bytes, source: Source, room: Room, storing: Option<Storing>) -> Self {
        Self(Ahead::start(begun, source, room, storing))
    }
}

impl BodyStream for Buffered {
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.0.next())
    }

    fn waits_for_content(&self) -> bool {
        true
    }
}

/// A body that is broken from its beginning.
pub(super) struct Broken;

impl BodyStream for Broken {
    fn next(&mut self) -> Next<'_> {
        Box::pin(std::future::ready(Some(Err(io::Error::other(crate::http::response::AlreadyTold)))))
    }
}
