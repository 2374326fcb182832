//! How the rows are measured.

use std::cell::OnceCell;
use std::error::Error;
use std::time::Duration;

use crate::frames::{Faults, HEAD, Kind, payload};
use crate::http::Publisher;
use crate::load::{Naming, SlowReader, Subscribers};
use crate::options::Options;
use crate::postgres::{Cluster, Session as Database};
use crate::process::{Cores, Perf};
use crate::rows::Session;
use crate::server::{self, Server, Side};

/// Does the work of the sessions.
pub(crate) struct Bench<'a> {
    /// What to measure.
    pub(crate) options: &'a Options,
    /// Where to run it.
    pub(crate) cores: Cores,
    /// Whether instructions can be counted here.
    pub(crate) perf: bool,
    /// Once it is needed.
    pub(crate) cluster: OnceCell<Cluster>,
}

/// The numbers of one session, by the row's name.
pub(crate) type Numbers = Vec<(&'static str, f64)>;

impl Bench<'_> {
    /// One run of `session`; what went wrong with messages is added to `faults`, even if the run fails.
    pub(crate) fn run(&self, session: Session, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        match session {
            Session::Fanout => self.fanout(side, faults),
            Session::Events => self.unending(side, Kind::EventSource, ["eventsource", "memory-eventsource"], faults),
            Session::Streams => self.unending(side, Kind::Streaming, ["streaming", "memory-streaming"], faults),
            Session::Channels => self.channels(side, faults),
            Session::Workers => self.workers(side, faults),
            Session::Slow => self.slow(side, faults),
            Session::Connect => self.connect(side),
            Session::Return => self.plain(side),
            Session::Static => self.files(side),
            Session::Proxy => self.proxy(side),
            Session::Tls => self.tls(side),
            Session::Handshakes => self.handshakes(side),
            Session::Http2 => self.http2(side),
            Session::Idle => self.idle(side),
            Session::Locations => self.locations(side),
            Session::Reload => self.reload(side),
            Session::Check => self.check(side),
            Session::Select => self.select(side),
            Session::Notify => self.notify(side, faults),
            Session::Rows => self.rows(side),
            Session::Listen => self.listen(side, faults),
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.rows.iter().any(|row| row.name == name)
    }

    /// `quick` or the full amount.
    pub(crate) fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.options.quick { quick } else { full }
    }

    /// A server with one worker, on a core of its own.
    fn start(&self, side: Side) -> Result<Server, Box<dyn Error>> {
        Server::start(side, &self.options.programs, &self.cores, 1, false)
    }

    /// Subscribes all, and says how much memory each takes while idle.
    fn subscribe(&self, channel: &mut Channel<'_>, faults: &mut Faults) -> Result<Option<f64>, Box<dyn Error>> {
        // The first subscribers and the first message pull in code and shared structures: they are no subscriber's memory.
        let (tree, count) = (channel.server.tree, self.options.subscribers);
        let first = count.min(10);
        channel.subscribe(first)?;
        channel.send(1, 1, 100, faults)?;
        tree.settle();
        let before = tree.memory();
        channel.subscribe(count - first)?;
        tree.settle();
        let grown = tree.memory().saturating_sub(before);
        Ok((count > first).then(|| grown as f64 / (count - first) as f64))
    }

    fn fanout(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side)?;
        let mut numbers = Numbers::new();
        let mut channel = Channel::open(&server, Kind::Websocket)?;
        numbers.extend(self.subscribe(&mut channel, faults)?.map(|memory| ("memory", memory)));
        if self.wants("fanout") || self.wants("user") {
            channel.send(3, 1, 100, faults)?;
            let cpu = channel.measure(self.amount(20, 60), 1, 100, faults)?;
            numbers.push(("fanout", cpu.all));
            numbers.push(("user", cpu.user));
        }
        if self.wants("instructions") && self.perf {
            let perf = Perf::start(server.tree)?;
            let deliveries = channel.send(self.amount(10, 20), 1, 100, faults)?;
            numbers.push(("instructions", perf.finish()? as f64 / deliveries));
        }
        if self.wants("kilobyte") {
            channel.send(1, 1, 1024, faults)?;
            numbers.push(("kilobyte", channel.measure(self.amount(10, 40), 1, 1024, faults)?.all));
        }
        if self.wants("burst") {
            channel.send(1, 16, 100, faults)?;
            numbers.push(("burst", channel.measure(self.amount(2, 5), 16, 100, faults)?.all));
        }
        *faults += channel.finish()?;
        Ok(numbers)
    }

    /// Subscribers over plain HTTP, on rows for their CPU and their memory.
    fn unending(
        &self,
        side: Side,
        kind: Kind,
        [row, memory_row]: [&'static str; 2],
        faults: &mut Faults,
    ) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side)?;
        let mut numbers = Numbers::new();
        let mut channel = Channel::open(&server, kind)?;
        numbers.extend(self.subscribe(&mut channel, faults)?.map(|memory| (memory_row, memory)));
        if self.wants(row) {
            channel.send(3, 1, 100, faults)?;
            numbers.push((row, channel.measure(self.amount(20, 60), 1, 100, faults)?.all));
        }
        *faults += channel.finish()?;
        Ok(numbers)
    }

    /// A message to one channel after the other: one at a time, and pipelined, which leaves out most of the waking up.
    fn channels(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        const NAMING: Naming = |number| format!("bench{number}");
        let server = self.start(side)?;
        let mut publisher = Publisher::connect(server.address)?;
        let mut subscribers = Subscribers::new(server.address, Kind::Websocket, NAMING)?;
        let count = self.options.subscribers;
        subscribers.open(count, 0)?;
        let mut next = 0;
        let mut cpu_of = |rounds: u64, pipelined: usize| {
            let before = server.tree.cpu();
            for number in next..next + rounds {
                for first in (0..count).step_by(pipelined) {
                    let channels = (first..count.min(first + pipelined)).map(|channel| (NAMING(channel), number));
                    let sent = channels.len() as u64;
                    publisher.publish(channels, 100)?;
                    if !subscribers.receive(sent)? {
                        return Err(format!("a message to one of {sent} channels does not arrive").into());
                    }
                    publisher.answers(sent)?;
                }
            }
            next += rounds;
            let cpu = server.tree.cpu().since(&before);
            Ok::<f64, Box<dyn Error>>(micros(cpu) / (rounds as f64 * count as f64))
        };
        cpu_of(1, 64)?;
        let numbers = vec![("channels", cpu_of(self.amount(1, 5), 64)?), ("publish", cpu_of(1, 1)?)];
        *faults += subscribers.finish(next)?;
        Ok(numbers)
    }

    /// Both on all cores: what differs is the number of workers alone.
    fn workers(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let mut cpu_with = |workers| {
            let server = Server::start(side, &self.options.programs, &self.cores, workers, true)?;
            let mut channel = Channel::open(&server, Kind::Websocket)?;
            channel.subscribe(self.options.subscribers)?;
            channel.send(3, 1, 100, faults)?;
            let cpu = channel.measure(self.amount(20, 60), 1, 100, faults)?;
            *faults += channel.finish()?;
            Ok::<f64, Box<dyn Error>>(cpu.all)
        };
        let one = cpu_with(1)?;
        Ok(vec![("workers", cpu_with(2)? / one)])
    }

    /// The time without the slow one is taken before it comes and after it has gone, so that a machine that grows slower or
    /// faster meanwhile makes no difference.
    fn slow(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side)?;
        let mut channel = Channel::open(&server, Kind::Websocket)?;
        channel.subscribe(self.options.subscribers)?;
        channel.send(3, 1, 1024, faults)?;
        let messages = self.amount(10, 60);
        let mut without = channel.times(messages / 2, faults)?;
        let slow = SlowReader::subscribe(server.address, &(Channel::NAMING)(0), channel.next)?;
        // More than the kernel takes for it.
        channel.send(8, 1, 16 * 1024, faults)?;
        let with = channel.times(messages, faults)?;
        *faults += slow.finish(channel.next)?;
        without.extend(channel.times(messages - messages / 2, faults)?);
        *faults += channel.finish()?;
        Ok(vec![("slow", p99(with) / p99(without))])
    }

    /// Waves of 64: each opens, says good-bye, and is closed by the server.
    fn connect(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        const WAVE: usize = 64;
        let server = self.start(side)?;
        let wave = || {
            let mut subscribers = Subscribers::new(server.address, Kind::Websocket, Channel::NAMING)?;
            subscribers.open(WAVE, 0)?;
            subscribers.close()
        };
        wave()?;
        server.tree.settle();
        let before = server.tree.cpu();
        let waves = self.amount(5, 100);
        for _ in 0..waves {
            wave()?;
        }
        server.tree.settle();
        let cpu = server.tree.cpu().since(&before);
        Ok(vec![("connect", micros(cpu) / (waves as f64 * WAVE as f64))])
    }

    /// One check is soon done: several in each run.
    fn check(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let check = |_| server::check(side, &self.options.programs, &self.cores).map(|took| ("check", millis(took)));
        (0..self.amount(1, 5)).map(check).collect()
    }
}

