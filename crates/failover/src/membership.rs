//! The record of one server: who owns it under which epoch, and which copies of its disk receive
//! every acknowledged write. Each way in which it may change is a function from the record to the
//! changed one; the store commits it by compare-and-set on [`Record::version`], or not at all.
//!
//! 1. Copies that are [`Worth::InSync`] are among those that receive and flush every acknowledged
//!    write. A copy therefore *leaves* by a commit before the owner goes on without it, and *joins*
//!    by a commit after the owner has begun to write to it.
//! 2. After a higher epoch was opened anywhere, nothing written under a lower one is acknowledged:
//!    the one copy that stays in sync at a promotion is the one that the new owner opens first.
//!
//! ```
//! use undine_failover::membership::{Record, Replica, Worth};
//! use undine_model::Id;
//!
//! let id = |n| [n; 10];
//! let copy = |n| Replica::new(Id::from_parts(0, id(n)), Id::from_parts(1, id(n)), Worth::InSync);
//! let record = Record {
//!     server: Id::from_parts(2, id(9)),
//!     epoch: 4,
//!     version: 11,
//!     owner: Some(copy(1).node),
//!     replicas: vec![copy(1), copy(2)],
//! };
//! // The node of the first copy is dead: the second becomes the owner, and the only member.
//! let next = record.promote(copy(2).node).unwrap();
//! assert_eq!((next.epoch, next.owner), (5, Some(copy(2).node)));
//! assert_eq!(next.members().map(|copy| copy.node).collect::<Vec<_>>(), [copy(2).node]);
//! ```

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ReplicaId, ServerId};

/// What a copy is worth, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// Not there yet.
    Creating,
    /// Receives every acknowledged write; may be promoted.
    InSync,
    /// Being filled.
    Syncing,
    /// Lacks writes.
    Stale,
    /// Gone.
    Lost,
}

/// When a copy fell behind: what the owner's own copy has recorded since counts only as long as
/// its daemon has run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Under this epoch.
    pub epoch: u64,
    /// The incarnation of the owner's daemon at that moment.
    pub source: String,
}

/// A copy of a server's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Which one.
    pub id: ReplicaId,
    /// On this node.
    pub node: NodeId,
    /// What it is worth.
    pub worth: Worth,
    /// When it fell behind, where that is known exactly.
    pub left: Option<Left>,
}

impl Replica {
    /// A copy that never fell behind.
    pub const fn new(id: ReplicaId, node: NodeId, worth: Worth) -> Self {
        Self {
            id,
            node,
            worth,
            left: None,
        }
    }

    fn is_member(&self) -> bool {
        self.worth == Worth::InSync
    }
}

/// The record of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which server.
    pub server: ServerId,
    /// Who owns it changes only together with this.
    pub epoch: u64,
    /// Changes with every commit.
    pub version: u64,
    /// The node that may run it.
    pub owner: Option<NodeId>,
    /// Copies of its disk, at most one a node.
    pub replicas: Vec<Replica>,
}

/// Why the record cannot change in that way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such copy.
    #[error("the server has no copy {0}")]
    NoSuchReplica(ReplicaId),
    /// It is out already: whoever asked has what was wanted.
    #[error("the copy is not a member")]
    NotAMember,
    /// It is in already.
    #[error("the copy is a member already")]
    Member,
    /// Without it nothing would be left that has every acknowledged write.
    #[error("it is the last copy that has every acknowledged write")]
    LastCopy,
    /// The owner changed since: what was copied was another owner's.
    #[error("the copy was filled under epoch {asked}, the server is at epoch {now}")]
    OtherEpoch {
        /// Filled under this one.
        asked: u64,
        /// The record's.
        now: u64,
    },
    /// The copy is not being filled.
    #[error("the copy is not being filled")]
    NotSyncing,
    /// The node holds no copy that may be promoted.
    #[error("that node holds no copy with every acknowledged write")]
    NoMemberThere,
    /// The operator's words do not name a copy that could be accepted.
    #[error("that copy is gone or was never filled; nothing of the server is on it")]
    NothingThere,
}

/// Why a server cannot come up elsewhere now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Waits {
    /// It has one copy, on the node that is away.
    #[error("its only copy is on a node that is away; it waits for that node")]
    OnlyCopy,
    /// Every copy that has all acknowledged writes is on nodes that are away.
    #[error("it waits for a replica: {away} with every acknowledged write, none within reach")]
    ForReplica {
        /// How many copies that would do.
        away: usize,
    },
}

