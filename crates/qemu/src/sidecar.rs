//! The small file beside a replica that says which epoch it belongs to, and refuses to go back.
//!
//! The file is replaced whole and flushed with its folder before anyone is told, so that after any
//! crash it holds the old or the new record. A lower epoch is refused for ever, also by a process
//! that read the file before a newer one wrote it: changes hold a lock on `<path>.lock`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::write_atomically;

/// The layout of the file; a higher number was written by a newer program.
const FORMAT: u32 = 1;

/// What a replica is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Receives and flushes every acknowledged write.
    InSync,
    /// Is being copied to; must never be opened by a server.
    Syncing,
    /// Missed writes, or may have; needs a resync first.
    Stale,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    format: u32,
    /// Which replica this is.
    pub replica: Uuid,
    /// The highest epoch that it was ever opened under.
    pub epoch: u64,
    /// What it is worth.
    pub state: ReplicaState,
    /// The newest of control's words about the server's copies. Not there in a record of a program
    /// that kept none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Committed>,
}

/// What control had committed about a server's copies when it said so: should its store forget
/// that, this tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The owner's epoch.
    pub epoch: u64,
    /// The version of the server's record.
    pub version: u64,
    /// The replicas that received every acknowledged write.
    pub in_sync: Vec<Uuid>,
}

impl Committed {
    const fn order(&self) -> (u64, u64) {
        (self.epoch, self.version)
    }
}

/// Why a sidecar could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The owner of that epoch has been replaced.
    #[error("epoch {asked} is over: the replica has seen epoch {seen}")]
    LowerEpoch {
        /// The epoch that was asked for.
        asked: u64,
        /// The highest that the replica has seen.
        seen: u64,
    },
    /// There is no record.
    #[error("the replica has no record at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The record belongs to another replica.
    #[error("the record at {} is of replica {found}", path.display())]
    OtherReplica {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        found: Uuid,
    },
    /// The record cannot be understood; an operator must look.
    #[error("the record at {} cannot be understood", path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error("the record at {} has format {format}, newer than this program", path.display())]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The disk failed.
    #[error("cannot use the record at {}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One replica's sidecar on disk.
#[derive(Clone, Debug)]
pub struct SidecarFile {
    path: PathBuf,
}

impl SidecarFile {
    /// Names the file; touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the record; a missing one is an error, never a fresh start.
    pub async fn read(&self) -> Result<Sidecar, SidecarError> {
        self.blocking(|file| {
            file.read_now()?
                .ok_or(SidecarError::Missing { path: file.path })
        })
        .await
    }

    /// Writes the first record of a replica. Repeated with the same replica it changes nothing but
    /// what [`advance`](Self::advance) would; dying inside leaves no record or the whole one.
    pub async fn create(
        &self,
        replica: Uuid,
        epoch: u64,
        state: ReplicaState,
    ) -> Result<Sidecar, SidecarError> {
        self.blocking(move |file| {
            let _lock = file.lock()?;
            if let Some(found) = file.read_now()? {
                if found.replica != replica {
                    let found = found.replica;
                    return Err(SidecarError::OtherReplica {
                        path: file.path,
                        found,
                    });
                }
                return file.move_on(&found, epoch, state);
            }
            file.write(Sidecar {
                format: FORMAT,
                replica,
                epoch,
                state,
                committed: None,
            })
        })
        .await
    }

    /// Records an epoch and a state; on return both are on disk. A lower epoch is refused, the
    /// same one may change its state. Dying inside leaves the old record or the new one.
    pub async fn advance(&self, epoch: u64, state: ReplicaState) -> Result<Sidecar, SidecarError> {
        self.blocking(move |file| {
            let _lock = file.lock()?;
            let found = file.read_now()?;
            let found = found.ok_or(SidecarError::Missing {
                path: file.path.clone(),
            })?;
            file.move_on(&found, epoch, state)
        })
        .await
    }

