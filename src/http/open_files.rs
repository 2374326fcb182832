//! `open_file_cache`: what a worker knows of files for a while, and the files that it keeps open.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::file::{self, Failure, Opened};
use super::request::Request;
use super::symlinks::Follow;
use crate::config::value::{Flag, Number, Sec, parse_number, parse_sec};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot, Status};
use crate::server::clock::{self, Moment};
use crate::settings;

/// The row that is written by hand.
pub const COMMAND: Directive = Directive {
    name: "open_file_cache",
    contexts: Contexts::HTTP_ALL,
    args: Args::between(1, 2),
    once: true,
    syntax: "off | max=number [inactive=time]",
    default: "off",
    doc: "How many files and folders each worker knows of, with their descriptors, sizes and times of change. Past that the \
          one goes that was not asked for the longest; one that was not asked for during `inactive` (60s) goes by itself. \
          Holds for files that are answered with, `index`, `try_files`, `gzip_static` and the tests of `if`. A reload begins \
          anew.\n\nExample: `open_file_cache max=1000 inactive=20s;`",
    file: file!(),
    apply: open_file_cache,
    ..Directive::BASE
};

settings! {
    /// How far a cache of open files is trusted.
    pub struct Trust {
        /// Whether it is remembered too that a file is not there, or can't be opened.
        "open_file_cache_errors" HTTP_ALL = "off" => pub errors: Flag,
        /// Whether nginx lets the kernel tell it that a file in the cache changed.
        @Status::Ignored("nginx has it with kqueue alone, which Linux has not"); "open_file_cache_events" HTTP_ALL = "off" => pub events: Flag,
        /// How often a file must be asked for, while it is known, to be kept open.
        "open_file_cache_min_uses" HTTP_ALL = "1" => pub min_uses: Number,
        /// For how long what is known of a file is believed; then the file is looked at again.
        "open_file_cache_valid" HTTP_ALL = "60s" => pub valid: Sec,
    }
}

/// The cache of a block and of those inside it; `None`: each request opens its files.
#[derive(Clone, Debug)]
pub struct OpenFiles(Option<Arc<Bounds>>);

/// What a cache may hold. Its address tells caches apart.
#[derive(Debug)]
struct Bounds {
    max: usize,
    inactive: Duration,
}

impl Section for OpenFiles {
    type Raw = Option<Self>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        raw.clone().or_else(|| parent.cloned()).unwrap_or(Self(None))
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn open_file_cache(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let (mut max, mut inactive, mut is_off) = (None, 60, false);
    for (index, word) in call.words().enumerate() {
        let is_right = if let Some(value) = word.strip_prefix(b"max=") {
            max = parse_number(value).filter(|max| *max > 0);
            max.is_some()
        } else if let Some(value) = word.strip_prefix(b"inactive=") {
            let time = parse_sec(value);
            inactive = time.unwrap_or(inactive);
            time.is_some()
        } else {
            is_off |= word == b"off";
            word == b"off"
        };
        if !is_right {
            let message = format!("invalid \"open_file_cache\" parameter \"{}\"", call.text(index));
            return Err(Fault::new(message).word(index));
        }
    }
    let bounds = match max {
        _ if is_off => None,
        None => return Err(Fault::new("\"open_file_cache\" must have the \"max\" parameter")),
        Some(max) => Some(Arc::new(Bounds {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            inactive: Duration::from_secs(inactive),
        })),
    };
    *cx.edit::<OpenFiles>() = Some(OpenFiles(bounds));
    Ok(())
}

thread_local! {
    /// A worker's caches: few, one for each `open_file_cache` that is in use.
    static CACHES: RefCell<Vec<(Weak<Bounds>, Cache)>> = const { RefCell::new(Vec::new()) };
}

/// Closes what this worker keeps open: there is a new configuration.
pub fn forget() {
    CACHES.take();
}

/// What the request's cache knows of a file, or learns now; `None`: it has no cache.
pub(super) fn look(request: &Request, path: &Path, follow: Follow) -> Option<Result<Opened, Failure>> {
    let bounds = request.settings::<OpenFiles>().0.as_ref()?;
    let trust = request.settings::<Trust>();
    CACHES.with_borrow_mut(|caches| {
        let is_it = |(weak, _): &(Weak<Bounds>, Cache)| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(bounds));
        let place = caches.iter().position(is_it).unwrap_or_else(|| {
            caches.retain(|(weak, _)| weak.strong_count() > 0);
            caches.push((Arc::downgrade(bounds), Cache::default()));
            caches.len() - 1
        });
        Some(caches[place].1.look(path, follow, bounds, trust, clock::now()))
    })
}

/// What is known of files, by their paths.
#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Rc<[u8]>, Entry>,
    /// The paths in the order in which they were asked for last.
    order: BTreeMap<u64, Rc<[u8]>>,
    asked: u64,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    seen: Seen,
    used: Moment,
    uses: u64,
    /// Its place in the order.
    place: u64,
}

/// How that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Moment,
    follow: Follow,
}

