//! Buffered logs: lines that are written together, compressed or not (`access_log ... buffer= flush= gzip=`).

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::log_file::LogFile;

/// How lines wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// So many bytes at most.
    pub size: usize,
    /// For so long at most; `None`: as long as there is room.
    pub flush: Option<Duration>,
    /// The level at which they are compressed, 1 to 9.
    pub gzip: Option<u32>,
}

/// A log file with the lines that are not yet in it.
#[derive(Debug)]
pub struct BufferedLog {
    file: Arc<LogFile>,
    how: Buffering,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Counts how often the lines were written out.
    round: u64,
}

static BUFFERED: LazyLock<Mutex<Vec<Weak<BufferedLog>>>> = LazyLock::new(Mutex::default);

impl BufferedLog {
    /// A buffer before a file. The threads of the process share it.
    pub fn new(file: Arc<LogFile>, how: Buffering) -> Arc<Self> {
        let log = Arc::new(Self { file, how, waiting: Mutex::default() });
        let mut buffered = BUFFERED.lock().unwrap_or_else(PoisonError::into_inner);
        buffered.retain(|log| log.strong_count() > 0);
        buffered.push(Arc::downgrade(&log));
        log
    }

    /// The file.
    pub fn file(&self) -> &Arc<LogFile> {
        &self.file
    }

    /// How lines wait.
    pub fn how(&self) -> Buffering {
        self.how
    }

    /// Adds a line. If it is the first one, and lines are to wait for a time only, it says for how long, and what
    /// [`Self::flush_round`] wants to know then.
    pub fn write(&self, line: &[u8]) -> Option<(Duration, u64)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.len() + line.len() > self.how.size {
            self.write_out(&mut waiting);
        }
        if line.len() > self.how.size {
            self.write_through(line);
            return None;
        }
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        self.how.flush.filter(|_| is_first).map(|time| (time, waiting.round))
    }

    /// Writes the lines out, unless those of this round were.
    pub fn flush_round(&self, round: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.round == round {
            self.write_out(&mut waiting);
        }
    }

    fn flush(&self) {
        self.write_out(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write_out(&self, waiting: &mut Waiting) {
        if !waiting.lines.is_empty() {
            self.write_through(&waiting.lines);
            waiting.lines.clear();
            waiting.round += 1;
        }
    }

    fn write_through(&self, lines: &[u8]) {
        match self.how.gzip {
            None => self.file.write(lines),
            Some(level) => self.file.write(&compressed(lines, level)),
        }
    }
}

/// A configuration that no longer holds leaves nothing behind.
impl Drop for BufferedLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A whole gzip file: several after one another are one, too.
fn compressed(lines: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(lines.len() / 4), Compression::new(level));
    // Writing to memory does not fail.
    drop(encoder.write_all(lines));
    encoder.finish().unwrap_or_default()
}

/// Writes out what waits in any buffer: the files are reopened, or the process ends.
pub fn flush_all() {
    let buffered = BUFFERED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    buffered.iter().filter_map(Weak::upgrade).for_each(|log| log.flush());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

    use std::io::Read;

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        log: Arc<BufferedLog>,
    }

    fn fixture(how: Buffering) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let file = LogFile::at(&folder.path().join("log"));
        file.open().unwrap();
        Fixture { log: BufferedLog::new(file, how), folder }
    }

    impl Fixture {
        fn written(&self) -> Vec<u8> {
            std::fs::read(self.folder.path().join("log")).unwrap()
        }
    }

    #[test]
    fn lines_wait_for_room_time_or_the_end() {
        let second = Duration::from_secs(1);
        let fixture = fixture(Buffering { size: 8, flush: Some(second), gzip: None });
        assert_eq!(fixture.log.write(b"one\n"), Some((second, 0)));
        assert_eq!(fixture.log.write(b"two\n"), None);
        assert_eq!(fixture.written(), b"");
        assert_eq!(fixture.log.write(b"three\n"), Some((second, 1)));
        assert_eq!(fixture.written(), b"one\ntwo\n");
        fixture.log.flush_round(0);
        assert_eq!(fixture.written(), b"one\ntwo\n");
        fixture.log.flush_round(1);
        assert_eq!(fixture.written(), b"one\ntwo\nthree\n");
        assert_eq!(fixture.log.write(b"longer than the buffer\n"), None);
        fixture.log.write(b"last\n");
        let Fixture { folder, log } = fixture;
        drop(log);
        let written = std::fs::read(folder.path().join("log")).unwrap();
        assert_eq!(written, b"one\ntwo\nthree\nlonger than the buffer\nlast\n");
    }

    #[test]
    fn compressed_pieces_make_one_file() {
        let fixture = fixture(Buffering { size: 4, flush: None, gzip: Some(1) });
        fixture.log.write(b"one\n");
        fixture.log.write(b"two\n");
        flush_all();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(&*fixture.written()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }
}
