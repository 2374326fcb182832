//! Reading ahead: an answer is taken from its upstream as fast as that sends it, into memory and then into a temporary
//! file, so that a client that is slow does not hold the upstream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::source::Source;
use super::store::Storing;
use crate::http::response::{AlreadyTold, PIECE};
use crate::http::temp_file::{Failed, Stay, TempFile, TempPath};
use crate::server::log::Level;

/// How much is kept where.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// In memory.
    pub(super) memory: usize,
    /// In a temporary file; 0: there is none.
    pub(super) file: u64,
    /// Where that file is.
    pub(super) folder: Option<TempPath>,
}

/// A body that is read by a task of its own.
pub(super) struct Ahead {
    store: Rc<RefCell<Store>>,
    task: tokio::task::JoinHandle<()>,
    /// Whether it is read to its end, whoever takes it.
    goes_on: bool,
}

/// What was read and not yet taken: what is in memory came before what is in the file.
#[derive(Default)]
struct Store {
    memory: VecDeque<Bytes>,
    /// Short pieces behind those, put together: each by itself would hold all that was read with it.
    short: BytesMut,
    held: usize,
    file: Option<Rc<TempFile>>,
    /// Whether all of it is to be in the file.
    is_stored: bool,
    read: u64,
    written: u64,
    end: Option<io::Result<()>>,
    /// Whoever waits to take something.
    taker: Option<Waker>,
    /// The task, which waits for room.
    reader: Option<Waker>,
}

impl Ahead {
    /// Begins to read; what is to be stored goes through the file that it is stored by.
    pub(super) fn start(begun: Bytes, source: Source, room: Room, storing: Option<Storing>) -> Self {
        let goes_on = storing.is_some();
        let mut store = Store { is_stored: goes_on, ..Store::default() };
        let mut first = None;
        match &storing {
            Some(storing) => {
                store.file = Some(Rc::clone(&storing.file));
                first = Some(begun);
            }
            None if begun.is_empty() => {}
            None => store.keep(begun),
        }
        let store = Rc::new(RefCell::new(store));
        let task = tokio::task::spawn_local(read(source, first, Rc::clone(&store), room, storing));
        Self { store, task, goes_on }
    }

    /// The next piece; `None` is the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        poll_fn(|cx| self.store.borrow_mut().poll_take(cx)).await
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if !self.goes_on {
            self.task.abort();
        }
    }
}