impl Record {
    /// The copies that have every acknowledged write.
    pub fn members(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.is_member())
    }

    /// The copy on this node.
    pub fn on(&self, node: NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// The owner's own copy.
    pub fn local(&self) -> Option<&Replica> {
        self.on(self.owner?)
    }

    fn changed(&self, id: ReplicaId, change: impl FnOnce(&mut Replica)) -> Result<Self, Refused> {
        let mut next = self.clone();
        let replica = next.replicas.iter_mut().find(|replica| replica.id == id);
        change(replica.ok_or(Refused::NoSuchReplica(id))?);
        next.version += 1;
        Ok(next)
    }

    fn find(&self, id: ReplicaId) -> Result<&Replica, Refused> {
        let found = self.replicas.iter().find(|replica| replica.id == id);
        found.ok_or(Refused::NoSuchReplica(id))
    }

    /// A member failed: the owner may go on without it once this is committed. `source` is the
    /// incarnation of the owner's daemon, whose record of writes makes the way back short.
    ///
    /// # Errors
    /// It is no member, or the last one.
    pub fn degrade(&self, id: ReplicaId, source: Option<&str>) -> Result<Self, Refused> {
        if !self.find(id)?.is_member() {
            return Err(Refused::NotAMember);
        }
        if self.members().count() == 1 {
            return Err(Refused::LastCopy);
        }
        let epoch = self.epoch;
        self.changed(id, |replica| {
            replica.worth = Worth::Stale;
            replica.left = source.map(|source| Left {
                epoch,
                source: source.to_owned(),
            });
        })
    }

    /// A copy is to be filled: whatever it holds counts for nothing until [`Record::join`].
    ///
    /// # Errors
    /// It is a member.
    pub fn refill(&self, id: ReplicaId) -> Result<Self, Refused> {
        if self.find(id)?.is_member() {
            return Err(Refused::Member);
        }
        self.changed(id, |replica| replica.worth = Worth::Syncing)
    }

    /// The owner of `epoch` writes to the copy, which has everything: it becomes a member.
    ///
    /// # Errors
    /// The owner changed meanwhile, or the copy was not being filled (any more).
    pub fn join(&self, epoch: u64, id: ReplicaId) -> Result<Self, Refused> {
        if epoch != self.epoch {
            return Err(Refused::OtherEpoch {
                asked: epoch,
                now: self.epoch,
            });
        }
        match self.find(id)?.worth {
            Worth::Syncing => {}
            Worth::InSync => return Err(Refused::Member),
            Worth::Creating | Worth::Stale | Worth::Lost => return Err(Refused::NotSyncing),
        }
        self.changed(id, |replica| {
            replica.worth = Worth::InSync;
            replica.left = None;
        })
    }

    /// Nodes that may become the owner: those with a member that are alive, the present owner's
    /// aside when it is not.
    ///
    /// # Errors
    /// None is, and why the server waits.
    pub fn candidates(&self, is_alive: impl Fn(NodeId) -> bool) -> Result<Vec<NodeId>, Waits> {
        let alive = self.members().map(|member| member.node);
        let alive: Vec<NodeId> = alive.filter(|node| is_alive(*node)).collect();
        match (alive.is_empty(), self.replicas.len()) {
            (false, _) => Ok(alive),
            (true, 0 | 1) => Err(Waits::OnlyCopy),
            (true, _) => Err(Waits::ForReplica {
                away: self.members().count(),
            }),
        }
    }

    /// `node` becomes the owner under the next epoch. Its copy is the only member from then on: the
    /// dead owner's writes that were under way may have reached some copies and not others, so all
    /// others are filled again before they count.
    ///
    /// # Errors
    /// The node holds no member.
    pub fn promote(&self, node: NodeId) -> Result<Self, Refused> {
        let member = self.on(node).filter(|replica| replica.is_member());
        let member = member.ok_or(Refused::NoMemberThere)?.id;
        Ok(self.owned_by(node, member))
    }

    /// As [`Record::promote`], of a copy that lacks writes: an operator accepts the loss, in words.
    ///
    /// # Errors
    /// The copy holds nothing of the server.
    pub fn accept_loss(&self, id: ReplicaId) -> Result<Self, Refused> {
        let replica = self.find(id)?;
        // One that is being filled is neither old nor new: no state that the server was ever in.
        if !matches!(replica.worth, Worth::InSync | Worth::Stale) {
            return Err(Refused::NothingThere);
        }
        Ok(self.owned_by(replica.node, id))
    }

    fn owned_by(&self, node: NodeId, member: ReplicaId) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        next.version += 1;
        next.owner = Some(node);
        for replica in &mut next.replicas {
            replica.worth = match replica.worth {
                _ if replica.id == member => Worth::InSync,
                Worth::InSync | Worth::Syncing => Worth::Stale,
                other => other,
            };
            replica.left = None;
        }
        next
    }

    /// The server's QEMU ended uncleanly and is started again on its node: the other members may
    /// lack, or have, writes that were under way. They are filled again before they count.
    ///
    /// # Errors
    /// The owner's own copy is no member.
    pub fn restart_uncleanly(&self) -> Result<Self, Refused> {
        let local = self.local().filter(|replica| replica.is_member());
        let local = local.ok_or(Refused::NoMemberThere)?.id;
        let mut next = self.clone();
        next.version += 1;
        for replica in &mut next.replicas {
            if replica.is_member() && replica.id != local {
                replica.worth = Worth::Stale;
                replica.left = None;
            }
        }
        Ok(next)
    }

    /// A store that came back from a copy of itself asks every holder first: one that has seen a
    /// higher epoch proves that the store has forgotten an owner.
    ///
    /// # Errors
    /// The highest epoch that was seen: an operator must decide.
    pub fn still_newest(&self, seen: impl IntoIterator<Item = u64>) -> Result<(), u64> {
        match seen.into_iter().max() {
            Some(highest) if highest > self.epoch => Err(highest),
            _ => Ok(()),
        }
    }
}

/// Invariant 1: every member is among the copies that receive all acknowledged writes.
pub fn members_receive(record: &Record, receivers: &[ReplicaId]) -> bool {
    record
        .members()
        .all(|member| receivers.contains(&member.id))
}

/// Invariant 2: a write under `epoch` may be acknowledged only while no copy has seen a higher one.
pub fn may_acknowledge(epoch: u64, seen: impl IntoIterator<Item = u64>) -> bool {
    seen.into_iter().all(|other| other <= epoch)
}

#[cfg(test)]
mod tests;
