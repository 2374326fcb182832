//! What `/proc` tells of a server (its first process, all that it started, and all their threads), and on which cores it runs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A process and its descendants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree(pub(crate) u32);

impl Tree {
    /// All processes, the first first.
    pub(crate) fn pids(self) -> Vec<u32> {
        let mut pids = vec![self.0];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            next += 1;
            for thread in threads(pid) {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        pids
    }

    /// The CPU time used until now.
    pub(crate) fn cpu(self) -> Cpu {
        let mut cpu = Cpu::default();
        for pid in self.pids() {
            cpu.user_ticks +=
                fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| user_ticks(&stat)).unwrap_or(0);
            for thread in threads(pid) {
                let path = format!("/proc/{pid}/task/{thread}/schedstat");
                let run =
                    fs::read_to_string(path).ok().and_then(|stat| stat.split_whitespace().next()?.parse::<u64>().ok());
                cpu.threads.insert(thread, run.unwrap_or(0));
            }
        }
        cpu
    }

    /// Proportional set size in bytes: what the processes share counts once.
    pub(crate) fn memory(self) -> u64 {
        self.pids()
            .into_iter()
            .filter_map(|pid| kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:"))
            .sum()
    }

    /// Resident bytes of the first process.
    pub(crate) fn resident(self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that this has been.
    pub(crate) fn peak(self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(self, name: &str) -> u64 {
        fs::read_to_string(format!("/proc/{}/status", self.0)).ok().and_then(|text| kilobytes(&text, name)).unwrap_or(0)
    }

    /// Waits until the server has nothing left to do.
    pub(crate) fn settle(self) {
        let end = Instant::now() + Duration::from_secs(5);
        let mut before = self.cpu();
        while Instant::now() < end {
            sleep(Duration::from_millis(100));
            let now = self.cpu();
            if now.since(&before) < Duration::from_millis(1) {
                return;
            }
            before = now;
        }
    }

    /// Ends it: politely first.
    pub(crate) fn stop(self) {
        let pids = self.pids();
        signal(self.0, Signal::TERM);
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && pids.iter().any(|&pid| is_running(pid)) {
            sleep(Duration::from_millis(10));
        }
        for pid in pids.into_iter().filter(|&pid| is_running(pid)) {
            signal(pid, Signal::KILL);
        }
    }
}

/// CPU time of a [`Tree`] at one moment.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    /// Nanoseconds of each thread, user and system, by the scheduler's own clock (`schedstat`). `stat` would say the same to
    /// the nearest hundredth of a second.
    threads: BTreeMap<u32, u64>,
    /// What `stat` says of user time: sampled by the timer, hence rough.
    user_ticks: u64,
}

impl Cpu {
    /// User and system time since `earlier`. A thread that has ended in between is not counted: servers keep theirs.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, run): (&u32, &u64)| run.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0));
        Duration::from_nanos(self.threads.iter().map(used).sum())
    }

    /// User time since `earlier`.
    pub(crate) fn user_since(&self, earlier: &Self) -> Duration {
        let ticks = self.user_ticks.saturating_sub(earlier.user_ticks);
        Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
    }
}

/// The cores for the server and for ourselves.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    all: CpuSet,
    /// Server, generator: only where there are two.
    apart: Option<(usize, usize)>,
}

impl Cores {
    /// Takes the first two cores that we may use, and moves this process to the second.
    pub(crate) fn divide() -> Result<Self, Box<dyn Error>> {
        let all = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core));
        let cores = Self { all, apart: usable.next().zip(usable.next()) };
        cores.generate()?;
        Ok(cores)
    }

    /// Starts a server on its core, or, if it is to use all of them, on any.
    pub(crate) fn spawn(&self, command: &mut Command, everywhere: bool) -> Result<std::process::Child, Box<dyn Error>> {
        match self.apart {
            Some((server, _)) if !everywhere => sched_setaffinity(None, &only(server))?,
            _ => sched_setaffinity(None, &self.all)?,
        }
        let child = command.spawn();
        self.generate()?;
        Ok(child?)
    }

    /// How many there are for a server that may use all.
    pub(crate) fn count(&self) -> u32 {
        self.all.count()
    }

    /// One line about it for the report.
    pub(crate) fn describe(&self) -> String {
        match self.apart {
            Some((server, generator)) => {
                format!("server pinned to core {server}, generator to core {generator}")
            }
            None => "not pinned: one core for server and generator".to_owned(),
        }
    }

    fn generate(&self) -> Result<(), Box<dyn Error>> {
        if let Some((_, generator)) = self.apart {
            sched_setaffinity(None, &only(generator))?;
        }
        Ok(())
    }
}

