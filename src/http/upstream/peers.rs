//! The servers of an upstream, and which of them a request is sent to next.
//!
//! Nothing here reads the clock or opens a connection: `now` is an argument, and a choice is a value. A balancer is a
//! [`Balancer`]; what it does not decide itself it leaves to [`Level::round_robin`]. The process shares one [`Group`]
//! for each upstream, behind a short lock ([`super::Upstream`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::ListenAddress;
use crate::http::Request;

/// Where a server is, and how it is called in logs and `$upstream_addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address to connect to.
    pub address: ListenAddress,
    /// Its text.
    pub name: Bytes,
}

impl Target {
    /// A server at an address.
    pub fn new(address: ListenAddress) -> Self {
        Self { name: address.to_string().into(), address }
    }
}

/// A server as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub target: Arc<Target>,
    /// What was written in the configuration; consistent hashing counts on it.
    pub written: String,
    /// Its share of the requests.
    pub weight: i64,
    /// How many connections it may have at once; 0: any number.
    pub max_conns: u64,
    /// After how many failures within `fail_timeout` it is left out; 0: never.
    pub max_fails: u64,
    /// For how long it is left out, and how long failures count.
    pub fail_timeout: Duration,
    /// Whether it is left out for good.
    pub down: bool,
    /// Whether it is used only when all others are out.
    pub backup: bool,
}

/// A server with what is known of it.
#[derive(Debug)]
pub struct Peer {
    /// The number that it keeps while the group lives.
    pub id: u32,
    /// How it is configured.
    pub server: Server,
    /// The `server` of the block that it comes from, where its addresses may change; `None`: they stay.
    origin: Option<u32>,
    /// How many requests it has.
    pub conns: u64,
    current_weight: i64,
    effective_weight: i64,
    fails: u64,
    accessed: Duration,
    checked: Duration,
}

impl Peer {
    /// A server of which nothing is known yet.
    fn new(id: u32, mut server: Server) -> Self {
        // Sums of weights are to fit.
        server.weight = server.weight.min(i64::from(u32::MAX));
        Self {
            id,
            conns: 0,
            current_weight: 0,
            effective_weight: server.weight,
            origin: None,
            fails: 0,
            accessed: Duration::ZERO,
            checked: Duration::ZERO,
            server,
        }
    }

    /// Whether it may be given a request now.
    fn is_up(&self, now: Duration) -> bool {
        let server = &self.server;
        let rests = server.max_fails > 0
            && self.fails >= server.max_fails
            && now.saturating_sub(self.checked) <= server.fail_timeout;
        let is_full = server.max_conns > 0 && self.conns >= server.max_conns;
        !server.down && !rests && !is_full
    }

    /// Notes that it was chosen: after its rest one request tries it, not all.
    fn chosen(&mut self, now: Duration) {
        if now.saturating_sub(self.checked) > self.server.fail_timeout {
            self.checked = now;
        }
    }
}

/// The servers of one rank: the usual ones, or the backups.
#[derive(Debug, Default)]
pub struct Level {
    /// The servers, in the order of the file.
    pub peers: Vec<Peer>,
    /// Whether there is but one server in the whole group: it is never left out for its failures.
    pub is_single: bool,
    ring: Option<Ring>,
}

/// Points on a circle of hashes, in order, with the place of the first server that is written as the point's.
pub type Ring = Arc<[(u32, usize)]>;

impl Level {
    /// Servers, in the order of the file.
    pub fn new(peers: Vec<Peer>) -> Self {
        Self { peers, ..Self::default() }
    }

    /// Chooses by nginx's smooth weighted round robin; says its place.
    pub fn round_robin(&mut self, selection: &Selection, now: Duration) -> Option<usize> {
        if self.is_single {
            let peer = self.peers.first()?;
            let is_full = peer.server.max_conns > 0 && peer.conns >= peer.server.max_conns;
            return (!peer.server.down && !is_full).then_some(0);
        }
        self.in_turn(|peer| selection.may_try(peer, now))
    }

