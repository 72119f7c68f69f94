//! Bringing a replica up to date from the server's own one, while the server writes.
//!
//! ```text
//! begin:  every write is recorded from now on; what is to be copied first is known
//! pass:   freeze what was recorded, copy it while newer writes are recorded; again until little is left
//! last:   with the server held still: the last freeze, the last copy, a flush of the target
//! ```
//!
//! What is read while the server writes may be old or new; whatever was written since the freeze
//! comes again in the next pass. The server's own writes never wait for the target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::nbd::{Client, Extent, PIECE_BYTES};
use crate::relay::{self, Relay};
use crate::storage::{Base, SourceName, StorageDaemon, StorageError};

/// How long the target may take for one request.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to flush all that a pass wrote.
const FLUSH_DEADLINE: Duration = Duration::from_secs(300);
/// Reads as zeros.
pub(crate) const ZERO: u32 = 2;
/// Written.
pub(crate) const DIRTY: u32 = 1;

/// How far a copy is; read by whoever wants to know.
#[derive(Debug, Default)]
pub struct Progress {
    copied: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes copied so far.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Bytes to copy in all, as far as is known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, bytes: u64) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// At most so many bytes a second, over the time of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    limit: u64,
    begin: Instant,
    done: u64,
}

impl Pace {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            begin: Instant::now(),
            done: 0,
        }
    }

    /// Waits until these bytes were due.
    pub(crate) async fn keep(&mut self, bytes: u64) {
        self.done += bytes;
        let ahead = due(self.done, self.limit).saturating_sub(self.begin.elapsed());
        if !ahead.is_zero() {
            sleep(ahead).await;
        }
    }
}

/// After which time so many bytes are due; without a limit at once.
fn due(bytes: u64, limit_bytes_s: u64) -> Duration {
    if limit_bytes_s == 0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(bytes as f64 / limit_bytes_s as f64)
}

/// A copy under way.
#[derive(Debug)]
pub struct Copy {
    daemon: StorageDaemon,
    target: Client,
    progress: Arc<Progress>,
    /// The next pass.
    pass: u32,
    base: Base,
    begun: bool,
    limit: u64,
    buffers: [Vec<u8>; 2],
}

impl Copy {
    /// Begins: from now on every write is recorded for it. `limit_bytes_s` is 0 for no limit.
    ///
    /// Dying anywhere leaves bitmaps and exports in the daemon that [`StorageDaemon::end_passes`],
    /// or the next copy, clears away.
    pub async fn begin(
        daemon: &StorageDaemon,
        relay: &Relay,
        base: Base,
        limit_bytes_s: u64,
        progress: Arc<Progress>,
    ) -> Result<Self, StorageError> {
        let target = Client::connect(&relay.socket(), relay::EXPORT, None, DEADLINE).await?;
        let own = daemon.size_bytes().await?;
        if target.size() != own {
            return Err(StorageError::TargetSize {
                have: target.size(),
                want: own,
            });
        }
        daemon.begin_passes(base).await?;
        Ok(Self {
            daemon: daemon.clone(),
            target,
            progress,
            pass: 1,
            base,
            begun: false,
            limit: limit_bytes_s,
            buffers: [(); 2].map(|()| vec![0; PIECE_BYTES as usize]),
        })
    }

    /// Copies what there is to copy now, and has it flushed, so that the last flush has little to
    /// do; tells how many bytes that were.
    pub async fn pass(&mut self) -> Result<u64, StorageError> {
        let copied = self.copy_now().await?;
        self.target.flush_within(FLUSH_DEADLINE).await?;
        Ok(copied)
    }

    async fn copy_now(&mut self) -> Result<u64, StorageError> {
        let limit = self.limit;
        if self.begun {
            return self.next(limit).await;
        }
        self.begun = true;
        let first = match self.base {
            Base::Everything => None,
            Base::Always => Some(0),
        };
        let source = self.daemon.open_source(first).await?;
        let copied = self.run(&source, limit).await;
        self.daemon.close_source(&source).await?;
        copied
    }

    /// How many bytes a further pass would copy.
    pub async fn left(&self) -> Result<u64, StorageError> {
        self.daemon.pass_bytes(self.pass).await
    }

