//! Keeps a console's log file within bounds: a guest may print for ever.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::files::beside;

/// Cuts the log to its last half once it is longer than `limit_bytes`; tells whether it did.
///
/// QEMU appends, so its next line lands at the new end. Lines that arrive during the cut may be
/// lost. A crash half-way leaves `<path>.tail`, which the next cut replaces. Call it from the
/// sampler; between two calls the log may grow past the limit.
pub fn trim(path: &Path, limit_bytes: u64) -> io::Result<bool> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length <= limit_bytes {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(length - limit_bytes / 2))?;
    let mut tail = Vec::new();
    file.take(limit_bytes).read_to_end(&mut tail)?;
    fs::write(beside(path, "tail"), &tail)?;
    let file = OpenOptions::new().append(true).open(path)?;
    file.set_len(0)?;
    io::copy(&mut tail.as_slice(), &mut &file)?;
    fs::remove_file(beside(path, "tail"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_keeps_its_end_and_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        writer.write_all(&[b'a'; 900]).unwrap();
        assert!(!trim(&path, 1000).unwrap());
        writer.write_all(&[b'b'; 600]).unwrap();
        assert!(trim(&path, 1000).unwrap());
        writer.write_all(b"next").unwrap();
        let text = fs::read(&path).unwrap();
        assert_eq!(text.len(), 504);
        assert!(text.starts_with(b"bbb") && text.ends_with(b"bnext"));
    }

    #[test]
    fn a_missing_log_is_short_enough() {
        assert!(!trim(Path::new("/nonexistent/console.log"), 1).unwrap());
    }
}