    /// The next of some servers, by their weights.
    pub fn in_turn(&mut self, is_meant: impl Fn(&Peer) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            if !is_meant(peer) {
                continue;
            }
            peer.current_weight += peer.effective_weight;
            total += peer.effective_weight;
            if peer.effective_weight < peer.server.weight {
                peer.effective_weight += 1;
            }
            let weight = peer.current_weight;
            if best.is_none_or(|best| weight > self.peers[best].current_weight) {
                best = Some(at);
            }
        }
        self.peers[best?].current_weight -= total;
        best
    }

    /// The sum of the weights.
    pub fn weight(&self) -> i64 {
        self.peers.iter().map(|peer| peer.server.weight).sum()
    }

    /// The place of the server in whose share a number below [`Self::weight`] falls, when shares lie side by side.
    pub fn at_weight(&self, mut number: i64) -> Option<usize> {
        self.peers.iter().position(|peer| {
            number -= peer.server.weight;
            number < 0
        })
    }

    /// The circle for consistent hashing, which is made where it is first asked for.
    pub fn ring(&mut self, make: impl FnOnce(&[Peer]) -> Ring) -> Ring {
        Arc::clone(self.ring.get_or_insert_with(|| make(&self.peers)))
    }
}

/// A request's way through the servers of a group.
#[derive(Debug, Default)]
pub struct Selection {
    tried: SmallVec<[u32; 4]>,
    in_backup: bool,
    /// What of the request the choice depends on ([`Balancer::key`]).
    pub key: Bytes,
    /// For the balancer: the hash that it has come to in choices before.
    pub hash: u32,
    /// For the balancer: how often it has hashed.
    pub rounds: u32,
    /// For the balancer: how many of the servers that it came to could not be used.
    pub misses: u32,
}

impl Selection {
    /// The beginning, for a request with this key.
    pub fn new(key: Bytes) -> Self {
        Self { key, ..Self::default() }
    }

    /// Whether a server may be given this request now.
    pub fn may_try(&self, peer: &Peer, now: Duration) -> bool {
        !self.tried.contains(&peer.id) && peer.is_up(now)
    }
}

/// A way to choose servers, other than round robin.
pub trait Balancer: fmt::Debug + Send + Sync {
    /// What of a request the choice depends on.
    fn key(&self, _: &Request) -> Bytes {
        Bytes::new()
    }

    /// Chooses among the servers; says the place. `None`: all are out, so that a backup has to do.
    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize>;
}

/// nginx's default.
#[derive(Debug)]
pub struct RoundRobin;

impl Balancer for RoundRobin {
    fn choose(&self, level: &mut Level, selection: &mut Selection, now: Duration) -> Option<usize> {
        level.round_robin(selection, now)
    }
}

/// A server that was chosen for a request.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Its number.
    pub id: u32,
    /// Where it is.
    pub target: Arc<Target>,
}

/// How a server did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Good,
    /// It did not, or badly: this counts against it.
    Failed,
}

/// What all workers know of an upstream's servers.
#[derive(Debug, Default)]
pub struct Group {
    primary: Level,
    backup: Level,
    /// The number of the next server; none is given twice.
    next: u32,
}

impl Group {
    /// A group of servers.
    pub fn new(servers: &[Server]) -> Self {
        let peers = (0..).zip(servers).map(|(id, server)| Peer::new(id, server.clone()));
        let (backup, primary) = peers.partition(|peer| peer.server.backup);
        let next = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let mut group = Self { primary: Level::new(primary), backup: Level::new(backup), next };
        group.count();
        group
    }

    fn count(&mut self) {
        self.primary.is_single = self.primary.peers.len() == 1 && self.backup.peers.is_empty();
    }