#[derive(Clone, Debug)]
enum Known {
    /// It is there. A file that was not asked for often enough is not kept open.
    There(Opened),
    /// It can't be opened: what failed, with which number.
    Failed(&'static str, i32),
}

impl Cache {
    fn look(
        &mut self,
        path: &Path,
        follow: Follow,
        bounds: &Bounds,
        trust: &Trust,
        now: Moment,
    ) -> Result<Opened, Failure> {
        let key = path.as_os_str().as_encoded_bytes();
        let anew = Seen { at: now, follow };
        let known = match self.entries.get_mut(key) {
            None => None,
            Some(entry) => {
                entry.uses += 1;
                let is_recent = now.since(entry.seen.at) < Duration::from_secs(*trust.valid);
                let is_fresh = is_recent && entry.seen.follow == follow;
                match &entry.known {
                    Known::There(known) if known.file.is_none() && !known.metadata.is_dir() => None,
                    known if is_fresh => Some((known.clone(), entry.seen)),
                    known => Some((known.again(path, follow), anew)),
                }
            }
        };
        let (known, seen) = known.unwrap_or_else(|| (Known::of(file::open_anew(path, follow)), anew));
        if matches!(known, Known::Failed(..)) && !*trust.errors {
            self.forget(key);
        } else {
            self.keep(key, known.clone(), seen, bounds, trust, now);
        }
        self.expire(bounds, now);
        known.result()
    }

    fn keep(&mut self, key: &[u8], known: Known, seen: Seen, bounds: &Bounds, trust: &Trust, now: Moment) {
        self.asked += 1;
        let place = self.asked;
        let key = match self.entries.get(key) {
            Some(entry) => self.order.remove(&entry.place).unwrap_or_else(|| key.into()),
            None => {
                if self.entries.len() >= bounds.max
                    && let Some((_, oldest)) = self.order.pop_first()
                {
                    self.entries.remove(&oldest);
                }
                key.into()
            }
        };
        let uses = self.entries.get(&key).map_or(1, |entry| entry.uses);
        let known = if uses < *trust.min_uses { known.closed() } else { known };
        self.order.insert(place, Rc::clone(&key));
        self.entries.insert(key, Entry { known, seen, used: now, uses, place });
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.place);
        }
    }

    /// Lets go of two at most that nobody has asked for in a long time.
    fn expire(&mut self, bounds: &Bounds, now: Moment) {
        for _ in 0..2 {
            let Some(oldest) = self.order.first_entry() else { return };
            let is_idle = |entry: &Entry| now.since(entry.used) > bounds.inactive;
            if !self.entries.get(oldest.get()).is_none_or(is_idle) {
                return;
            }
            self.entries.remove(&oldest.remove());
        }
    }
}

impl Known {
    fn of(opened: Result<Opened, Failure>) -> Self {
        match opened {
            Ok(opened) => Self::There(opened),
            Err(failure) => Self::Failed(failure.operation(), failure.errno()),
        }
    }

    /// Looks whether it is still so. A file that is the same stays open.
    fn again(&self, path: &Path, follow: Follow) -> Self {
        let Self::There(known) = self else { return Self::of(file::open_anew(path, follow)) };
        let metadata = match file::stat_anew(path, follow) {
            Ok(metadata) => metadata,
            Err(failure) => return Self::of(Err(failure)),
        };
        match (known.metadata.is_dir(), metadata.is_dir()) {
            (true, true) => Self::There(Opened { metadata, file: None }),
            (false, false) if is_same(&known.metadata, &metadata) => {
                Self::There(Opened { metadata, file: known.file.clone() })
            }
            _ => Self::of(file::open_anew(path, follow)),
        }
    }

    fn closed(self) -> Self {
        match self {
            Self::There(opened) => Self::There(Opened { file: None, ..opened }),
            failed @ Self::Failed(..) => failed,
        }
    }

    fn result(self) -> Result<Opened, Failure> {
        match self {
            Self::There(opened) => Ok(opened),
            Self::Failed(operation, errno) => Err(Failure::new(operation, io::Error::from_raw_os_error(errno))),
        }
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directive: &str, expected: &[&str]| assert_eq!(findings(directive), expected, "{directive}");
        check("open_file_cache max=10 inactive=20s;", &[]);
        check("open_file_cache off;", &[]);
        check("open_file_cache inactive=20s;", &["\"open_file_cache\" must have the \"max\" parameter"]);
        check("open_file_cache max=0;", &["invalid \"open_file_cache\" parameter \"max=0\""]);
        check("open_file_cache max=1 colour;", &["invalid \"open_file_cache\" parameter \"colour\""]);
    }

    /// A cache over a folder, and a clock that is set.
    struct World {
        cache: Cache,
        bounds: Bounds,
        trust: Trust,
        folder: tempfile::TempDir,
        start: Moment,
    }

