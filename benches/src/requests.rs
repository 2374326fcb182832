//! The work of the rows of plain requests: issue 5's.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::clients::{self, Requests, Wire};
use crate::http::Answer;
use crate::load::PATIENCE;
use crate::process::signal;
use crate::server::{Server, Side};
use crate::site::{self, KILOBYTE, Key};
use crate::work::{Bench, Numbers, micros, millis};

/// Connections in the rows for CPU.
const CONNECTIONS: usize = 64;

impl Bench<'_> {
    /// A fresh server without channels.
    fn site(
        &self,
        side: Side,
        inside: impl FnOnce(&Path, std::net::SocketAddr) -> String,
    ) -> Result<Server, Box<dyn Error>> {
        Server::plain(side, &self.options.programs, &self.cores, self.options.workers, inside)
    }

    pub(crate) fn plain(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let workers = self.options.workers;
        let server = Server::start(side, &self.options.programs, &self.cores, workers, workers > 1)?;
        Ok(vec![("return", self.per_request(&server, "/ok", b"ok")?)])
    }

    pub(crate) fn files(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let server = self.site(side, site::files)?;
        let large = site::write_files(server.folder())?;
        let mut numbers = Numbers::new();
        for (row, path) in [("static", "/file"), ("static-cached", "/cached/file")] {
            if self.wants(row) {
                numbers.push((row, self.per_request(&server, path, KILOBYTE.as_bytes())?));
            }
        }
        if self.wants("static-large") {
            let total = self.amount(50, 2000);
            let path = |_| "/large".to_owned();
            numbers.push(("static-large", self.measured(&server, Wire::Plain, [8, 16, total], path, &large)?));
        }
        Ok(numbers)
    }

    pub(crate) fn proxy(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let upstream = Server::upstream(&self.options.programs, |_, address| site::upstream(address))?;
        let server = self.site(side, |_, address| site::proxy(upstream.address, address))?;
        Ok(vec![("proxy", self.per_request(&server, "/", KILOBYTE.as_bytes())?)])
    }

    pub(crate) fn tls(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let server = self.secure(side, Key::P256)?;
        site::write_files(server.folder())?;
        let (config, total) = (clients::config()?, self.amount(5_000, 100_000));
        let (wire, path) = (Wire::Tls(&config), |_| "/file".to_owned());
        Ok(vec![("tls", self.measured(&server, wire, [CONNECTIONS as u64, 1000, total], path, KILOBYTE.as_bytes())?)])
    }

    pub(crate) fn handshakes(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let config = clients::config()?;
        let mut numbers = Numbers::new();
        for (row, key) in [("handshakes", Key::P256), ("handshakes-rsa", Key::Rsa)] {
            if !self.wants(row) {
                continue;
            }
            let server = self.secure(side, key)?;
            clients::handshakes(server.address, &config, CONNECTIONS)?;
            server.tree.settle();
            let waves = self.amount(2, 50);
            let before = server.tree.cpu();
            for _ in 0..waves {
                clients::handshakes(server.address, &config, CONNECTIONS)?;
            }
            server.tree.settle();
            let cpu = server.tree.cpu().since(&before);
            numbers.push((row, micros(cpu) / (waves as f64 * CONNECTIONS as f64)));
        }
        Ok(numbers)
    }

    /// A server that speaks TLS. Its certificate is there before it starts.
    fn secure(&self, side: Side, key: Key) -> Result<Server, Box<dyn Error>> {
        let mut made = Ok(());
        let server = self.site(side, |prefix, address| {
            made = site::certificate(prefix, key);
            site::secure(prefix, address)
        });
        made.and(server)
    }

    pub(crate) fn http2(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let server = self.site(side, |prefix, address| site::http2(side, prefix, address))?;
        site::write_files(server.folder())?;
        let connections = self.options.workers;
        h2load(&server, 1000, connections)?;
        server.tree.settle();
        let total = self.amount(5_000, 100_000);
        let before = server.tree.cpu();
        h2load(&server, total, connections)?;
        Ok(vec![("http2", micros(server.tree.cpu().since(&before)) / total as f64)])
    }

    /// Each connection has carried a request, and waits for the next.
    pub(crate) fn idle(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let config = clients::config()?;
        let mut numbers = Numbers::new();
        for (row, wire) in [("idle", Wire::Plain), ("idle-tls", Wire::Tls(&config))] {
            if !self.wants(row) {
                continue;
            }
            let server = match wire {
                Wire::Plain => self.site(side, site::files)?,
                Wire::Tls(_) => self.secure(side, Key::P256)?,
            };
            let open = |count: usize| {
                let mut requests = Requests::open(server.address, wire, count)?;
                requests.send(count as u64, |_| "/ok".to_owned(), b"ok")?;
                server.tree.settle();
                Ok::<_, Box<dyn Error>>((requests, server.tree.memory()))
            };
            let count = self.options.subscribers;
            let (_first, before) = open(10)?;
            let (_all, after) = open(count)?;
            numbers.push((row, after.saturating_sub(before) as f64 / count as f64));
        }
        Ok(numbers)
    }

    pub(crate) fn locations(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let server = self.site(side, |_, address| site::locations(1, address))?;
        let total = self.amount(5_000, 100_000);
        let found = self.measured(&server, Wire::Plain, [CONNECTIONS as u64, 1000, total], site::path, b"ok")?;
        let mut numbers = vec![("locations", found)];
        if self.wants("lookup") {
            numbers.push(("lookup", found - self.per_request(&server, "/ok", b"ok")?));
        }
        Ok(numbers)
    }

    /// From the signal until the new configuration answers, to a new connection or to one that was there. Meanwhile one request
    /// after the other is asked on those that were there; if Pushgate closes one, that is a failure. nginx does: its old
    /// workers take what is idle with them.
    pub(crate) fn reload(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let inside = |generation| move |_: &Path, address| site::locations(generation, address);
        let server = self.site(side, inside(1))?;
        let mut kept = (0..CONNECTIONS).map(|_| connect(&server)).collect::<Result<Vec<_>, _>>()?;
        for stream in &mut kept {
            generation(stream)?;
        }
        let mut numbers = Numbers::new();
        for next in 2..2 + self.amount(1, 5) {
            server.configure(side, self.options.workers, inside(next))?;
            let start = Instant::now();
            signal(server.tree.0, Signal::HUP);
            let mut is_new = false;
            while !is_new {
                if start.elapsed() > PATIENCE {
                    return Err("the new configuration does not answer".into());
                }
                kept.rotate_left(1);
                match generation(&mut kept[0]) {
                    Ok(seen) => is_new = seen == next,
                    Err(error) if side == Side::Pushgate => return Err(error),
                    Err(_) => kept[0] = connect(&server)?,
                }
                is_new |= generation(&mut connect(&server)?)? == next;
            }
            numbers.push(("reload", millis(start.elapsed())));
            settle(&server, side, &mut kept, next)?;
        }
        Ok(numbers)
    }

    /// CPU in microseconds for one request of a path over keep-alive connections.
    fn per_request(&self, server: &Server, path: &str, body: &[u8]) -> Result<f64, Box<dyn Error>> {
        let numbers = [CONNECTIONS as u64, 1000, self.amount(5_000, 100_000)];
        self.measured(server, Wire::Plain, numbers, |_| path.to_owned(), body)
    }

    /// The same for any requests: over so many connections, so many to begin with, and so many that are measured.
    fn measured(
        &self,
        server: &Server,
        wire: Wire<'_>,
        [connections, first, total]: [u64; 3],
        path: impl Fn(u64) -> String,
        body: &[u8],
    ) -> Result<f64, Box<dyn Error>> {
        let mut requests = Requests::open(server.address, wire, usize::try_from(connections)?)?;
        requests.send(first, &path, body)?;
        server.tree.settle();
        let before = server.tree.cpu();
        requests.send(total, &path, body)?;
        Ok(micros(server.tree.cpu().since(&before)) / total as f64)
    }
}