    /// The last pass, as fast as it goes, and a flush of the target. Nobody may write to the
    /// server's own replica from before this call until the target is in its slot.
    pub async fn last(&mut self) -> Result<u64, StorageError> {
        let copied = self.next(0).await?;
        self.target.flush().await?;
        Ok(copied)
    }

    async fn next(&mut self, limit: u64) -> Result<u64, StorageError> {
        let number = self.pass;
        self.daemon.freeze_pass(number).await?;
        self.pass += 1;
        let source = self.daemon.open_source(Some(number)).await?;
        let copied = self.run(&source, limit).await;
        self.daemon.close_source(&source).await?;
        copied
    }

    async fn run(&mut self, name: &SourceName, limit: u64) -> Result<u64, StorageError> {
        // The server's own replica is always served on a local socket.
        let socket = self.daemon.run_dir().nbd();
        let context = name.context();
        let mut source =
            Client::connect(&socket, &name.to_string(), Some(&context), DEADLINE).await?;
        let mut extents = source.extents().await?;
        if name.is_bitmap() {
            extents.retain(|extent| extent.flags & DIRTY != 0);
        }
        let bytes: u64 = extents.iter().map(|extent| extent.length).sum();
        self.progress.expect(bytes);
        let mut pace = Pace::new(limit);
        for extent in extents {
            if !name.is_bitmap() && extent.flags & ZERO != 0 {
                self.zeros(extent).await?;
            } else {
                self.data(&mut source, extent, &mut pace).await?;
            }
        }
        Ok(bytes)
    }

    async fn zeros(&mut self, extent: Extent) -> Result<(), StorageError> {
        for (offset, length) in pieces(extent, PIECE_BYTES << 6) {
            self.target.zero(offset, length).await?;
            self.copied(length);
        }
        Ok(())
    }

    /// Reads one piece while the one before is written.
    async fn data(
        &mut self,
        source: &mut Client,
        extent: Extent,
        pace: &mut Pace,
    ) -> Result<(), StorageError> {
        // Not given back after an error: then the copy is over.
        let [mut ahead, mut behind] = std::mem::take(&mut self.buffers);
        let mut waiting: Option<(u64, u32)> = None;
        for (offset, length) in pieces(extent, PIECE_BYTES) {
            let read = source.read(offset, &mut ahead[..length as usize]);
            match waiting {
                Some((at, bytes)) => {
                    let write = self.target.write(at, &behind[..bytes as usize]);
                    let (read, written) = tokio::join!(read, write);
                    read?;
                    written?;
                    self.copied(bytes);
                }
                None => read.await?,
            }
            std::mem::swap(&mut ahead, &mut behind);
            waiting = Some((offset, length));
            pace.keep(length.into()).await;
        }
        if let Some((at, bytes)) = waiting {
            self.target.write(at, &behind[..bytes as usize]).await?;
            self.copied(bytes);
        }
        self.buffers = [ahead, behind];
        Ok(())
    }

    fn copied(&self, bytes: u32) {
        self.progress.done(bytes.into());
    }
}

/// A stretch in pieces of at most so many bytes.
pub(crate) fn pieces(extent: Extent, largest: u32) -> impl Iterator<Item = (u64, u32)> {
    let end = extent.offset + extent.length;
    let mut at = extent.offset;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let length = u32::try_from(left).map_or(largest, |left| left.min(largest));
        let piece = (at, length);
        at += u64::from(length);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_falls_into_pieces_without_gap_or_overlap() {
        let extent = Extent {
            offset: 7,
            length: 25,
            flags: 0,
        };
        let found: Vec<_> = pieces(extent, 10).collect();
        assert_eq!(found, [(7, 10), (17, 10), (27, 5)]);
        let none = Extent {
            length: 0,
            ..extent
        };
        assert_eq!(pieces(none, 10).count(), 0);
    }

    #[test]
    fn a_limit_is_kept_over_the_whole_pass() {
        assert_eq!(due(5_000, 1_000), Duration::from_secs(5));
        assert_eq!(due(u64::MAX, 0), Duration::ZERO);
    }
}