/// CPU in microseconds for one delivery.
pub(crate) struct PerDelivery {
    /// User and system.
    pub(crate) all: f64,
    user: f64,
}

/// The way in for messages.
pub(crate) enum Source {
    /// Requests to the server.
    Http(Publisher),
    /// NOTIFY, to a PostgreSQL that the server listens to.
    Notify(Database),
}

impl Source {
    /// Publishes messages of these channels and numbers, and waits for nothing.
    pub(crate) fn publish(
        &mut self,
        messages: impl Iterator<Item = (String, u64)>,
        size: usize,
    ) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Http(publisher) => publisher.publish(messages, size),
            Self::Notify(database) => {
                for (channel, number) in messages {
                    let payload = String::from_utf8(payload(number, size))?;
                    database.send(&format!("NOTIFY {channel}, '{payload}'"))?;
                }
                Ok(())
            }
        }
    }

    /// Waits until that many are published.
    pub(crate) fn answers(&mut self, count: u64) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Http(publisher) => publisher.answers(count),
            Self::Notify(database) => (0..count).try_for_each(|_| database.ready()),
        }
    }
}

/// Channel `bench` of a server: the way in, and its subscribers.
pub(crate) struct Channel<'a> {
    server: &'a Server,
    source: Source,
    subscribers: Subscribers,
    count: usize,
    next: u64,
}

