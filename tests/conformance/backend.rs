//! A scripted server behind the one under test: reads a request, sends the next of its replies.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::case;
use crate::connection::find;
use crate::text::{Values, show, wire};

pub(crate) struct Backend {
    script: Arc<Script>,
    listener: Arc<Socket>,
}

struct Script {
    spec: case::Backend,
    values: Values,
    answered: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Backend {
    pub(crate) fn start(spec: &case::Backend, port: u16, values: &Values) -> std::io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        listener.listen(64)?;
        let script = Script {
            spec: spec.clone(),
            values: values.clone(),
            answered: AtomicUsize::new(0),
            requests: Mutex::new(Vec::new()),
        };
        let (script, listener) = (Arc::new(script), Arc::new(listener));
        let (accepting, accepted_by) = (listener.clone(), script.clone());
        // Ends when the listener is shut down; its connections end with the server under test.
        std::thread::spawn(move || {
            while let Ok((socket, _)) = accepting.accept() {
                let script = accepted_by.clone();
                std::thread::spawn(move || script.serve(socket.into()));
            }
        });
        Ok(Self { script, listener })
    }

    /// The requests since the last call, sorted.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut *self.script.requests.lock().unwrap_or_else(PoisonError::into_inner));
        requests.sort();
        requests
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _closed = self.listener.shutdown(Shutdown::Both);
    }
}

impl Script {
    /// Answers the requests of one connection; an error ends it.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let request = read_request(&mut stream, &mut buffer)?;
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(show(&request));
            let turn = self.answered.fetch_add(1, Ordering::Relaxed);
            let reply = self.spec.replies.get(turn).or_else(|| self.spec.replies.last())?;
            std::thread::sleep(Duration::from_secs_f64(self.spec.delay));
            stream.write_all(&wire(reply, &self.values)).ok()?;
            if !self.spec.keep {
                // Until the peer closes: what it still sends must not make the kernel reset the connection.
                stream.shutdown(Shutdown::Write).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
                std::io::copy(&mut stream, &mut std::io::sink()).ok()?;
                return Some(());
            }
        }
    }
}

/// One request, head and body; what follows stays in `buffer`.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut chunk = [0; 65536];
    let mut more = |buffer: &mut Vec<u8>| {
        let n = stream.read(&mut chunk).ok()?;
        buffer.extend_from_slice(&chunk[..n]);
        (n > 0).then_some(())
    };
    let end = loop {
        match find(buffer, b"\r\n\r\n") {
            Some(end) => break end + 4,
            None => more(buffer)?,
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let whole = end + length.unwrap_or(0);
    while buffer.len() < whole && more(buffer).is_some() {}
    Some(buffer.drain(..whole.min(buffer.len())).collect())
}
