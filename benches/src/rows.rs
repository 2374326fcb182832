//! The rows of the table, and how each is measured.

use std::error::Error;
use std::time::Duration;

use crate::frames::{Faults, HEAD};
use crate::http::Publisher;
use crate::load::{Subscribers, request};
use crate::options::Options;
use crate::process::{Cores, Perf};
use crate::server::{self, Server, Side};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// On the command line.
    pub(crate) name: &'static str,
    /// In the table; `{n}` stands for the number of subscribers.
    pub(crate) work: &'static str,
    /// Of its numbers.
    pub(crate) unit: Unit,
    /// What issue 2 asks for.
    pub(crate) target: Target,
    /// The work that gives it.
    pub(crate) session: Session,
}

/// The unit of a row's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// User-space instructions.
    Instructions,
}

/// What Pushgate is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Printed for orientation.
    None,
    /// At most so many times the peer's number.
    Ratio(f64),
    /// At most that.
    AtMost(f64),
    /// Less than that.
    Below(f64),
}

/// One piece of work on a freshly started server; gives one or several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Many subscribers on one worker.
    Fanout,
    /// A thousand subscribers on two workers.
    Workers,
    /// Subscribers that come and go.
    Connect,
    /// Plain requests.
    Return,
    /// No server: `check`.
    Check,
}

impl Session {
    /// In the order of the run.
    pub(crate) const ALL: [Self; 5] = [Self::Fanout, Self::Workers, Self::Connect, Self::Return, Self::Check];
}

/// All rows, in the table's order: those of issue 2 first.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "fanout",
        work: "{n} websockets, 100 B: CPU per delivery",
        unit: Unit::Us,
        target: Target::Ratio(0.90),
        session: Session::Fanout,
    },
    Row {
        name: "instructions",
        work: "the same: user-space instructions per delivery",
        unit: Unit::Instructions,
        target: Target::AtMost(300.0),
        session: Session::Fanout,
    },
    Row {
        name: "memory",
        work: "memory per idle websocket at {n}",
        unit: Unit::Bytes,
        target: Target::AtMost(1200.0),
        session: Session::Fanout,
    },
    Row {
        name: "return",
        work: "`return 200`, 64 keep-alive connections: CPU per request",
        unit: Unit::Us,
        target: Target::Ratio(1.15),
        session: Session::Return,
    },
    Row {
        name: "check",
        work: "`check` of 10,000 lines (peer: `nginx -t`): wall time",
        unit: Unit::Ms,
        target: Target::Below(100.0),
        session: Session::Check,
    },
    Row {
        name: "user",
        work: "{n} websockets, 100 B: user part of the CPU per delivery (sampled, rough)",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Fanout,
    },
    Row {
        name: "kilobyte",
        work: "{n} websockets, 1 KB: CPU per delivery",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Fanout,
    },
    Row {
        name: "burst",
        work: "{n} websockets, 100 B in bursts of 16: CPU per delivery",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Fanout,
    },
    Row {
        name: "workers",
        work: "two workers, 1,000 websockets, 100 B: CPU per delivery",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Workers,
    },
    Row {
        name: "connect",
        work: "websocket connect and close: CPU",
        unit: Unit::Us,
        target: Target::None,
        session: Session::Connect,
    },
];

/// Does the work of the sessions.
pub(crate) struct Bench<'a> {
    /// What to measure.
    pub(crate) options: &'a Options,
    /// Where to run it.
    pub(crate) cores: Cores,
    /// Whether instructions can be counted here.
    pub(crate) perf: bool,
}

