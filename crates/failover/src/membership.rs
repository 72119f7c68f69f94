//! A server's record as the protocol sees it, and every change of it (protocols §1). A change is
//! a function from the record that was read to the record to commit, or a refusal; it counts only
//! once the store has taken it in place of exactly the version that was read.
//!
//! ```text
//!            begin_sync             joined                degrade, promote
//!   Stale ─────────────> Syncing ───────────> InSync ───────────────────────> Stale
//!     ^                     │                    │ promote, of the survivors     (Lost: its file
//!     └──────leave──────────┘<──────settle───────┘ all but one                    is gone)
//! ```
//!
//! *Joining* is committed after the replica was swapped in and the guest went on: it receives and
//! flushes without being a member, which breaks nothing. *Leaving* is committed first, always, also
//! by a replica that only joined and was never committed: otherwise a commit of its joining that
//! is under way would make a member of a copy that lacks writes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ReplicaId, ServerId};

mod promote;
mod rules;
pub use promote::{accept_loss, promote, relocate, restart, settle, succeed, took_back};
pub use rules::{confirms, invariant_1, invariant_2, leftover, well_formed};

/// What a replica is worth, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// Not there yet.
    Creating,
    /// Receives every acknowledged write; may be promoted.
    InSync,
    /// Is being filled; may be in a slot already.
    Syncing,
    /// Lacks writes; must be filled again.
    Stale,
    /// Its file is gone.
    Lost,
}

/// A copy of a server's disk on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// On this node.
    pub node: NodeId,
    /// What it is worth.
    pub worth: Worth,
    /// The epoch under which it left the replicas in sync while its owner went on; none when
    /// nobody knows what it lacks.
    pub left_epoch: Option<u64>,
}

/// A server's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which server.
    pub server: ServerId,
    /// Grows with every owner and every start after an unclean end.
    pub epoch: u64,
    /// Grows with every change: the store takes a change only in place of the version before.
    pub version: u64,
    /// The node that may run it.
    pub owner: Option<NodeId>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// Slots of its disk: so many replicas can be in sync.
    pub slots: usize,
    /// Somebody wants it to run.
    pub wanted: bool,
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It stands so already.
    #[error("nothing to change: it stands so already")]
    Already,
    /// It was said under another epoch.
    #[error("said under epoch {said}, but the server is at {stands}: read the record again")]
    OtherEpoch {
        /// This one.
        said: u64,
        /// The record's.
        stands: u64,
    },
    /// No such replica.
    #[error("the server has no replica {0}: read the record again")]
    NoSuchReplica(ReplicaId),
    /// It is the last one.
    #[error("replica {0} is the last one in sync: the server waits until it is back")]
    LastInSync(ReplicaId),
    /// Only a replica that is being filled joins.
    #[error("replica {0} is not being filled: begin a resync first")]
    NotSyncing(ReplicaId),
    /// Every slot has its replica.
    #[error("all {0} slots have a replica in sync: restart the server to have more")]
    NoSlot(usize),
    /// It is in a slot, or may be.
    #[error("replica {0} is in use: take it out of the replicas in sync first")]
    InUse(ReplicaId),
    /// Its owner lives.
    #[error("the owner is not declared dead: nothing to take over")]
    OwnerLives,
    /// No replica in sync can be reached.
    #[error("no replica in sync can be reached: waiting for {}", names(.0))]
    NoReplica(Vec<NodeId>),
    /// The node is among those that cannot be reached.
    #[error("node {0} is declared dead: choose another one")]
    TargetDead(NodeId),
    /// The operator did not say it.
    #[error("write a sentence that says that you accept the loss, and why")]
    NoWords,
}

fn names(nodes: &[NodeId]) -> String {
    if nodes.is_empty() {
        return "a replica, of which there is none".to_owned();
    }
    let nodes: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
    nodes.join(" or ")
}

/// What a change comes to.
pub type Change = Result<Record, Refusal>;

impl Record {
    /// The replicas that receive every acknowledged write.
    pub fn in_sync(&self) -> impl Iterator<Item = &Replica> {
        self.of_worth(Worth::InSync)
    }

    /// Their ids.
    pub fn in_sync_ids(&self) -> BTreeSet<ReplicaId> {
        self.in_sync().map(|it| it.id).collect()
    }

    /// The ids of those that are being filled.
    pub fn syncing_ids(&self) -> BTreeSet<ReplicaId> {
        self.of_worth(Worth::Syncing).map(|it| it.id).collect()
    }

    fn of_worth(&self, worth: Worth) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |it| it.worth == worth)
    }

    /// One of its replicas.
    ///
    /// # Errors
    /// It has no such one.
    pub fn replica(&self, id: ReplicaId) -> Result<&Replica, Refusal> {
        let found = self.replicas.iter().find(|it| it.id == id);
        found.ok_or(Refusal::NoSuchReplica(id))
    }

    /// Everything that may be promoted lies on the owner itself: nobody else can take the server
    /// over, so its guard never pauses it.
    pub fn is_local_only(&self) -> bool {
        self.in_sync().all(|it| Some(it.node) == self.owner)
    }

    fn at_epoch(&self, said: u64) -> Result<(), Refusal> {
        if said == self.epoch {
            return Ok(());
        }
        Err(Refusal::OtherEpoch {
            said,
            stands: self.epoch,
        })
    }

    fn next(&self) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next
    }

    fn set(&mut self, id: ReplicaId, worth: Worth, left_epoch: Option<u64>) {
        for it in self.replicas.iter_mut().filter(|it| it.id == id) {
            (it.worth, it.left_epoch) = (worth, left_epoch);
        }
    }
}