    impl World {
        fn new(max: usize) -> Self {
            Self {
                cache: Cache::default(),
                bounds: Bounds { max, inactive: Duration::from_secs(20) },
                trust: Trust { errors: Flag(false), events: Flag(false), min_uses: Number(1), valid: Sec(60) },
                folder: tempfile::tempdir().unwrap(),
                start: clock::now(),
            }
        }

        fn write(&self, name: &str, text: &str) {
            // As a new file, in the place of what was there.
            let path = self.folder.path().join(name);
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }

        /// What is read of a file after so many seconds.
        fn read(&mut self, name: &str, after: u64) -> String {
            let now = self.start.after(Duration::from_secs(after));
            match self.cache.look(&self.folder.path().join(name), Follow::ANY, &self.bounds, &self.trust, now) {
                Ok(Opened { file: Some(file), metadata }) => {
                    let mut text = vec![0; usize::try_from(metadata.len()).unwrap()];
                    file.read_exact_at(&mut text, 0).unwrap();
                    String::from_utf8(text).unwrap()
                }
                Ok(Opened { file: None, .. }) => "a folder".to_owned(),
                Err(failure) => failure.reason(),
            }
        }

        fn open(&self) -> Vec<String> {
            let is_open = |path: &&Rc<[u8]>| matches!(&self.cache.entries[*path].known, Known::There(opened) if opened.file.is_some());
            let name =
                |path: &Rc<[u8]>| String::from_utf8_lossy(path).rsplit('/').next().unwrap_or_default().to_owned();
            self.cache.order.values().filter(is_open).map(name).collect()
        }
    }

    const NOT_THERE: &str = "(2: No such file or directory)";

    #[test]
    fn what_is_known_is_believed_for_a_while() {
        let mut world = World::new(10);
        world.write("a", "one");
        assert_eq!(world.read("a", 0), "one");
        world.write("a", "two");
        assert_eq!(world.read("a", 59), "one");
        assert_eq!(world.read("a", 60), "two");
        fs::remove_file(world.folder.path().join("a")).unwrap();
        assert_eq!(world.read("a", 61), "two");
        assert_eq!(world.read("a", 120), NOT_THERE);
        assert!(world.open().is_empty());
        fs::create_dir(world.folder.path().join("a")).unwrap();
        assert_eq!(world.read("a", 121), "a folder");
        fs::remove_dir(world.folder.path().join("a")).unwrap();
        world.write("a", "three");
        assert_eq!(world.read("a", 180), "a folder");
        assert_eq!(world.read("a", 181), "three");
    }

    #[test]
    fn a_file_that_grew_is_kept_open() {
        let mut world = World::new(10);
        world.write("a", "one");
        assert_eq!(world.read("a", 0), "one");
        fs::write(world.folder.path().join("a"), "one and two").unwrap();
        assert_eq!(world.read("a", 1), "one");
        assert_eq!(world.read("a", 60), "one and two");
    }

    #[test]
    fn failures_are_remembered_if_that_is_said() {
        let mut world = World::new(10);
        assert_eq!(world.read("a", 0), NOT_THERE);
        world.write("a", "one");
        assert_eq!(world.read("a", 0), "one");
        world.trust.errors = Flag(true);
        assert_eq!(world.read("b", 0), NOT_THERE);
        world.write("b", "two");
        assert_eq!(world.read("b", 59), NOT_THERE);
        assert_eq!(world.read("b", 60), "two");
    }

    #[test]
    fn the_oldest_goes_first_and_the_idle_by_themselves() {
        let mut world = World::new(2);
        for name in ["a", "b", "c"] {
            world.write(name, name);
        }
        for name in ["a", "b", "a", "c"] {
            assert_eq!(world.read(name, 0), name);
        }
        assert_eq!(world.open(), ["a", "c"]);
        assert_eq!(world.read("c", 20), "c");
        assert_eq!(world.open(), ["a", "c"]);
        assert_eq!(world.read("c", 21), "c");
        assert_eq!(world.open(), ["c"]);
        assert_eq!(world.cache.entries.len(), 1);
    }

    #[test]
    fn what_is_used_seldom_is_not_kept_open() {
        let mut world = World::new(10);
        world.trust.min_uses = Number(3);
        world.write("a", "one");
        for _ in 0..2 {
            assert_eq!(world.read("a", 0), "one");
            assert!(world.open().is_empty());
        }
        // One that is not open is opened anew, however fresh it is.
        world.write("a", "two");
        assert_eq!(world.read("a", 0), "two");
        assert_eq!(world.open(), ["a"]);
    }

    #[test]
    fn another_rule_for_links_looks_anew() {
        let mut world = World::new(10);
        world.write("a", "one");
        std::os::unix::fs::symlink("a", world.folder.path().join("link")).unwrap();
        assert_eq!(world.read("link", 0), "one");
        let path = world.folder.path().join("link");
        let answer = world.cache.look(&path, Follow::NONE, &world.bounds, &world.trust, world.start);
        assert_eq!(answer.unwrap_err().errno(), libc::ELOOP);
        assert_eq!(world.read("link", 0), "one");
    }
}