/// The numbers of one session, by the row's name.
pub(crate) type Numbers = Vec<(&'static str, f64)>;

impl Bench<'_> {
    /// One run of `session`; what went wrong with messages is added to `faults`, even if the run fails.
    pub(crate) fn run(&self, session: Session, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        match session {
            Session::Fanout => self.fanout(side, faults),
            Session::Workers => self.workers(side, faults),
            Session::Connect => self.connect(side),
            Session::Return => self.requests(side),
            Session::Check => self.check(side),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.options.rows.iter().any(|row| row.name == name)
    }

    /// `quick` or the full amount.
    fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.options.quick { quick } else { full }
    }

    fn start(&self, side: Side, workers: usize) -> Result<Server, Box<dyn Error>> {
        Server::start(side, &self.options.programs, &self.cores, workers)
    }

    fn fanout(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side, 1)?;
        let mut numbers = Numbers::new();
        let mut channel = Channel::open(&server)?;
        // The first subscribers and the first message pull in code and shared structures: they are no subscriber's memory.
        let count = self.options.subscribers;
        let first = count.min(10);
        channel.subscribe(first)?;
        channel.send(1, 1, 100, faults)?;
        server.tree.settle();
        let before = server.tree.memory();
        channel.subscribe(count - first)?;
        server.tree.settle();
        let grown = server.tree.memory().saturating_sub(before);
        if count > first {
            numbers.push(("memory", grown as f64 / (count - first) as f64));
        }
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

    fn workers(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side, 2)?;
        let mut channel = Channel::open(&server)?;
        channel.subscribe(1000)?;
        channel.send(3, 1, 100, faults)?;
        let cpu = channel.measure(self.amount(20, 300), 1, 100, faults)?;
        *faults += channel.finish()?;
        Ok(vec![("workers", cpu.all)])
    }

    /// Waves of 64: each opens, says good-bye, and is closed by the server.
    fn connect(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        const WAVE: usize = 64;
        let server = self.start(side, 1)?;
        let wave = || {
            let mut subscribers = Subscribers::new(server.address)?;
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

    fn requests(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let server = self.start(side, 1)?;
        request(server.address, 64, 1000)?;
        server.tree.settle();
        let total = self.amount(5_000, 100_000);
        let before = server.tree.cpu();
        request(server.address, 64, total)?;
        let cpu = server.tree.cpu().since(&before);
        Ok(vec![("return", micros(cpu) / total as f64)])
    }

    /// One check is soon done: several in each run.
    fn check(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let check =
            |_| server::check(side, &self.options.programs, &self.cores).map(|took| ("check", micros(took) / 1000.0));
        (0..self.amount(1, 5)).map(check).collect()
    }
}

/// CPU in microseconds for one delivery.
struct PerDelivery {
    all: f64,
    user: f64,
}

/// Channel `bench` of a server: its publisher and its subscribers.
struct Channel<'a> {
    server: &'a Server,
    publisher: Publisher,
    subscribers: Subscribers,
    count: usize,
    next: u64,
}

impl<'a> Channel<'a> {
    fn open(server: &'a Server) -> Result<Self, Box<dyn Error>> {
        let publisher = Publisher::connect(server.address)?;
        Ok(Self { server, publisher, subscribers: Subscribers::new(server.address)?, count: 0, next: 0 })
    }

    fn subscribe(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        self.count += count;
        self.subscribers.open(count, self.next)
    }

    /// Publishes `bursts` times `burst` messages, each burst when all have the one before; returns the number of deliveries.
    fn send(&mut self, bursts: u64, burst: u64, size: usize, faults: &mut Faults) -> Result<f64, Box<dyn Error>> {
        assert!(size >= HEAD, "a message has room for its number");
        for _ in 0..bursts {
            let end = self.next + burst;
            self.publisher.publish(self.next..end, size)?;
            self.next = end;
            if !self.subscribers.receive(burst)? {
                // The subscribers are of no use any more: take the account of them now.
                let subscribers = std::mem::replace(&mut self.subscribers, Subscribers::new(self.server.address)?);
                let seen = subscribers.finish(end)?;
                *faults += seen;
                return Err(
                    format!("messages don't arrive: {} lost, {} disconnected", seen.lost, seen.disconnected).into()
                );
            }
            self.publisher.answers(burst)?;
        }
        Ok((bursts * burst) as f64 * self.count as f64)
    }

    fn measure(
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

    fn finish(self) -> Result<Faults, Box<dyn Error>> {
        self.subscribers.finish(self.next)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
