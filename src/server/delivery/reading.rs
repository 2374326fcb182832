//! From the sockets to the modules. One buffer serves all; what is kept of a client is what it has not finished saying.

use std::io::ErrorKind;
use std::rc::Rc;

use bytes::Bytes;

use crate::server::delivery::frame::{self, Opcode};
use crate::server::delivery::state::State;
use crate::server::delivery::subscriber::{
    Farewell, Phase, Protocol, Reading, Reason, Subscriber, SubscriberEvents, SubscriberId,
};
use crate::server::delivery::timers::Tick;
use crate::server::delivery::websocket::{Decoder, Received, Rules};

/// So many reads from one client, and others have their turn.
const READS: usize = 4;

/// What is being read from one client.
pub(super) struct Input {
    id: SubscriberId,
    /// The part of the buffer that is not yet decoded.
    begin: usize,
    end: usize,
    reads: usize,
    /// The socket has nothing more for now.
    drained: bool,
    /// The client may have closed, which only a read tells that finds nothing. Otherwise a read that does not fill the
    /// buffer is the last: the socket tells of what comes later.
    ended: bool,
    decoder: Decoder,
    /// What was put away earlier and did not fit into the buffer.
    later: Vec<u8>,
}

/// How reading goes on.
pub(super) enum Progress {
    /// The module is to be told of a message; then there is more to do.
    Message(Rc<dyn SubscriberEvents>, Opcode, Bytes),
    /// There is more to do.
    More,
}

impl State {
    pub(super) fn pause(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscriber(id) {
            subscriber.paused = true;
        }
    }

    pub(super) fn resume(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscriber(id) else {
            return;
        };
        // The socket told of what has come meanwhile, and will not tell again.
        if std::mem::replace(&mut subscriber.paused, false) {
            self.unread.push(id);
        }
    }

    /// Begins to read, with what was put away the last time; `None` from one who is paused or gone.
    pub(super) fn input(&mut self, id: SubscriberId, ended: bool) -> Option<Input> {
        let subscriber = self.subscriber(id).filter(|subscriber| !subscriber.paused)?;
        let reading = subscriber.reading.take();
        let Reading { decoder, leftover } = reading.map_or_else(Reading::default, |reading| *reading);
        Some(Input { id, begin: 0, end: 0, reads: 0, drained: false, ended, decoder, later: leftover })
    }

    /// Reads on; `None` when there is nothing to do for now.
    pub(super) fn read(&mut self, input: &mut Input, buffer: &mut [u8], now: Tick) -> Option<Progress> {
        let id = input.id;
        let subscriber = self.subscribers.get_mut(id.slot as usize).filter(|s| s.serial == id.serial)?;
        if subscriber.paused {
            put_away(subscriber, input, buffer);
            return None;
        }
        if input.begin == input.end {
            return self.fill(input, buffer);
        }
        let rules = match (&subscriber.settings.protocol, subscriber.phase) {
            (Protocol::Websocket { max_message_size, deflate }, Phase::Open) => {
                Rules { bound: *max_message_size, deflate: *deflate }
            }
            // What a stream's client sends, or one that has been told goodbye, is of no interest.
            _ => {
                input.begin = input.end;
                return Some(Progress::More);
            }
        };
        match input.decoder.decode_by(&mut buffer[input.begin..input.end], rules) {
            Ok((taken, received)) => {
                input.begin += taken;
                match received {
                    Some(Received::Message(opcode, payload)) => {
                        return Some(Progress::Message(Rc::clone(&subscriber.events), opcode, payload));
                    }
                    Some(Received::Ping(payload)) => self.send(id, frame::pong(&payload), now),
                    Some(Received::Close(code)) => {
                        subscriber.done = true;
                        let farewell = code.map_or(Farewell::Plain, |code| Farewell::Code(code, ""));
                        self.leave(id, Reason::Client, farewell, now);
                    }
                    Some(Received::Pong) | None => {}
                }
            }
            Err(violation) => {
                let farewell = Farewell::Code(violation.code, violation.reason);
                self.leave(id, Reason::Violation(violation.code), farewell, now);
            }
        }
        Some(Progress::More)
    }

    /// Fills the empty buffer.
    fn fill(&mut self, input: &mut Input, buffer: &mut [u8]) -> Option<Progress> {
        if !input.later.is_empty() {
            let count = input.later.len().min(buffer.len());
            buffer[..count].copy_from_slice(&input.later[..count]);
            input.later.drain(..count);
            (input.begin, input.end) = (0, count);
            return Some(Progress::More);
        }
        let id = input.id;
        let subscriber = self.subscriber(id)?;
        if input.drained || input.reads == READS {
            put_away(subscriber, input, buffer);
            if !input.drained {
                self.unread.push(id);
            }
            return None;
        }
        input.reads += 1;
        let socket = subscriber.socket.as_mut()?;
        let read = socket.read(buffer);
        match read {
            Ok(0) => {
                self.lose(id, Reason::Client);
                None
            }
            Ok(count) => {
                (input.begin, input.end) = (0, count);
                input.drained = socket.is_drained_by(count, buffer.len()) && !input.ended;
                Some(Progress::More)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(Progress::More),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                input.drained = true;
                Some(Progress::More)
            }
            Err(_) => {
                self.lose(id, Reason::Broken);
                None
            }
        }
    }
}

/// Puts away what is not finished.
fn put_away(subscriber: &mut Subscriber, input: &mut Input, buffer: &[u8]) {
    let mut leftover = buffer[input.begin..input.end].to_vec();
    leftover.append(&mut input.later);
    let decoder = std::mem::take(&mut input.decoder);
    if !leftover.is_empty() || !decoder.is_at_rest() {
        subscriber.reading = Some(Box::new(Reading { decoder, leftover }));
    }
}
