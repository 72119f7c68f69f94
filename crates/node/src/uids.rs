//! Unix users of VMs and storage daemons: one each, from a range of the node's own.
//!
//! An id is handed out once and not again until the whole range has been used: a file or process
//! that was left behind never belongs to the next tenant. An id under which something runs that
//! is not ours (another node's agent on the same machine) is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The ids of a node.
#[derive(Debug)]
pub struct Uids {
    path: PathBuf,
    first: u32,
    count: u32,
    book: Mutex<Book>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Book {
    next: u32,
    held: BTreeMap<String, u32>,
}

/// No id could be given.
#[derive(Debug, thiserror::Error)]
pub enum UidError {
    /// All of them are taken.
    #[error("all {0} user ids of this node are in use; give it more with --uid-count")]
    Exhausted(u32),
    /// The book could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Book {
    /// The id of a holder, or the next free one of the range.
    fn take(&mut self, holder: &str, first: u32, count: u32, busy: &BTreeSet<u32>) -> Option<u32> {
        if let Some(uid) = self.held.get(holder) {
            return Some(*uid);
        }
        let next = self.next.saturating_sub(first);
        let uid = (0..count)
            .map(|step| first + (next + step) % count)
            .find(|uid| !busy.contains(uid) && !self.held.values().any(|held| held == uid))?;
        self.next = uid + 1;
        self.held.insert(holder.to_owned(), uid);
        Some(uid)
    }
}

/// The users of all running processes.
fn busy() -> BTreeSet<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
        .filter_map(|entry| entry.metadata().ok().map(|meta| meta.uid()))
        .collect()
}

impl Uids {
    /// Opens the book in the state folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(state_dir: &Path, first: u32, count: u32) -> Result<Self, FileError> {
        let path = state_dir.join("uids.json");
        let book = files::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            first,
            count,
            book: Mutex::new(book),
        })
    }

    /// The first id.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The id of this holder; the same every time until it is given back.
    ///
    /// # Errors
    /// None is free, or the book could not be kept.
    pub fn take(&self, holder: &str) -> Result<u32, UidError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(uid) = book.held.get(holder) {
            return Ok(*uid);
        }
        let mut next = book.clone();
        let uid = next
            .take(holder, self.first, self.count, &busy())
            .ok_or(UidError::Exhausted(self.count))?;
        files::write_json(&self.path, &next)?;
        *book = next;
        Ok(uid)
    }

    /// Makes the id of one holder that of another, whose own is given back.
    ///
    /// # Errors
    /// The book could not be kept.
    pub fn hand_over(&self, from: &str, to: &str) -> Result<(), UidError> {
        self.change(|held| {
            if let Some(uid) = held.remove(from) {
                held.insert(to.to_owned(), uid);
            }
        })
    }

    /// Gives the ids of all holders back whose names begin so.
    ///
    /// # Errors
    /// The book could not be kept.
    pub fn give_back_all(&self, prefix: &str) -> Result<(), UidError> {
        self.change(|held| held.retain(|holder, _| !holder.starts_with(prefix)))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, u32>)) -> Result<(), UidError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = book.clone();
        change(&mut next.held);
        if next.held != book.held {
            files::write_json(&self.path, &next)?;
            *book = next;
        }
        Ok(())
    }

    /// Gives an id back.
    ///
    /// # Errors
    /// The book could not be kept.
    pub fn give_back(&self, holder: &str) -> Result<(), UidError> {
        self.change(|held| {
            held.remove(holder);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_under_which_something_else_runs_is_passed_over() {
        let mut book = Book::default();
        let busy = BTreeSet::from([70_000, 70_001]);
        assert_eq!(book.take("a", 70_000, 4, &busy), Some(70_002));
        assert_eq!(book.take("b", 70_000, 4, &busy), Some(70_003));
        assert_eq!(book.take("c", 70_000, 4, &busy), None);
        assert_eq!(book.take("a", 70_000, 4, &busy), Some(70_002));
    }

    #[test]
    fn an_id_is_kept_over_a_restart_and_not_handed_on_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let uids = Uids::open(dir.path(), 70_000, 3).unwrap();
        assert_eq!(uids.take("a").unwrap(), 70_000);
        assert_eq!(uids.take("b").unwrap(), 70_001);
        uids.give_back("a").unwrap();
        let uids = Uids::open(dir.path(), 70_000, 3).unwrap();
        assert_eq!(uids.take("b").unwrap(), 70_001);
        assert_eq!(uids.take("c").unwrap(), 70_002);
        assert_eq!(uids.take("d").unwrap(), 70_000);
        let full = uids.take("e").unwrap_err();
        assert!(full.to_string().contains("--uid-count"));
    }

    #[test]
    fn an_id_is_handed_over_and_left_overs_are_freed() {
        let dir = tempfile::tempdir().unwrap();
        let uids = Uids::open(dir.path(), 70_000, 9).unwrap();
        let own = uids.take("vm").unwrap();
        let spare = uids.take("spare-1").unwrap();
        uids.hand_over("spare-1", "vm").unwrap();
        assert_eq!(uids.take("vm").unwrap(), spare);
        uids.hand_over("nobody", "vm").unwrap();
        let left = uids.take("spare-2").unwrap();
        uids.give_back_all("spare-").unwrap();
        let uids = Uids::open(dir.path(), 70_000, 9).unwrap();
        assert_eq!(uids.take("vm").unwrap(), spare);
        assert!(![own, spare, left].contains(&uids.take("other").unwrap()));
    }
}
