//! A server's disk: the replicas that a node holds, and the slots that its owner writes to.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use undine_model::{Bytes, NodeId, OperationId, ReplicaId, ServerId};

/// A replica to hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaSpec {
    /// Its id.
    pub replica: ReplicaId,
    /// The owner's epoch; a lower one than was ever seen here is refused.
    pub epoch: u64,
    /// Size of the disk.
    pub size: Bytes,
    /// Make it when it is not there; otherwise a missing file is `lost`.
    pub create: bool,
    /// Open it although its daemon ended by itself and it may lack writes: only for the last copy
    /// there is. A rising epoch opens it as well: then control has decided.
    #[serde(default)]
    pub accept_stale: bool,
    /// Another node's server writes to it: its daemon listens on the node's address instead of a
    /// local socket.
    #[serde(default)]
    pub remote: bool,
    /// Make it the target of a resync: its daemon, if any, is ended first and what it holds counts
    /// for nothing until control says that it is in sync.
    #[serde(default)]
    pub resync: bool,
    /// Encrypt the connection of other nodes' servers to it.
    #[serde(default)]
    pub tls: bool,
    /// What control has committed about the server's copies: kept beside this one, so that a store
    /// that forgets it is found out. None in what an older control said.
    #[serde(default)]
    pub committed: Option<Committed>,
}

/// What control had committed about a server's copies when it said something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The owner's epoch.
    pub epoch: u64,
    /// The record's version.
    pub version: u64,
    /// The replicas in sync.
    pub in_sync: Vec<ReplicaId>,
}

/// How a replica stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Of this server.
    pub server: ServerId,
    /// Its id.
    pub replica: ReplicaId,
    /// The highest epoch seen.
    pub epoch: u64,
    /// How it stands.
    pub state: ReplicaState,
    /// The name that its daemon exports now; it changes with every start of the daemon.
    pub export: Option<String>,
    /// Where other nodes reach the export.
    pub address: Option<SocketAddr>,
    /// What opens the encrypted connection to it; new with every start of its daemon. Told in the
    /// answer to an opening alone, never in reports.
    #[serde(default)]
    pub key: Option<ReplicaKey>,
    /// Size of the disk.
    pub size: Bytes,
    /// Bytes that it takes up.
    pub used: Bytes,
    /// The newest of control's words about the server's copies that was heard here.
    #[serde(default)]
    pub committed: Option<Committed>,
}

/// How a replica stands on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Open: a daemon exports it.
    Open,
    /// Open as the target of a resync: a daemon exports it, and what it holds counts for nothing
    /// before control has committed that it is in sync.
    Syncing,
    /// Closed properly.
    Closed,
    /// Its daemon ended by itself: what it holds may lack writes.
    Stale,
    /// Its file is gone.
    Lost,
}

/// The secret that opens one replica's encrypted connection: hexadecimal digits. It is never
/// logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaKey(String);

impl ReplicaKey {
    /// A key of 64 hexadecimal digits; none of anything else.
    pub fn read(digits: &str) -> Option<Self> {
        let good = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Self(digits.to_owned()))
    }

    /// The digits, for the file that QEMU reads.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicaKey(..)")
    }
}

/// A replica that a server writes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaTarget {
    /// On this node.
    pub node: NodeId,
    /// Its id.
    pub replica: ReplicaId,
    /// The export's name, with epoch and incarnation.
    pub export: String,
    /// Where to reach it; none on the owner itself.
    pub address: Option<SocketAddr>,
    /// What opens the encrypted connection to it; none where that is switched off.
    #[serde(default)]
    pub key: Option<ReplicaKey>,
}

/// One slot of a running server's disk: a write is acknowledged when every slot has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The replica in it; none in one that is empty.
    pub replica: Option<ReplicaId>,
    /// How it stands.
    pub state: SlotState,
    /// Why it failed, in words.
    #[serde(default)]
    pub error: Option<String>,
    /// It counts as failed because a scrub found that it differs: what it lacks is not known.
    #[serde(default)]
    pub differs: bool,
}

