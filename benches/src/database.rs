//! How the rows with a database are measured. The peer is another way to the same cluster: `pgbench`, psql, an HTTP publish.

use std::error::Error;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::clients::{Wire, request};
use crate::frames::{Faults, Kind};
use crate::http::Publisher;
use crate::load::{Naming, Subscribers, fetch};
use crate::postgres::{self, Cluster};
use crate::server::{Server, Side};
use crate::work::{Bench, Channel, Numbers, Source, millis, p99};

/// Connections of the row `select`, on both sides.
const CONNECTIONS: usize = 32;

/// Rows of pgbench's table of accounts, at its scale of 1.
const ACCOUNTS: u64 = 100_000;

/// The balance, which no row changes, in chunks as the module sends it.
const ANSWER: &[u8] = b"1\r\n0\r\n0\r\n\r\n";

/// Messages of the row `notify-time` in a second.
const RATE: u32 = 10;

impl Bench<'_> {
    /// Pushgate's rate is that of as many clients, each with one request at a time, as pgbench has.
    pub(crate) fn select(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let cluster = self.cluster()?;
        let total = self.amount(3_200, 96_000);
        if side == Side::Peer {
            let each = (total / CONNECTIONS as u64).to_string();
            let mut pgbench = cluster.client("pgbench");
            pgbench.args(["-M", "prepared", "-S", "-n", "-c", &CONNECTIONS.to_string(), "-t", &each]);
            pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let said = postgres::output(self.cores.spawn(&mut pgbench, true)?)?;
            return Ok(vec![("select", pgbench_rate(&said).ok_or_else(|| format!("pgbench said {said:?}"))?)]);
        }
        let server = self.over(cluster, true)?;
        let account = |number: u64| format!("/account?id={}", number.wrapping_mul(2_654_435_761) % ACCOUNTS + 1);
        request(server.address, Wire::Plain, CONNECTIONS, 1_000, account, ANSWER)?;
        let start = Instant::now();
        request(server.address, Wire::Plain, CONNECTIONS, total, account, ANSWER)?;
        Ok(vec![("select", total as f64 / start.elapsed().as_secs_f64())])
    }

    /// The same server and clients on both sides, and the same messages: what differs is the way in.
    pub(crate) fn notify(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        let cluster = self.cluster()?;
        let server = self.over(cluster, false)?;
        let source = match side {
            Side::Pushgate => Source::Notify(cluster.session()?),
            Side::Peer => Source::Http(Publisher::connect(server.address)?),
        };
        let mut channel = Channel::with_source(&server, Kind::Websocket, source)?;
        channel.subscribe(self.options.subscribers.div_ceil(10))?;
        listened(&server, [(Channel::NAMING)(0)].into_iter())?;
        channel.send(10, 1, 100, faults)?;
        let mut numbers = Numbers::new();
        if self.wants("notify") {
            server.tree.settle();
            numbers.push(("notify", channel.measure(self.amount(20, 500), 1, 100, faults)?.all));
        }
        if self.wants("notify-time") {
            let start = Instant::now();
            let mut times = Vec::new();
            for turn in 0..self.amount(5, 200) as u32 {
                sleep((Duration::from_secs(1) / RATE * turn).saturating_sub(start.elapsed()));
                let sent = Instant::now();
                channel.send(1, 1, 100, faults)?;
                times.push(sent.elapsed());
            }
            numbers.push(("notify-time", p99(times) / 1000.0));
        }
        *faults += channel.finish()?;
        Ok(numbers)
    }

    /// A fresh server for each form, so that its peak of memory is that form's.
    pub(crate) fn rows(&self, side: Side) -> Result<Numbers, Box<dyn Error>> {
        let cluster = self.cluster()?;
        let rows = self.amount(10_000, 1_000_000);
        let mut session = cluster.session()?;
        session.run(&format!(
            "drop table if exists goods; \
             create table goods as select n as id, 'good number ' || n as name, (n % 1000) / 4.0 as price, \
             n % 3 = 0 as sold, timestamp '2020-01-01' + n * interval '1 minute' as changed \
             from generate_series(1, {rows}) n; analyze goods"
        ))?;
        // Reads the table's pages in.
        session.run("select count(*) from goods")?;
        if side == Side::Peer {
            let file = cluster.folder().join("copy");
            let copy = format!("\\copy (select * from goods) to '{}' csv header", file.display());
            let mut psql = cluster.client("psql");
            psql.args(["-X", "-c", "\\timing on", "-c", &copy]);
            psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let said = postgres::output(self.cores.spawn(&mut psql, true)?)?;
            let took = psql_time(&said).ok_or_else(|| format!("psql said {said:?}"))?;
            return Ok(vec![("json", took), ("csv", took)]);
        }
        let mut numbers = Numbers::new();
        // The line of names is ended by a line feed, the last row is not.
        for (name, memory_name, mark) in [("json", "json-memory", b'{'), ("csv", "csv-memory", b'\n')] {
            if !self.wants(name) && !self.wants(memory_name) {
                continue;
            }
            let server = self.over(cluster, true)?;
            server.tree.settle();
            let idle = server.tree.resident();
            let start = Instant::now();
            let marks = fetch(server.address, &format!("/{name}"), mark)?;
            numbers.push((name, millis(start.elapsed())));
            numbers.push((memory_name, server.tree.peak().saturating_sub(idle) as f64 / 1e6));
            if marks != rows {
                return Err(format!("/{name} brought {marks} rows instead of {rows}").into());
            }
        }
        Ok(numbers)
    }

    /// Each subscriber has a channel of its own, which its coming lets PostgreSQL listen to.
    pub(crate) fn listen(&self, side: Side, faults: &mut Faults) -> Result<Numbers, Box<dyn Error>> {
        const NAMING: Naming = |number| format!("bench{number}");
        if side == Side::Peer {
            return Ok(Numbers::new());
        }
        let cluster = self.cluster()?;
        let server = self.over(cluster, true)?;
        let count = self.options.subscribers;
        let mut subscribers = Subscribers::new(server.address, Kind::Websocket, NAMING)?;
        let start = Instant::now();
        subscribers.open(count, 0)?;
        listened(&server, (0..count).map(NAMING))?;
        let took = start.elapsed();
        let mut source = Source::Notify(cluster.session()?);
        for number in 0..2 {
            source.publish((0..count).map(|channel| (NAMING(channel), number)), 100)?;
            source.answers(count as u64)?;
            if !subscribers.receive(count as u64)? {
                let seen = subscribers.replace()?.finish(number + 1)?;
                *faults += seen;
                return Err(format!("{} notifications don't arrive", seen.lost).into());
            }
        }
        *faults += subscribers.finish(2)?;
        Ok(vec![("listen", millis(took))])
    }

    /// The cluster of all runs.
    fn cluster(&self) -> Result<&Cluster, Box<dyn Error>> {
        if let Some(cluster) = self.cluster.get() {
            return Ok(cluster);
        }
        let cluster = Cluster::start(&self.cores)?;
        postgres::said(cluster.client("pgbench").args(["-i", "-q"]))?;
        Ok(self.cluster.get_or_init(|| cluster))
    }

    fn over(&self, cluster: &Cluster, everywhere: bool) -> Result<Server, Box<dyn Error>> {
        Server::over(cluster.address, &self.options.programs, &self.cores, everywhere)
    }
}

/// Waits until PostgreSQL has confirmed that it is listened to these channels: a LISTEN more for each is answered then.
fn listened(server: &Server, channels: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut publisher = Publisher::connect(server.address)?;
    let channels: Vec<String> = channels.collect();
    for some in channels.chunks(64) {
        publisher.ask(some.iter().map(|channel| format!("/listen/{channel}")))?;
        publisher.answers(some.len() as u64)?;
    }
    Ok(())
}

/// Of `tps = 1234.5 (without initial connection time)`.
fn pgbench_rate(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("tps = "))?.split(' ').next()?.parse().ok()
}

/// Milliseconds of `Time: 1234.567 ms (00:01.235)`.
fn psql_time(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("Time: "))?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_of_postgresql_are_understood() {
        let said = "latency average = 0.3 ms\ntps = 1234.5 (without initial connection time)\n";
        assert_eq!(pgbench_rate(said), Some(1234.5));
        assert_eq!(psql_time("Timing is on.\nCOPY 9\nTime: 1234.567 ms (00:01.235)\n"), Some(1234.567));
        assert_eq!((pgbench_rate("killed"), psql_time("COPY 9")), (None, None));
    }
}
