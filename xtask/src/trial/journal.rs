//! All that visitors asked and were answered, with the times; what a judge decides from.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What kind of thing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A value in a PHP session.
    Session,
    /// A file that a PHP program wrote.
    File,
    /// A line appended to a log and flushed by `fsync`.
    Line,
    /// A row in MariaDB: an article in WordPress.
    Row,
}

/// One thing that a visitor wanted written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The site.
    pub site: String,
    /// What kind of thing.
    pub kind: Kind,
    /// Rises with every write of this kind at this site.
    pub number: u64,
    /// When it was asked for, milliseconds since 1970.
    pub asked_ms: u64,
    /// When the answer was there.
    pub ended_ms: u64,
    /// The visitor was told that it is written.
    pub is_acked: bool,
    /// The epoch of the server that said so.
    pub epoch: Option<u64>,
    /// What came instead.
    pub trouble: Option<String>,
}

/// One page that a visitor wanted to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The site.
    pub site: String,
    /// When it was asked for, milliseconds since 1970.
    pub asked_ms: u64,
    /// When the answer was there.
    pub ended_ms: u64,
    /// It was the right page.
    pub is_right: bool,
    /// The number of the newest file that the page knew of.
    pub seen: Option<u64>,
    /// The epoch of the server that made it.
    pub epoch: Option<u64>,
    /// What came instead.
    pub trouble: Option<String>,
}

/// What a server was found to hold in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The site.
    pub site: String,
    /// What kind of thing.
    pub kind: Kind,
    /// The numbers that are there; for sessions the last one alone.
    pub numbers: Vec<u64>,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Writes.
    pub writes: Vec<Write>,
    /// Reads.
    pub reads: Vec<Read>,
}

/// Takes entries from many threads.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Log>);

impl Journal {
    /// Keeps a write.
    pub fn write(&self, write: Write) {
        self.log(|log| log.writes.push(write));
    }

    /// Keeps a read.
    pub fn read(&self, read: Read) {
        self.log(|log| log.reads.push(read));
    }

    /// Looks at what is there.
    pub fn log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Milliseconds since 1970; control's times are on the same clock, for it is the same machine.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}