/// How a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Its replica receives and flushes every write.
    Live,
    /// Its replica failed; the server stands still or will, until control has committed that the
    /// replica is not in sync and said so (`PUT …/slots`).
    Failed,
    /// A placeholder is in it.
    Empty,
    /// A placeholder is in it, and a replica is being copied to that will take its place.
    Joining,
}

/// What control has committed about a server's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsSpec {
    /// The owner's epoch; another one is refused.
    pub epoch: u64,
    /// The record's version; an older one than was seen is refused.
    pub version: u64,
    /// The replicas in sync. A failed one that is not among them leaves its slot.
    pub in_sync: Vec<ReplicaId>,
    /// Those among them that are only being filled: they may be in a slot, but are not in sync.
    #[serde(default)]
    pub syncing: Vec<ReplicaId>,
}

impl SlotsSpec {
    /// What it says that is committed.
    pub fn committed(&self) -> Committed {
        let members = self.in_sync.iter().copied();
        Committed {
            epoch: self.epoch,
            version: self.version,
            in_sync: members.filter(|it| !self.syncing.contains(it)).collect(),
        }
    }
}

/// How a replica is to get back into a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinSpec {
    /// The owner's epoch; another one is refused.
    pub epoch: u64,
    /// The replica, opened for a resync under this epoch. One without an address starts nothing:
    /// it asks how the replica's last join is, whatever opening that was of.
    pub target: ReplicaTarget,
    /// What to copy.
    pub method: JoinMethod,
    /// At most so many bytes a second; 0 for no limit.
    pub limit_bytes_s: u64,
}

/// What is copied to a replica that joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinMethod {
    /// What was written since it left; refused when that is not known for certain.
    Bitmap,
    /// Everything.
    Full,
}

/// How far a join is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinStatus {
    /// Which replica.
    pub replica: ReplicaId,
    /// How far.
    pub state: JoinState,
    /// Bytes copied.
    pub copied: Bytes,
    /// Bytes to copy, as far as is known: it grows while the server writes.
    pub total: Bytes,
    /// How long the server stood still for the last pass, in milliseconds.
    #[serde(default)]
    pub pause_ms: Option<u64>,
    /// Why it failed, in words.
    #[serde(default)]
    pub error: Option<String>,
    /// What is, or was, copied.
    pub method: JoinMethod,
}

/// How far a join is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinState {
    /// It is being copied to.
    Copying,
    /// It is in its slot and receives every write: control may commit that it is in sync.
    Joined,
    /// It is not in a slot; opened for a resync anew, it may be tried again.
    Failed,
}

/// A replica in a slot is to be compared with the owner's own one, while the server writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubSpec {
    /// The owner's epoch; another one is refused.
    pub epoch: u64,
    /// Which scrub: the same one is begun once, and told of after it has ended.
    pub scrub: OperationId,
    /// At most so many bytes a second; 0 for no limit.
    pub limit_bytes_s: u64,
}

/// How far a comparison is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Which replica.
    pub replica: ReplicaId,
    /// Which scrub.
    pub scrub: OperationId,
    /// How far.
    pub state: ScrubState,
    /// Bytes compared.
    pub compared: Bytes,
    /// Bytes to compare: what is in use.
    pub total: Bytes,
    /// Bytes in blocks that were written whenever they were looked at.
    #[serde(default)]
    pub undecided: Bytes,
    /// Why it failed, or where it differs, in words.
    #[serde(default)]
    pub error: Option<String>,
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubState {
    /// It is being compared.
    Comparing,
    /// Both are the same.
    Equal,
    /// It differs: its slot is `failed`, and it is copied anew in full once control has committed
    /// that it is not in sync.
    Differs,
    /// It could not be compared; that says nothing about it.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_plain_on_the_wire_and_hidden_everywhere_else() {
        let key = ReplicaKey::read(&"0f".repeat(32)).unwrap();
        assert!(ReplicaKey::read("0f").is_none());
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, format!("\"{}\"", "0f".repeat(32)));
        assert_eq!(serde_json::from_str::<ReplicaKey>(&text).unwrap(), key);
        assert!(!format!("{key:?}").contains("0f"));
    }
}