/// Has h2load ask for the file so many times, over `connections` of 100 streams each, beside the generator: its work is not the
/// measured server's.
fn h2load(server: &Server, count: u64, connections: usize) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new("h2load");
    command.args(["-n", &count.to_string(), "-c", &connections.to_string(), "-m", "100"]);
    command.arg(format!("http://{}/file", server.address));
    let said = command.output().map_err(|error| format!("h2load: {error}"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    match said.contains(&format!("{count} succeeded, 0 failed")) {
        true => Ok(()),
        false => Err(format!("h2load: not all was answered: {said}").into()),
    }
}

fn connect(server: &Server) -> Result<TcpStream, Box<dyn Error>> {
    let stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Which configuration answers.
fn generation(stream: &mut TcpStream) -> Result<u64, Box<dyn Error>> {
    stream.write_all(b"GET /generation HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut piece)? {
            0 => return Err("a connection was dropped by the reload".into()),
            read => answer.extend_from_slice(&piece[..read]),
        }
        if let Some(Answer { head, len, .. }) = Answer::parse(&answer)? {
            return Ok(str::from_utf8(&answer[head..len])?.parse()?);
        }
    }
}

/// Waits until the new configuration answers on all that were there.
fn settle(server: &Server, side: Side, kept: &mut [TcpStream], next: u64) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + PATIENCE;
    for stream in kept {
        loop {
            match generation(stream) {
                Ok(seen) if seen == next => break,
                Ok(_) if Instant::now() > end => return Err("an old connection keeps the old configuration".into()),
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) if side == Side::Pushgate => return Err(error),
                Err(_) => *stream = connect(server)?,
            }
        }
    }
    server.tree.settle();
    Ok(())
}
