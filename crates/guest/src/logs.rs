//! A site's logs: their last lines, and a bound on their size.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use undine_api::guest::LogKind;

use crate::files;
use crate::paths::SitePaths;

/// The most lines that are sent, and the most bytes that are read for them.
const MOST_LINES: usize = 1_000;
const MOST_BYTES: u64 = 512 << 10;
/// A log that is longer keeps only its end, in a second file.
const LONGEST: u64 = 8 << 20;

fn name(log: LogKind) -> &'static str {
    match log {
        LogKind::Access => "access.log",
        LogKind::Error => "error.log",
    }
}

/// The last lines of a site's log; a log that was never written has none.
pub fn tail(at: &SitePaths, log: LogKind, lines: u32) -> io::Result<Vec<String>> {
    let bytes = match end_of(&at.at("logs").join(name(log)), MOST_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines = (lines as usize).min(MOST_LINES);
    let mut last: Vec<String> = text.lines().rev().take(lines).map(shortened).collect();
    last.reverse();
    Ok(last)
}

/// A frame has an end; a single line of a log need not.
fn shortened(line: &str) -> String {
    line.chars().take(900).collect()
}

fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Shortens logs that have grown too long. Their writers append, so they need not be told; a line
/// written at this very moment may be lost.
pub fn bound(sites: &Path) {
    for site in fs::read_dir(sites).into_iter().flatten().flatten() {
        for log in ["access.log", "error.log"] {
            let path = site.path().join("logs").join(log);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() > LONGEST) {
                let _ = shorten(&path);
            }
        }
    }
}

fn shorten(path: &Path) -> io::Result<()> {
    let end = end_of(path, 1 << 20)?;
    files::replace(&path.with_extension("log.1"), &end, 0o640)?;
    File::options().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(dir: &Path) -> SitePaths {
        fs::create_dir_all(dir.join("logs")).unwrap();
        SitePaths {
            home: dir.to_owned(),
        }
    }

    #[test]
    fn the_last_lines_come_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = site(dir.path());
        fs::write(at.at("logs/access.log"), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&at, LogKind::Access, 2).unwrap(), ["two", "three"]);
        assert!(tail(&at, LogKind::Error, 2).unwrap().is_empty());
    }

    #[test]
    fn a_log_that_is_too_long_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = site(&dir.path().join("20001"));
        let line = "x".repeat(1023) + "\n";
        fs::write(at.at("logs/error.log"), line.repeat(9 << 10)).unwrap();
        bound(dir.path());
        assert_eq!(fs::metadata(at.at("logs/error.log")).unwrap().len(), 0);
        assert_eq!(
            fs::metadata(at.at("logs/error.log.1")).unwrap().len(),
            1 << 20
        );
    }
}
