//! Comparing another replica of a disk with the server's own one, while the server writes.
//!
//! ```text
//! read:   both sides, piece by piece; blocks that differ are read again, and then suspected
//! look:   record writes · settle · read the suspects again · settle · what was recorded?
//! ```
//!
//! What is read while the server writes may differ for a moment: a write reaches one side before
//! the other. A *look* tells that from a real difference. The first settling has every write from
//! before end on both sides; so whatever reaches one side later reaches the server's own replica as
//! well, at the latest by the second settling, and is recorded there. A block that differs and was
//! not recorded differs for good. One that is written again at every look is not decided: each
//! write makes it anew on both sides.
//!
//! Nothing is paused, and nothing is written to either side.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::copy::{DEADLINE, Pace, Progress, pieces};
use crate::nbd::{Client, PIECE_BYTES};
use crate::relay::{self, Relay};
use crate::storage::{LOOK_BYTES, StorageDaemon, StorageError};
use crate::vm::{Vm, VmError};

mod judge;

/// Most differences of the moment are gone after one of these.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
];
/// So many looks at blocks that are written all the time.
const LOOKS: u32 = 8;
/// So many suspects are enough for a look.
const SUSPECTS: usize = 256;

/// Why a comparison could not be made. It says nothing about the replicas.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// A side could not be read.
    #[error("{side} could not be read at {offset}")]
    Unreadable {
        /// Which one.
        side: &'static str,
        /// Where.
        offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The disk does not settle: one of its replicas has failed.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The daemon of the server's own replica.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A connection.
    #[error("a connection to a replica failed")]
    Io(#[from] std::io::Error),
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where blocks differ for good. The comparison ends at the first look that finds any.
    pub differ: Vec<u64>,
    /// Bytes in blocks that were written at every look.
    pub undecided: u64,
}

/// A comparison under way.
struct Scrub<'a> {
    daemon: &'a StorageDaemon,
    vm: &'a Vm,
    own: Client,
    other: Client,
    progress: Arc<Progress>,
    buffers: [Vec<u8>; 2],
    suspects: Vec<u64>,
    found: Found,
}

/// Compares the replica behind `relay` with the one of `daemon`, both in slots of `vm`.
/// `limit_bytes_s` is 0 for no limit. Whoever calls sees to it that the replica is in its slot
/// from before to after: else a difference says nothing.
///
/// Dying anywhere leaves an export and a bitmap in the daemon that
/// [`StorageDaemon::end_scrub`], or the next scrub, clears away.
///
/// # Errors
/// A side cannot be read, or the disk does not settle.
pub async fn compare(
    daemon: &StorageDaemon,
    vm: &Vm,
    relay: &Relay,
    limit_bytes_s: u64,
    progress: Arc<Progress>,
) -> Result<Found, ScrubError> {
    let compared = compared(daemon, vm, relay, limit_bytes_s, progress).await;
    daemon.end_scrub().await?;
    compared
}

async fn compared(
    daemon: &StorageDaemon,
    vm: &Vm,
    relay: &Relay,
    limit: u64,
    progress: Arc<Progress>,
) -> Result<Found, ScrubError> {
    let source = daemon.begin_scrub().await?;
    let context = source.context();
    // The server's own replica is always served on a local socket.
    let (socket, name) = (daemon.run_dir().nbd(), source.to_string());
    let mut own = Client::connect(&socket, &name, Some(&context), DEADLINE).await?;
    let (socket, name) = (relay.socket(), relay::EXPORT);
    let mut other = Client::connect(&socket, name, Some(&context), DEADLINE).await?;
    if own.size() != other.size() {
        let (have, want) = (other.size(), own.size());
        return Err(StorageError::TargetSize { have, want }.into());
    }
    let stretches = judge::worth_reading(&own.extents().await?, &other.extents().await?);
    progress.expect(stretches.iter().map(|it| it.length).sum());
    let mut scrub = Scrub {
        daemon,
        vm,
        own,
        other,
        progress,
        buffers: [(); 2].map(|()| vec![0; PIECE_BYTES as usize]),
        suspects: Vec::new(),
        found: Found::default(),
    };
    let mut pace = Pace::new(limit);
    for stretch in stretches {
        for (offset, length) in pieces(stretch, PIECE_BYTES) {
            scrub.piece(offset, length).await?;
            if !scrub.found.differ.is_empty() {
                return Ok(scrub.found);
            }
            pace.keep(length.into()).await;
        }
    }
    scrub.decide().await?;
    Ok(scrub.found)
}

impl Scrub<'_> {
    /// Reads a piece; what stays different is suspected.
    async fn piece(&mut self, offset: u64, length: u32) -> Result<(), ScrubError> {
        let mut differ = self.read(offset, length).await?;
        for pause in PAUSES {
            if differ.is_empty() {
                break;
            }
            sleep(pause).await;
            differ = self.still_differ(&differ).await?;
        }
        self.suspects.extend(differ);
        self.progress.done(length.into());
        if self.suspects.len() >= SUSPECTS {
            self.decide().await?;
        }
        Ok(())
    }

    /// Looks at the suspects until each is decided, or written all the time.
    async fn decide(&mut self) -> Result<(), ScrubError> {
        let mut suspects = std::mem::take(&mut self.suspects);
        for look in 0..LOOKS {
            if suspects.is_empty() || !self.found.differ.is_empty() {
                return Ok(());
            }
            if let Some(pause) = look.checked_sub(1).map(|it| PAUSES[it as usize % 3]) {
                sleep(pause).await;
            }
            let judged = self.look(&suspects).await?;
            self.found.differ.extend(judged.differ);
            suspects = judged.again;
        }
        self.found.undecided += suspects.len() as u64 * LOOK_BYTES;
        Ok(())
    }

    async fn look(&mut self, suspects: &[u64]) -> Result<judge::Look, ScrubError> {
        self.daemon.begin_look().await?;
        self.vm.settle().await?;
        let differ = self.still_differ(suspects).await?;
        if differ.is_empty() {
            self.daemon.drop_look().await?;
            return Ok(judge::Look::default());
        }
        self.vm.settle().await?;
        let written = self.daemon.end_look().await?;
        let (socket, name) = (self.daemon.run_dir().nbd(), written.to_string());
        let context = written.context();
        let mut client = Client::connect(&socket, &name, Some(&context), DEADLINE).await?;
        let extents = client.extents().await?;
        drop(client);
        self.daemon.close_source(&written).await?;
        Ok(judge::judge(&differ, &extents))
    }

    /// Those of these blocks that differ, read anew.
    async fn still_differ(&mut self, blocks: &[u64]) -> Result<Vec<u64>, ScrubError> {
        let mut differ = Vec::new();
        for offset in blocks {
            let left = self.own.size() - offset;
            let length = u32::try_from(left.min(LOOK_BYTES)).map_err(std::io::Error::other)?;
            differ.extend(self.read(*offset, length).await?);
        }
        Ok(differ)
    }

    async fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u64>, ScrubError> {
        let [mine, theirs] = &mut self.buffers;
        let (mine, theirs) = (&mut mine[..length as usize], &mut theirs[..length as usize]);
        let (own, other) =
            tokio::join!(self.own.read(offset, mine), self.other.read(offset, theirs));
        let unreadable = |side| {
            move |source| ScrubError::Unreadable {
                side,
                offset,
                source,
            }
        };
        own.map_err(unreadable("the server's own copy"))?;
        other.map_err(unreadable("the other copy"))?;
        Ok(judge::differing(offset, mine, theirs))
    }
}
