//! The brain behind a lock, and the files by which a guard that is started again goes on where the
//! one before it ended: its lease, its peers, what it has paused.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use undine_api::guard::Peer;

use crate::brain::Brain;
use crate::lease::Lease;
use crate::ledger::Ledger;
use crate::status::{STATUS_FILE, Status};

/// What is paused, in the guard's folder.
pub const LEDGER_FILE: &str = "paused.json";
/// The peers, in the guard's folder.
pub const PEERS_FILE: &str = "peers.json";

/// What is paused, and in which life of the machine: after a reboot nothing of it stands.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    boot: String,
    ledger: Ledger,
}

/// The brain and its files.
#[derive(Debug)]
pub struct Shared {
    brain: Mutex<Brain>,
    folder: PathBuf,
    boot: String,
}

/// Milliseconds of the boot-time clock.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1000 + part(now.tv_nsec) / 1_000_000
}

/// This life of the machine.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

impl Shared {
    /// Takes up what lies in the guard's folder. What cannot be read is left out: a guard that
    /// renews without a past is worth more than one that does not run.
    pub fn open(folder: &Path, boot: &str, now_ms: u64) -> Self {
        let kept: Kept = read(folder, LEDGER_FILE);
        let peers: Vec<Peer> = read(folder, PEERS_FILE);
        let status: Option<Status> = read(folder, STATUS_FILE);
        let (ledger, lease) = if kept.boot == boot {
            let until = status.and_then(|it| it.held_until_boottime_ms);
            let lease = until.map_or_else(Lease::default, Lease::remembered);
            (kept.ledger, lease)
        } else {
            (Ledger::default(), Lease::default())
        };
        let shared = Self {
            brain: Mutex::new(Brain::new(now_ms, lease, peers, ledger)),
            folder: folder.to_owned(),
            boot: boot.to_owned(),
        };
        // From now on the file says of which life of the machine the rest is.
        shared.keep_ledger();
        shared
    }

    /// The brain. Never held over a wait.
    pub fn brain(&self) -> MutexGuard<'_, Brain> {
        // Each of its changes is whole before it could panic.
        self.brain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes down what is paused.
    pub fn keep_ledger(&self) {
        let kept = Kept {
            boot: self.boot.clone(),
            ledger: self.brain().ledger().clone(),
        };
        self.keep(LEDGER_FILE, &kept);
    }

    /// Writes down the peers.
    pub fn keep_peers(&self) {
        let peers = self.brain().peers();
        self.keep(PEERS_FILE, &peers);
    }

    /// Writes down how the lease stands.
    pub fn keep_status(&self, status: &Status) {
        self.keep(STATUS_FILE, status);
    }

    /// A full disk keeps nobody from pausing; a guard that is started again would then leave to
    /// the agent what it does not know of.
    fn keep(&self, name: &str, value: &impl Serialize) {
        if let Err(error) = write(&self.folder, name, value) {
            tracing::warn!(file = name, %error, "could not be written");
        }
    }
}

/// Readers see the old content or the new one, whole. Not flushed: after a crash of the machine it
/// means nothing.
fn write(folder: &Path, name: &str, value: &impl Serialize) -> std::io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    std::fs::write(&beside, serde_json::to_vec(value)?)?;
    std::fs::rename(beside, folder.join(name))
}

fn read<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> T {
    let Ok(text) = std::fs::read(folder.join(name)) else {
        return T::default();
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(file = name, %error, "is damaged and left out");
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status;
    use undine_api::internal::LeaseAnswer;
    use undine_model::{NodeId, ServerId};

    fn peer() -> Peer {
        Peer {
            node: NodeId::from_parts(2, [0; 10]),
            address: ([10, 0, 0, 2], 7300).into(),
            storage: None,
        }
    }

    #[test]
    fn a_guard_started_again_knows_its_lease_its_peers_and_what_it_paused() {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerId::from_parts(9, [0; 10]);
        let shared = Shared::open(dir.path(), "this-boot", 1_000);
        shared.brain().tick(1_000);
        let answer = LeaseAnswer {
            number: 1_000,
            lease_ms: 2_000,
            owns: None,
            peers: vec![peer()],
        };
        assert!(shared.brain().answered(answer).peers);
        shared.keep_peers();
        shared.keep_status(&status::of(&shared.brain(), 1_500));
        let mut brain = shared.brain().clone();
        // As if cut off: only then is anything paused.
        brain.tick(3_000);
        brain.probed(&peer(), 3_000, false);
        let served = crate::served::Served {
            server,
            epoch: 4,
            guard_socket: "/x".into(),
            local_only: false,
        };
        assert!(brain.pausing(&served, 77, 3_100));
        *shared.brain() = brain;
        shared.keep_ledger();
        let next = Shared::open(dir.path(), "this-boot", 3_200);
        assert_eq!(next.brain().peers(), [peer()]);
        assert_eq!(next.brain().ledger().servers(), [server]);
        assert_eq!(next.brain().lease().until_ms(), Some(3_000));
        // After a reboot only the peers are still true.
        let next = Shared::open(dir.path(), "another-boot", 50);
        assert_eq!(next.brain().peers(), [peer()]);
        assert!(next.brain().ledger().servers().is_empty());
        assert_eq!(next.brain().lease().until_ms(), None);
    }

    #[test]
    fn damaged_files_keep_no_guard_from_running() {
        let dir = tempfile::tempdir().unwrap();
        for name in [LEDGER_FILE, PEERS_FILE, STATUS_FILE] {
            std::fs::write(dir.path().join(name), "{[").unwrap();
        }
        let shared = Shared::open(dir.path(), "boot", 1);
        assert!(shared.brain().ledger().servers().is_empty());
    }

    #[test]
    fn the_boot_time_clock_goes_forward() {
        let before = boottime_ms();
        assert!(before > 0 && boottime_ms() >= before);
        assert!(!boot_id().is_empty());
    }
}