    /// Notes a word of control about the server's copies; on return it is on disk, or a newer one
    /// was. Of an epoch that is over it is refused. Dying inside leaves the old record or the new.
    pub async fn note(&self, committed: Committed) -> Result<(), SidecarError> {
        self.blocking(move |file| {
            let _lock = file.lock()?;
            let found = file.read_now()?;
            let mut found = found.ok_or(SidecarError::Missing {
                path: file.path.clone(),
            })?;
            if committed.epoch < found.epoch {
                let (asked, seen) = (committed.epoch, found.epoch);
                return Err(SidecarError::LowerEpoch { asked, seen });
            }
            if found
                .committed
                .as_ref()
                .is_some_and(|known| known.order() > committed.order())
            {
                return Ok(());
            }
            // Written again even when equal: whoever wrote it may have died before its flush.
            found.committed = Some(committed);
            file.write(found).map(drop)
        })
        .await
    }

    /// Disk work off the async threads. It runs to its end even when our caller gives up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, SidecarError> + Send + 'static,
    ) -> Result<T, SidecarError> {
        let file = self.clone();
        let done = tokio::task::spawn_blocking(move || work(file)).await;
        done.unwrap_or_else(|error| Err(self.io(io::Error::other(error))))
    }

    fn io(&self, source: io::Error) -> SidecarError {
        SidecarError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn lock(&self) -> Result<File, SidecarError> {
        let file = File::create(crate::files::beside(&self.path, "lock"));
        let file = file.map_err(|error| self.io(error))?;
        file.lock().map_err(|error| self.io(error))?;
        Ok(file)
    }

    fn read_now(&self) -> Result<Option<Sidecar>, SidecarError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let path = self.path.clone();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SidecarError::Io { path, source }),
        };
        match serde_json::from_slice::<Format>(&bytes) {
            Ok(Format { format }) if format > FORMAT => Err(SidecarError::Newer { path, format }),
            Ok(_) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| SidecarError::Unreadable { path, source }),
            Err(source) => Err(SidecarError::Unreadable { path, source }),
        }
    }

    fn move_on(
        &self,
        found: &Sidecar,
        epoch: u64,
        state: ReplicaState,
    ) -> Result<Sidecar, SidecarError> {
        if epoch < found.epoch {
            return Err(SidecarError::LowerEpoch {
                asked: epoch,
                seen: found.epoch,
            });
        }
        let wanted = Sidecar {
            epoch,
            state,
            ..found.clone()
        };
        // Written again even when equal: the one who wrote it may have died before its flush.
        self.write(wanted)
    }

    fn write(&self, record: Sidecar) -> Result<Sidecar, SidecarError> {
        let mut bytes = serde_json::to_vec(&record).map_err(|source| SidecarError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        bytes.push(b'\n');
        write_atomically(&self.path, &bytes, 0o600).map_err(|error| self.io(error))?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: Uuid = Uuid::from_u128(1);

    fn file() -> (SidecarFile, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (SidecarFile::new(dir.path().join("replica.json")), dir)
    }

    #[tokio::test]
    async fn a_lower_epoch_is_refused_for_ever() {
        let (file, _dir) = file();
        file.create(REPLICA, 3, ReplicaState::InSync).await.unwrap();
        file.advance(7, ReplicaState::InSync).await.unwrap();
        for asked in [6, 3, 0] {
            match file.advance(asked, ReplicaState::InSync).await {
                Err(SidecarError::LowerEpoch { asked: a, seen: 7 }) => assert_eq!(a, asked),
                other => panic!("{other:?}"),
            }
        }
        let again = SidecarFile::new(file.path()).read().await.unwrap();
        assert_eq!((again.epoch, again.state), (7, ReplicaState::InSync));
    }

    #[tokio::test]
    async fn the_same_epoch_may_change_its_state() {
        let (file, _dir) = file();
        file.create(REPLICA, 1, ReplicaState::Syncing)
            .await
            .unwrap();
        file.advance(1, ReplicaState::InSync).await.unwrap();
        assert_eq!(file.read().await.unwrap().state, ReplicaState::InSync);
    }

    #[tokio::test]
    async fn the_newest_word_of_control_is_kept_through_everything_else() {
        let (file, _dir) = file();
        let word = |epoch, version| Committed {
            epoch,
            version,
            in_sync: vec![REPLICA],
        };
        assert!(matches!(
            file.note(word(3, 7)).await,
            Err(SidecarError::Missing { .. })
        ));
        file.create(REPLICA, 3, ReplicaState::InSync).await.unwrap();
        file.note(word(3, 7)).await.unwrap();
        file.note(word(3, 6)).await.unwrap();
        file.advance(3, ReplicaState::Stale).await.unwrap();
        assert_eq!(file.read().await.unwrap().committed, Some(word(3, 7)));
        file.note(word(5, 2)).await.unwrap();
        file.advance(5, ReplicaState::InSync).await.unwrap();
        assert!(matches!(
            file.note(word(4, 90)).await,
            Err(SidecarError::LowerEpoch { asked: 4, seen: 5 })
        ));
        assert_eq!(file.read().await.unwrap().committed, Some(word(5, 2)));
    }

    #[tokio::test]
    async fn a_record_of_a_program_that_kept_no_words_is_read() {
        let (file, _dir) = file();
        let old = format!(r#"{{"format":1,"replica":"{REPLICA}","epoch":4,"state":"in_sync"}}"#);
        fs::write(file.path(), old).unwrap();
        let read = file.read().await.unwrap();
        assert_eq!((read.epoch, read.committed), (4, None));
    }

    #[tokio::test]
    async fn creation_may_be_repeated_but_never_goes_back_nor_takes_over() {
        let (file, _dir) = file();
        file.create(REPLICA, 2, ReplicaState::InSync).await.unwrap();
        file.create(REPLICA, 2, ReplicaState::InSync).await.unwrap();
        let lower = file.create(REPLICA, 1, ReplicaState::InSync).await;
        assert!(matches!(
            lower,
            Err(SidecarError::LowerEpoch { asked: 1, seen: 2 })
        ));
        let other = file
            .create(Uuid::from_u128(2), 9, ReplicaState::InSync)
            .await;
        assert!(matches!(
            other,
            Err(SidecarError::OtherReplica { found: REPLICA, .. })
        ));
    }

    #[tokio::test]
    async fn a_missing_record_is_never_made_up() {
        let (file, _dir) = file();
        assert!(matches!(
            file.read().await,
            Err(SidecarError::Missing { .. })
        ));
        let advanced = file.advance(9, ReplicaState::InSync).await;
        assert!(matches!(advanced, Err(SidecarError::Missing { .. })));
        assert!(!file.path().exists());
    }

    #[tokio::test]
    async fn a_crash_before_the_rename_leaves_the_old_record_in_force() {
        let (file, dir) = file();
        file.create(REPLICA, 4, ReplicaState::InSync).await.unwrap();
        let left_over = dir.path().join("replica.json.new");
        fs::write(&left_over, r#"{"format":1,"replica":"#).unwrap();
        assert_eq!(file.read().await.unwrap().epoch, 4);
        file.advance(5, ReplicaState::Stale).await.unwrap();
        assert_eq!(file.read().await.unwrap().epoch, 5);
        assert!(!left_over.exists());
    }

    #[tokio::test]
    async fn a_damaged_or_newer_record_stops_everything() {
        let (file, _dir) = file();
        fs::write(file.path(), "not json").unwrap();
        let advanced = file.advance(9, ReplicaState::InSync).await;
        assert!(matches!(advanced, Err(SidecarError::Unreadable { .. })));
        fs::write(file.path(), r#"{"format": 2, "shape": "unknown"}"#).unwrap();
        let created = file.create(REPLICA, 9, ReplicaState::InSync).await;
        assert!(matches!(
            created,
            Err(SidecarError::Newer { format: 2, .. })
        ));
    }

    #[tokio::test]
    async fn of_many_writers_at_once_the_highest_epoch_stays() {
        let (file, _dir) = file();
        file.create(REPLICA, 0, ReplicaState::InSync).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for epoch in (0..40).rev() {
            let file = file.clone();
            tasks.spawn(async move { file.advance(epoch, ReplicaState::InSync).await });
        }
        tasks.join_all().await;
        assert_eq!(file.read().await.unwrap().epoch, 39);
    }
}