/// The replicas in these slots failed, says the owner's node under this epoch: they leave. Once
/// this is committed the node may swap placeholders in and go on, not before. Replicas that have
/// only joined leave the same way. When nothing in sync would be left, what is in sync stays.
///
/// # Errors
/// Another epoch, no such replica, only the last ones in sync, or all of them have left already.
pub fn degrade(record: &Record, epoch: u64, failed: &[ReplicaId]) -> Change {
    record.at_epoch(epoch)?;
    let mut next = record.next();
    let mut last = None;
    let members = record.in_sync().filter(|it| failed.contains(&it.id));
    let is_all = members.count() == record.in_sync().count();
    for id in failed {
        match record.replica(*id)?.worth {
            Worth::InSync if is_all => last = Some(*id),
            Worth::InSync => next.set(*id, Worth::Stale, Some(epoch)),
            Worth::Syncing => next.set(*id, Worth::Stale, None),
            Worth::Creating | Worth::Stale | Worth::Lost => {}
        }
    }
    match last {
        _ if next.replicas != record.replicas => Ok(next),
        Some(last) => Err(Refusal::LastInSync(last)),
        None => Err(Refusal::Already),
    }
}

/// A replica is to be filled: commit this before its daemon is opened for it.
///
/// # Errors
/// Another epoch, no such replica, it is in sync or being filled already, or no slot is free.
pub fn begin_sync(record: &Record, epoch: u64, replica: ReplicaId) -> Change {
    record.at_epoch(epoch)?;
    let found = record.replica(replica)?;
    if matches!(found.worth, Worth::InSync | Worth::Syncing) {
        return Err(Refusal::Already);
    }
    if record.in_sync().count() + record.syncing_ids().len() >= record.slots {
        return Err(Refusal::NoSlot(record.slots));
    }
    let mut next = record.next();
    // How it left is kept: the copying is about to ask what it lacks.
    next.set(replica, Worth::Syncing, found.left_epoch);
    Ok(next)
}

/// A replica was swapped in, says the owner's node under this epoch, **asked after `record` was
/// read**: it is in sync.
///
/// # Errors
/// Another epoch, no such replica, it is in sync already, it was not being filled, or no slot is
/// free.
pub fn join(record: &Record, epoch: u64, replica: ReplicaId) -> Change {
    record.at_epoch(epoch)?;
    match record.replica(replica)?.worth {
        Worth::InSync => return Err(Refusal::Already),
        Worth::Syncing => {}
        _ => return Err(Refusal::NotSyncing(replica)),
    }
    if record.in_sync().count() >= record.slots {
        return Err(Refusal::NoSlot(record.slots));
    }
    let mut next = record.next();
    next.set(replica, Worth::InSync, None);
    Ok(next)
}

/// A replica's file is gone, says its node: it counts for nothing, and another one may be made.
///
/// # Errors
/// No such replica, the last one in sync, or it is known.
pub fn lose(record: &Record, replica: ReplicaId) -> Change {
    match record.replica(replica)?.worth {
        Worth::Lost => Err(Refusal::Already),
        Worth::InSync if record.in_sync().count() == 1 => Err(Refusal::LastInSync(replica)),
        _ => {
            let mut next = record.next();
            next.set(replica, Worth::Lost, None);
            Ok(next)
        }
    }
}

/// These replicas were just made, empty alike, and nothing was ever written: all are in sync.
///
/// # Errors
/// Another epoch, no such replica, one that is more than made, or more of them than slots.
pub fn made(record: &Record, epoch: u64, made: &[ReplicaId]) -> Change {
    record.at_epoch(epoch)?;
    let mut next = record.next();
    for id in made {
        if record.replica(*id)?.worth != Worth::Creating {
            return Err(Refusal::Already);
        }
        next.set(*id, Worth::InSync, None);
    }
    if next.in_sync().count() > record.slots {
        return Err(Refusal::NoSlot(record.slots));
    }
    Ok(next)
}

/// Another replica is to be made and filled.
///
/// # Errors
/// Another epoch, or the node has one already.
pub fn add(record: &Record, epoch: u64, id: ReplicaId, node: NodeId) -> Change {
    record.at_epoch(epoch)?;
    if record
        .replicas
        .iter()
        .any(|it| it.node == node || it.id == id)
    {
        return Err(Refusal::Already);
    }
    let mut next = record.next();
    next.replicas.push(Replica {
        id,
        node,
        worth: Worth::Creating,
        left_epoch: None,
    });
    Ok(next)
}

/// A replica is given up: its node removes the file once this is committed.
///
/// # Errors
/// It is gone already, or it is in sync or being filled: it must leave first.
pub fn remove(record: &Record, id: ReplicaId) -> Change {
    match record.replica(id) {
        Err(_) => Err(Refusal::Already),
        Ok(it) if matches!(it.worth, Worth::InSync | Worth::Syncing) => Err(Refusal::InUse(id)),
        Ok(_) => {
            let mut next = record.next();
            next.replicas.retain(|it| it.id != id);
            Ok(next)
        }
    }
}

#[cfg(test)]
mod tests;