impl<'a> Channel<'a> {
    /// One channel for all.
    pub(crate) const NAMING: Naming = |_| "bench".to_owned();

    fn open(server: &'a Server, kind: Kind) -> Result<Self, Box<dyn Error>> {
        Self::with_source(server, kind, Source::Http(Publisher::connect(server.address)?))
    }

    /// Nobody is subscribed yet.
    pub(crate) fn with_source(server: &'a Server, kind: Kind, source: Source) -> Result<Self, Box<dyn Error>> {
        let subscribers = Subscribers::new(server.address, kind, Self::NAMING)?;
        Ok(Self { server, source, subscribers, count: 0, next: 0 })
    }

    /// Adds subscribers.
    pub(crate) fn subscribe(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        self.count += count;
        self.subscribers.open(count, self.next)
    }

    /// Publishes `bursts` times `burst` messages, each burst when all have the one before; returns the number of deliveries.
    pub(crate) fn send(
        &mut self,
        bursts: u64,
        burst: u64,
        size: usize,
        faults: &mut Faults,
    ) -> Result<f64, Box<dyn Error>> {
        assert!(size >= HEAD, "a message has room for its number");
        for _ in 0..bursts {
            let end = self.next + burst;
            self.source.publish((self.next..end).map(|number| ((Self::NAMING)(0), number)), size)?;
            self.next = end;
            if !self.subscribers.receive(burst * self.count as u64)? {
                // The subscribers are of no use any more: take the account of them now.
                let seen = self.subscribers.replace()?.finish(end)?;
                *faults += seen;
                return Err(
                    format!("messages don't arrive: {} lost, {} disconnected", seen.lost, seen.disconnected).into()
                );
            }
            self.source.answers(burst)?;
        }
        Ok((bursts * burst) as f64 * self.count as f64)
    }

    /// What [`send`](Self::send) costs the server.
    pub(crate) fn measure(
        &mut self,
        bursts: u64,
        burst: u64,
        size: usize,
        faults: &mut Faults,
    ) -> Result<PerDelivery, Box<dyn Error>> {
        let before = self.server.tree.cpu();
        let deliveries = self.send(bursts, burst, size, faults)?;
        let after = self.server.tree.cpu();
        Ok(PerDelivery {
            all: micros(after.since(&before)) / deliveries,
            user: micros(after.user_since(&before)) / deliveries,
        })
    }

    /// How long each delivery takes from the publication on, for that many messages of a kilobyte.
    fn times(&mut self, messages: u64, faults: &mut Faults) -> Result<Vec<Duration>, Box<dyn Error>> {
        for _ in 0..messages {
            self.subscribers.start_watch();
            self.send(1, 1, 1024, faults)?;
        }
        Ok(self.subscribers.stop_watch())
    }

    /// The faults of all subscribers.
    pub(crate) fn finish(self) -> Result<Faults, Box<dyn Error>> {
        self.subscribers.finish(self.next)
    }
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// In microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The time that 99 of 100 do not exceed, in microseconds.
pub(crate) fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(f64::NAN, |time| micros(*time))
}