    /// Puts the servers that a name has now in place of those that it had. What is known of those that stay is kept.
    pub fn replace(&mut self, origin: u32, servers: &[Server]) {
        for (level, is_backup) in [(&mut self.primary, false), (&mut self.backup, true)] {
            let servers = || servers.iter().filter(|server| server.backup == is_backup);
            level.peers.retain(|peer| {
                peer.origin != Some(origin) || servers().any(|server| server.target == peer.server.target)
            });
            for server in servers() {
                let same = |peer: &&mut Peer| peer.origin == Some(origin) && peer.server.target == server.target;
                match level.peers.iter_mut().find(same) {
                    Some(peer) => {
                        if peer.server.weight != server.weight {
                            peer.effective_weight = server.weight;
                        }
                        peer.server = server.clone();
                    }
                    None => {
                        level.peers.push(Peer { origin: Some(origin), ..Peer::new(self.next, server.clone()) });
                        self.next = self.next.wrapping_add(1);
                    }
                }
            }
            level.ring = None;
        }
        self.count();
    }

    /// How many servers a request may try.
    pub fn tries(&self) -> usize {
        self.peers().filter(|peer| !peer.server.down).count()
    }

    /// Chooses a server, and counts it in.
    pub fn next(&mut self, balancer: &dyn Balancer, selection: &mut Selection, now: Duration) -> Option<Chosen> {
        let mut chosen = None;
        if !selection.in_backup {
            chosen = balancer.choose(&mut self.primary, selection, now);
        }
        if chosen.is_none() && !self.backup.peers.is_empty() {
            selection.in_backup = true;
            chosen = balancer.choose(&mut self.backup, selection, now);
        }
        let level = if selection.in_backup { &mut self.backup } else { &mut self.primary };
        let peer = level.peers.get_mut(chosen?)?;
        peer.chosen(now);
        peer.conns += 1;
        selection.tried.push(peer.id);
        Some(Chosen { id: peer.id, target: Arc::clone(&peer.server.target) })
    }

    /// Counts a server out; `true`: it has failed too often and is left out for a while.
    pub fn done(&mut self, id: u32, verdict: Verdict, now: Duration) -> bool {
        let is_single = self.primary.is_single;
        let Some(peer) = self.primary.peers.iter_mut().chain(&mut self.backup.peers).find(|peer| peer.id == id) else {
            return false;
        };
        peer.conns = peer.conns.saturating_sub(1);
        if is_single {
            peer.fails = 0;
            return false;
        }
        if verdict == Verdict::Good {
            if peer.accessed < peer.checked {
                peer.fails = 0;
            }
            return false;
        }
        peer.fails += 1;
        (peer.accessed, peer.checked) = (now, now);
        let max_fails = peer.server.max_fails;
        if max_fails == 0 {
            return false;
        }
        let loss = peer.server.weight / i64::try_from(max_fails).unwrap_or(i64::MAX);
        peer.effective_weight = (peer.effective_weight - loss).max(0);
        peer.fails >= max_fails
    }

    /// The servers, backups last.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.primary.peers.iter().chain(&self.backup.peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers of one letter each: `a*3` has weight 3, `b!` is down, `c+` a backup, `d<1` has at most one connection.
    fn group(words: &str) -> Group {
        let server = |word: &str| {
            let number = |mark| word.split_once(mark).and_then(|(_, number)| number.parse().ok());
            let name = word[..1].to_owned();
            let address = ListenAddress::Unix(name.clone().into());
            Server {
                target: Arc::new(Target { address, name: name.clone().into() }),
                written: name,
                weight: number('*').unwrap_or(1),
                max_conns: number('<').and_then(|most| u64::try_from(most).ok()).unwrap_or(0),
                max_fails: 1,
                fail_timeout: Duration::from_secs(10),
                down: word.contains('!'),
                backup: word.contains('+'),
            }
        };
        Group::new(&words.split(' ').map(server).collect::<Vec<_>>())
    }