/// Raises the limit of open files, for us and for the servers that we start; returns what it is now.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(1 << 20).max(1 << 16);
    // Beyond the hard limit only with the privilege, else up to it.
    for maximum in [Some(wanted), limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// `perf stat` on the running processes of a server: their user-space instructions.
pub(crate) struct Perf(std::process::Child);

impl Perf {
    /// Whether this machine counts instructions at all.
    pub(crate) fn is_supported() -> bool {
        let output = Command::new("perf").args(["stat", "-x,", "-e", "instructions:u", "true"]).output();
        output.is_ok_and(|output| instructions(&String::from_utf8_lossy(&output.stderr)).is_some())
    }

    /// Counts from now on.
    pub(crate) fn start(tree: Tree) -> Result<Self, Box<dyn Error>> {
        let pids: Vec<String> = tree.pids().iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["stat", "-x,", "-e", "instructions:u", "-p", &pids.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // perf says nothing when it has attached.
        sleep(Duration::from_millis(500));
        Ok(Self(child))
    }

    /// The count.
    pub(crate) fn finish(self) -> Result<u64, Box<dyn Error>> {
        signal(self.0.id(), Signal::INT);
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        instructions(&text).ok_or_else(|| format!("perf stat said {:?}", text.trim()).into())
    }
}

/// The count in a line of `perf stat -x,`; `None` for `<not supported>` and `<not counted>`.
fn instructions(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("instructions"))?.split(',').next()?.parse().ok()
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already: that is what a signal here is for.
        kill_process(pid, signal).ok();
    }
}

/// A zombie has ended: its parent (we) only has not looked yet.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| field(&stat, 3).is_some_and(|state| state != "Z"))
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// `utime` and `cutime` of a `/proc/PID/stat`.
fn user_ticks(stat: &str) -> Option<u64> {
    Some(field(stat, 14)?.parse::<u64>().ok()? + field(stat, 16)?.parse::<u64>().ok()?)
}

/// Field `number` of a `/proc/PID/stat`, counted from one as in proc(5). The second, the name, may hold blanks and parentheses.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)
}

/// Bytes of a line such as `Pss: 319 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 7 9 20 0 1 0 1";
        assert_eq!(field(stat, 3), Some("S"));
        assert_eq!(user_ticks(stat), Some(157));
        assert_eq!(user_ticks("garbage"), None);
    }

    #[test]
    fn the_rollup_gives_bytes() {
        assert_eq!(
            kilobytes("5627-7ffc 0 [rollup]\nRss:    1724 kB\nPss:     319 kB\nPss_Dirty: 1 kB\n", "Pss:"),
            Some(319 * 1024)
        );
        assert_eq!(kilobytes("Rss: 1 kB\n", "Pss:"), None);
    }

    #[test]
    fn perf_counts_or_says_that_it_can_not() {
        assert_eq!(instructions("123456,,instructions:u,1000,100.00,,\n"), Some(123_456));
        assert_eq!(instructions("# started\n<not supported>,,instructions:u,0,100.00,,\n"), None);
        assert_eq!(instructions(""), None);
    }

    #[test]
    fn our_own_process_uses_time_and_memory() {
        let tree = Tree(std::process::id());
        let before = tree.cpu();
        let start = Instant::now();
        while tree.cpu().since(&before) < Duration::from_millis(5) {
            assert!(start.elapsed() < Duration::from_secs(20), "busy, and no CPU time seen");
        }
        assert!(tree.memory() > 100_000);
        assert!(tree.peak() >= 100_000 && tree.resident() > 0);
    }
}
