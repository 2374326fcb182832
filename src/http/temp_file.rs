//! Temporary files for bodies that are too long for memory. They have no name, and go with whoever holds them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes one in a folder, or in the system's own where there is none.
pub(super) fn create(folder: Option<&Path>) -> io::Result<File> {
    let own = std::env::temp_dir();
    let folder = folder.filter(|folder| folder.is_dir()).unwrap_or(&own);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        Ok(file) => Ok(file),
        // Not every file system has files without a name.
        Err(_) => {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("pushgate-{}-{number}", std::process::id()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn it_keeps_bytes_and_has_no_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = create(Some(folder.path())).expect("a file");
        file.write_all_at(b"abc", 5).expect("written");
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 5).expect("read");
        assert_eq!(&bytes, b"abc");
        assert_eq!(folder.path().read_dir().expect("listed").count(), 0);
    }
}
