//! A site's logs: their last lines, and a bound on their size.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use undine_api::guest::{Follow, LogKind, LogPiece};

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

/// What a log has said since the mark, or its last lines; with a text to find, only lines that
/// have it. Only whole lines are told: the rest of one follows when it is written.
pub fn follow(at: &SitePaths, ask: &Follow) -> io::Result<LogPiece> {
    let mut file = match File::open(at.at("logs").join(name(ask.log))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(LogPiece {
                lines: Vec::new(),
                mark: String::new(),
                skipped: false,
            });
        }
        other => other?,
    };
    let meta = file.metadata()?;
    let (from, mut skipped) = beginning(ask, meta.ino(), meta.len());
    let bytes = read_from(&mut file, from)?;
    // A line that was begun before, or after a log that was shortened under us, is no line.
    let first = match from > 0 && !ends_a_line(&mut file, from)? {
        true => bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1),
        false => 0,
    };
    let end = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        // A single line without an end is told in parts rather than never.
        None if bytes.len() as u64 >= MOST_BYTES => bytes.len(),
        None => first,
    };
    let text = String::from_utf8_lossy(&bytes[first.min(end)..end]);
    let find = ask.find.to_lowercase();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| find.is_empty() || line.to_lowercase().contains(&find))
        .map(shortened)
        .collect();
    let most = (ask.lines as usize).clamp(1, MOST_LINES);
    if lines.len() > most {
        skipped |= ask.after.is_some();
        lines.drain(..lines.len() - most);
    }
    Ok(LogPiece {
        lines,
        mark: format!("{:x}:{:x}", meta.ino(), from + end as u64),
        skipped,
    })
}

/// Where to read from, and whether something was passed over.
fn beginning(ask: &Follow, inode: u64, length: u64) -> (u64, bool) {
    let marked = ask.after.as_deref().and_then(|mark| {
        let (file, place) = mark.split_once(':')?;
        let file = u64::from_str_radix(file, 16).ok()?;
        Some((file, u64::from_str_radix(place, 16).ok()?))
    });
    match marked {
        Some((file, place)) if file == inode && place <= length => {
            let earliest = length.saturating_sub(MOST_BYTES);
            (place.max(earliest), place < earliest)
        }
        // It was shortened or begun anew.
        Some(_) => (length.saturating_sub(MOST_BYTES), true),
        // Whoever looks for something may look further back.
        None if !ask.find.is_empty() => (length.saturating_sub(LONGEST), false),
        None => (length.saturating_sub(MOST_BYTES), false),
    }
}

fn read_from(file: &mut File, from: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ends_a_line(file: &mut File, place: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(place - 1))?;
    let mut byte = [0];
    Ok(file.read(&mut byte)? == 1 && byte[0] == b'\n')
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

    fn ask(after: Option<String>, find: &str, lines: u32) -> Follow {
        Follow {
            site: undine_model::SiteId::from_parts(1, [0; 10]),
            log: LogKind::Access,
            after,
            find: find.to_owned(),
            lines,
        }
    }

    fn say(at: &SitePaths, text: &str) {
        use std::io::Write as _;
        let path = at.at("logs/access.log");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_log_is_followed_from_where_it_was_left_in_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let at = site(dir.path());
        let nothing = follow(&at, &ask(None, "", 10)).unwrap();
        assert!(nothing.lines.is_empty());
        say(&at, "one\ntwo\nthr");
        let first = follow(&at, &ask(None, "", 10)).unwrap();
        assert_eq!(first.lines, ["one", "two"]);
        let none = follow(&at, &ask(Some(first.mark), "", 10)).unwrap();
        assert!(none.lines.is_empty() && !none.skipped);
        say(&at, "ee\nfour\n");
        let next = follow(&at, &ask(Some(none.mark.clone()), "", 10)).unwrap();
        assert_eq!(next.lines, ["three", "four"]);
        let found = follow(&at, &ask(Some(none.mark), "FOUR", 10)).unwrap();
        assert_eq!(
            (found.lines, found.mark),
            (vec!["four".to_owned()], next.mark)
        );
    }

    #[test]
    fn a_log_that_began_anew_says_that_lines_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let at = site(dir.path());
        say(&at, "one\ntwo\n");
        let first = follow(&at, &ask(None, "", 1)).unwrap();
        assert_eq!(
            (first.lines, first.skipped),
            (vec!["two".to_owned()], false)
        );
        fs::write(at.at("logs/access.log"), "new\n").unwrap();
        let next = follow(&at, &ask(Some(first.mark), "", 10)).unwrap();
        assert_eq!((next.lines, next.skipped), (vec!["new".to_owned()], true));
        for mark in [
            "",
            "x",
            "1:",
            ":",
            "ffffffffffffffffff:1",
            "0:ffffffffffffffff",
        ] {
            follow(&at, &ask(Some(mark.to_owned()), "", 10)).unwrap();
        }
    }

    #[test]
    fn a_flood_and_a_line_without_end_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let at = site(dir.path());
        say(&at, "begin\n");
        let first = follow(&at, &ask(None, "", 10)).unwrap();
        say(&at, &"x".repeat(3 << 20));
        let next = follow(&at, &ask(Some(first.mark), "", 10)).unwrap();
        assert!(
            next.skipped && next.lines.len() <= 1,
            "{}",
            next.lines.len()
        );
        assert!(next.lines.iter().all(|line| line.len() <= 900));
        say(&at, &format!("\n{}", "line\n".repeat(5_000)));
        let next = follow(&at, &ask(Some(next.mark), "", 9_999)).unwrap();
        assert_eq!(next.lines.len(), 1_000);
        assert!(next.skipped);
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