async fn read(
    mut source: Source,
    mut first: Option<Bytes>,
    store: Rc<RefCell<Store>>,
    room: Room,
    storing: Option<Storing>,
) {
    let end = loop {
        let next = match first.take() {
            Some(first) => Some(Ok(first)),
            None => source.next().await,
        };
        match next {
            Some(Ok(piece)) => {
                let length = piece.len();
                let find = async || poll_fn(|cx| store.borrow_mut().poll_room(cx, length, &room)).await;
                let mut place = find().await;
                for _ in 0..TURNS {
                    if matches!(place, Place::File) && store.borrow().is_in_memory() {
                        tokio::task::yield_now().await;
                        place = find().await;
                    }
                }
                let kept = match place {
                    Place::Memory => {
                        store.borrow_mut().keep(piece);
                        Ok(())
                    }
                    Place::File => write(&source, &store, &piece, &room),
                };
                if let Err(error) = kept {
                    source.log.write(Level::Crit, &format!("{error} while reading upstream"));
                    break Err(io::Error::other(AlreadyTold));
                }
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    if let (Some(storing), Ok(())) = (storing, &end) {
        storing.finish(&source.log);
    }
    drop(source);
    let mut store = store.borrow_mut();
    store.end = Some(end);
    store.wake_taker();
}

fn write(source: &Source, store: &RefCell<Store>, piece: &[u8], room: &Room) -> Result<(), Failed> {
    let mut store = store.borrow_mut();
    let at = store.written;
    match &store.file {
        Some(file) => file.write(piece, at)?,
        None => {
            let file = TempFile::create(room.folder.as_ref(), Stay::No)?;
            let path = file.path().display();
            let message = format!("an upstream response is buffered to a temporary file {path} while reading upstream");
            source.log.write(Level::Warn, &message);
            file.write(piece, at)?;
            store.file = Some(Rc::new(file));
        }
    }
    store.written += piece.len() as u64;
    store.wake_taker();
    Ok(())
}

/// Whoever takes what is in memory may only have had no turn yet, as compressing takes time: so many turns it is given
/// before a file is begun. The runtime gives the first of them to who came last.
const TURNS: usize = 2;

/// A piece that is shorter than this is put together with its neighbours while it waits.
const SHORT: usize = 1024;

/// Where a piece goes.
enum Place {
    Memory,
    File,
}

impl Store {
    /// Whether all that was read and not taken is in memory.
    fn is_in_memory(&self) -> bool {
        !self.is_stored && self.read >= self.written
    }

    /// Where there is room for a piece. While somebody takes what is in memory, there will be room soon.
    fn poll_room(&mut self, cx: &mut Context<'_>, length: usize, room: &Room) -> Poll<Place> {
        if self.is_stored {
            return Poll::Ready(Place::File);
        }
        let is_filed = !self.is_in_memory();
        if !is_filed && (self.held == 0 || self.held + length <= room.memory) {
            return Poll::Ready(Place::Memory);
        }
        if (is_filed || self.taker.is_none()) && self.written + length as u64 <= room.file {
            return Poll::Ready(Place::File);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn keep(&mut self, piece: Bytes) {
        let is_next = self.held == 0;
        self.held += piece.len();
        if piece.len() >= SHORT || is_next {
            self.close_short();
            self.memory.push_back(piece);
        } else {
            self.short.extend_from_slice(&piece);
            if self.short.len() >= PIECE {
                self.close_short();
            }
        }
        self.wake_taker();
    }

    fn close_short(&mut self) {
        if !self.short.is_empty() {
            self.memory.push_back(std::mem::take(&mut self.short).freeze());
        }
    }

    /// Wakes whoever waits; it stays noted as one who takes until it has.
    fn wake_taker(&self) {
        if let Some(taker) = &self.taker {
            taker.wake_by_ref();
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.memory.is_empty() {
            self.close_short();
        }
        let taken = match self.memory.pop_front() {
            Some(piece) => {
                self.held -= piece.len();
                Some(Ok(piece))
            }
            None if self.read < self.written => Some(self.take_from_file()),
            None => match self.end.take() {
                None => {
                    self.taker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(Ok(())) => {
                    self.end = Some(Ok(()));
                    None
                }
                Some(Err(error)) => Some(Err(error)),
            },
        };
        self.taker = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(taken)
    }

    fn take_from_file(&mut self) -> io::Result<Bytes> {
        let length = usize::try_from(self.written - self.read).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = vec![0; length];
        if let Some(file) = &self.file {
            file.read(&mut piece, self.read).map_err(io::Error::other)?;
        }
        self.read += length as u64;
        if self.read == self.written && !self.is_stored {
            // All is taken: the file's room can be used again.
            (self.read, self.written) = (0, 0);
        }
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(store: &mut Store, length: usize, room: &Room) -> &'static str {
        match store.poll_room(&mut Context::from_waker(Waker::noop()), length, room) {
            Poll::Pending => "none",
            Poll::Ready(Place::Memory) => "memory",
            Poll::Ready(Place::File) => "file",
        }
    }

    fn take(store: &mut Store) -> Option<Bytes> {
        match store.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(piece))) => Some(piece),
            _ => None,
        }
    }

    #[test]
    fn memory_first_then_the_file_up_to_its_bound() {
        let room = Room { memory: 10, file: 5, folder: None };
        let mut store = Store::default();
        assert_eq!(place(&mut store, 20, &room), "memory", "a piece is never too long for an empty store");
        store.keep(Bytes::from_static(b"12345678"));
        assert_eq!(place(&mut store, 2, &room), "memory");
        assert_eq!(place(&mut store, 3, &room), "file");
        let file = TempFile::create(None, Stay::No).expect("a file");
        file.write(b"abc", 0).expect("written");
        (store.file, store.written) = (Some(Rc::new(file)), 3);
        assert_eq!(place(&mut store, 2, &room), "file", "after what is in the file");
        assert_eq!(place(&mut store, 3, &room), "none");
        assert_eq!(take(&mut store).as_deref(), Some(&b"12345678"[..]));
        assert_eq!(place(&mut store, 3, &room), "none", "the file comes first");
        assert_eq!(take(&mut store).as_deref(), Some(&b"abc"[..]));
        assert_eq!(place(&mut store, 3, &room), "memory");
    }

    #[test]
    fn short_pieces_wait_together() {
        let mut store = Store::default();
        for piece in ["first", "a", "bc"] {
            store.keep(Bytes::from_static(piece.as_bytes()));
        }
        store.keep(Bytes::from_static(&[b'x'; SHORT]));
        store.keep(Bytes::from_static(b"d"));
        assert_eq!(take(&mut store).as_deref(), Some(&b"first"[..]));
        assert_eq!(take(&mut store).as_deref(), Some(&b"abc"[..]));
        assert_eq!(take(&mut store).as_deref(), Some(&[b'x'; SHORT][..]));
        assert_eq!(take(&mut store).as_deref(), Some(&b"d"[..]));
        assert_eq!(take(&mut store), None);
        assert_eq!(store.held, 0);
    }

    #[test]
    fn one_who_takes_is_waited_for() {
        let room = Room { memory: 10, file: 50, folder: None };
        let mut store = Store::default();
        assert_eq!(take(&mut store), None);
        store.keep(Bytes::from_static(b"12345678"));
        assert_eq!(place(&mut store, 8, &room), "none", "it was woken, and will take");
        assert!(take(&mut store).is_some());
        store.keep(Bytes::from_static(b"12345678"));
        assert_eq!(place(&mut store, 8, &room), "file", "it does something else");
    }
}