    fn pick(group: &mut Group, selection: &mut Selection, now: u64) -> Option<(u32, String)> {
        let chosen = group.next(&RoundRobin, selection, Duration::from_secs(now))?;
        Some((chosen.id, String::from_utf8_lossy(&chosen.target.name).into_owned()))
    }

    /// The servers that so many requests come to, each answered at once.
    fn turns(group: &mut Group, count: usize, now: u64) -> String {
        let turn = |_| match pick(group, &mut Selection::default(), now) {
            None => "-".to_owned(),
            Some((id, name)) => {
                group.done(id, Verdict::Good, Duration::from_secs(now));
                name
            }
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn weights_are_spread_smoothly() {
        assert_eq!(turns(&mut group("a b c"), 6, 0), "abcabc");
        assert_eq!(turns(&mut group("a*5 b c"), 7, 0), "aabacaa");
        assert_eq!(turns(&mut group("a b! c"), 4, 0), "acac");
        assert_eq!(turns(&mut group("a! b+"), 2, 0), "bb");
        assert_eq!(turns(&mut group("a!"), 1, 0), "-");
    }

    #[test]
    fn one_that_fails_rests() {
        let mut group = group("a b c+");
        let mut selection = Selection::default();
        let (a, _) = pick(&mut group, &mut selection, 100).expect("the first");
        assert!(group.done(a, Verdict::Failed, Duration::from_secs(100)), "one failure is enough");
        let (b, _) = pick(&mut group, &mut selection, 100).expect("the second");
        assert!(group.done(b, Verdict::Failed, Duration::from_secs(100)));
        assert_eq!(pick(&mut group, &mut selection, 100).expect("the backup").1, "c");
        assert_eq!(pick(&mut group, &mut selection, 100), None);
        assert_eq!(turns(&mut group, 2, 105), "cc");
        // Later each is tried by one request, and is back when that went well.
        let mut after = turns(&mut group, 4, 111);
        assert_eq!(after.len(), 4);
        after.retain(|name| name == 'c');
        assert_eq!(after, "");
    }

    #[test]
    fn a_lone_server_is_never_left_out() {
        let mut group = group("a");
        for now in 0..3 {
            let (a, _) = pick(&mut group, &mut Selection::default(), now).expect("the only one");
            assert!(!group.done(a, Verdict::Failed, Duration::from_secs(now)));
        }
        assert_eq!(group.tries(), 1);
    }

    #[test]
    fn servers_of_a_name_come_and_go() {
        let server = |word: &str| group(word).primary.peers.remove(0).server;
        let mut group = group("z c+");
        group.replace(1, &[server("a"), server("b")]);
        group.replace(2, &[server("a")]);
        let mut selection = Selection::default();
        let (z, _) = pick(&mut group, &mut selection, 0).expect("z");
        let (a, name) = pick(&mut group, &mut selection, 0).expect("a");
        assert_eq!(name, "a");
        group.done(a, Verdict::Failed, Duration::ZERO);
        // One stays, with what is known of it; one goes, one comes.
        group.replace(1, &[server("d"), server("a*3"), server("a*3")]);
        group.replace(2, &[]);
        let of =
            |group: &Group| group.peers().map(|peer| (peer.id, peer.fails, peer.server.weight)).collect::<Vec<_>>();
        assert_eq!(of(&group), [(z, 0, 1), (a, 1, 3), (5, 0, 1), (1, 0, 1)]);
        assert!(!group.done(3, Verdict::Failed, Duration::ZERO), "it is gone");
        group.replace(1, &[]);
        assert_eq!(turns(&mut group, 2, 0), "zz");
    }

    #[test]
    fn connections_are_counted() {
        let mut group = group("a<1 b");
        let mut held = Selection::default();
        let (a, _) = pick(&mut group, &mut held, 0).expect("a");
        assert_eq!(turns(&mut group, 3, 0), "bbb");
        group.done(a, Verdict::Good, Duration::ZERO);
        assert!(turns(&mut group, 2, 0).contains('a'));
    }
}
