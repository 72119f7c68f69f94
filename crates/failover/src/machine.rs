//! One server's fail-over, step by step: what is seen goes in, the next action comes out. Control's
//! operation asks, does what it is told, looks again and asks again, until `Done` or `Waiting`.
//!
//! Nothing is remembered between two steps but the record and what the nodes answer, so any
//! instance may go on where another one died, and two at once do no harm: every commit is
//! compared-and-set, and every action is idempotent under its epoch.
//!
//! ```text
//!   Commit(promote) -> Open, at every replica in sync -> Commit(settle) -> Start -> WaitGuest
//!        -> MoveRoute -> Done
//! ```

use std::collections::{BTreeMap, BTreeSet};

use undine_model::{NodeId, ReplicaId};

use crate::membership::{self, Change, Record, Refusal, Replica};

/// What a replica's node answered to the opening, under the epoch that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A daemon exports it under this epoch.
    Open(u64),
    /// Refused under this epoch: its daemon ended, it may lack writes.
    Stale(u64),
    /// Its file is gone.
    Lost,
}

/// A server's virtual machine, as its owner's node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vm {
    /// Under this epoch.
    pub epoch: u64,
    /// How it stands.
    pub phase: Phase,
}

/// How a virtual machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was started; its guest has not answered for itself yet.
    Starting,
    /// Its guest answered: data disk mounted, manifest applied.
    Answers,
    /// It ended by itself, or every replica in sync has failed it: it cannot go on.
    Ended,
    /// The node cannot start it.
    CannotStart,
}

/// What is seen, the record first: everything else is asked **after** the record was read.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The record, just read.
    pub record: &'a Record,
    /// The nodes that are declared dead.
    pub dead: &'a BTreeSet<NodeId>,
    /// Where it should go when it must move ([`crate::targets::spread`]).
    pub target: Option<NodeId>,
    /// What the openings came to.
    pub opened: &'a BTreeMap<ReplicaId, Opened>,
    /// The virtual machine on the owner's node; none when the node says that there is none. When
    /// an owner that is not declared dead does not answer, nobody knows: ask again later.
    pub vm: Option<Vm>,
    /// The epoch that the edges' route points at.
    pub route: Option<u64>,
    /// The operator accepts what this replica may lack, in these words.
    pub accepted: Option<(ReplicaId, &'a str)>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Commit this record in place of the version that was read; why, in words.
    Commit(Record, String),
    /// Open this replica under this epoch: its node fsyncs the sidecar, ends all exports below
    /// the epoch, awaits their end, and exports it anew.
    Open {
        /// The replica's node.
        node: NodeId,
        /// Which replica.
        replica: ReplicaId,
        /// The record's epoch.
        epoch: u64,
    },
    /// Start the server there with this replica in its first slot, placeholders in the others.
    Start {
        /// The owner.
        node: NodeId,
        /// The record's epoch.
        epoch: u64,
        /// The replica that was kept.
        replica: ReplicaId,
    },
    /// Wait until the guest answers for itself.
    WaitGuest(NodeId),
    /// Retire the route of every lower epoch, then let the edges reach it under this one.
    MoveRoute {
        /// The owner.
        node: NodeId,
        /// The record's epoch.
        epoch: u64,
    },
    /// The operation ends here and is begun again when this changes; for whom, in words.
    Waiting(String),
    /// It runs and is reached. So many copies are missing ([`crate::resync::plan`]).
    Done {
        /// Slots without a replica in sync.
        missing: usize,
    },
}

/// The next action.
///
/// ```
/// use std::collections::{BTreeMap, BTreeSet};
/// use undine_failover::machine::{next, Next, Seen};
/// use undine_failover::membership::{Record, Replica, Worth};
/// use undine_model::{NodeId, ReplicaId, ServerId};
///
/// let node = |n| NodeId::from_parts(n, [0; 10]);
/// let replica = |n| Replica {
///     id: ReplicaId::from_parts(n, [0; 10]), node: node(n), worth: Worth::InSync, left_epoch: None,
/// };
/// let record = Record {
///     server: ServerId::from_parts(1, [0; 10]), epoch: 4, version: 9, owner: Some(node(1)),
///     replicas: vec![replica(1), replica(2)], slots: 2, wanted: true,
/// };
/// let seen = Seen {
///     record: &record, dead: &BTreeSet::from([node(1)]), target: Some(node(2)),
///     opened: &BTreeMap::new(), vm: None, route: Some(4), accepted: None,
/// };
/// let Next::Commit(promoted, _) = next(&seen) else { panic!() };
/// let open = Next::Open { node: node(2), replica: replica(2).id, epoch: 5 };
/// assert_eq!(next(&Seen { record: &promoted, ..seen }), open);
/// ```
pub fn next(seen: &Seen<'_>) -> Next {
    let record = seen.record;
    if !record.wanted {
        return Next::Done { missing: 0 };
    }
    let Some(owner) = record.owner else {
        return Next::Waiting("an owner: the server was never started".to_owned());
    };
    if seen.dead.contains(&owner) {
        return take_over(seen, owner);
    }
    match seen.vm.filter(|vm| vm.epoch == record.epoch) {
        None => prepare(seen, owner),
        Some(vm) => match vm.phase {
            Phase::Starting => Next::WaitGuest(owner),
            Phase::Answers if seen.route == Some(record.epoch) => Next::Done {
                missing: record.slots.saturating_sub(record.in_sync().count()),
            },
            Phase::Answers => Next::MoveRoute {
                node: owner,
                epoch: record.epoch,
            },
            Phase::Ended => again(seen, "its virtual machine ended by itself"),
            Phase::CannotStart => elsewhere(seen, owner),
        },
    }
}

fn take_over(seen: &Seen<'_>, owner: NodeId) -> Next {
    let record = seen.record;
    let Some(target) = seen.target else {
        return Next::Waiting("a node with room that may run it".to_owned());
    };
    match membership::promote(record, seen.dead, target) {
        Ok(next) => Next::Commit(
            next,
            format!("node {owner} is dead: node {target} takes over"),
        ),
        Err(Refusal::NoReplica(nodes)) => accepted(seen, target, &nodes),
        Err(refusal) => Next::Waiting(refusal.to_string()),
    }
}

fn accepted(seen: &Seen<'_>, target: NodeId, nodes: &[NodeId]) -> Next {
    let waiting = Refusal::NoReplica(nodes.to_vec()).to_string();
    let Some((replica, words)) = seen.accepted else {
        return Next::Waiting(waiting);
    };
    match membership::accept_loss(seen.record, seen.dead, replica, target, words) {
        Ok(next) => Next::Commit(next, format!("the operator accepts loss: {words}")),
        Err(refusal) => Next::Waiting(refusal.to_string()),
    }
}

/// Opens every replica in sync, keeps one, starts.
fn prepare(seen: &Seen<'_>, owner: NodeId) -> Next {
    let record = seen.record;
    let epoch = record.epoch;
    for it in record.in_sync() {
        if seen.dead.contains(&it.node) {
            return leave(
                seen,
                it,
                membership::degrade(record, epoch, &[it.id]),
                "its node is dead",
            );
        }
        match seen.opened.get(&it.id) {
            Some(Opened::Open(at)) if *at == epoch => {}
            Some(Opened::Stale(at)) if *at == epoch => {
                // It has every write that was flushed; a new epoch says that nobody went on.
                return again(seen, "a replica's daemon ended before the start");
            }
            Some(Opened::Lost) => {
                return leave(
                    seen,
                    it,
                    membership::lose(record, it.id),
                    "its file is gone",
                );
            }
            _ => {
                return Next::Open {
                    node: it.node,
                    replica: it.id,
                    epoch,
                };
            }
        }
    }
    let kept = record.in_sync().min_by_key(|it| (it.node != owner, it.id));
    let Some(kept) = kept else {
        return Next::Waiting(Refusal::NoReplica(Vec::new()).to_string());
    };
    match membership::settle(record, epoch, kept.id) {
        Ok(next) => Next::Commit(
            next,
            format!(
                "the copy on node {} is kept, the others are filled again",
                kept.node
            ),
        ),
        Err(_) => Next::Start {
            node: owner,
            epoch,
            replica: kept.id,
        },
    }
}

fn leave(seen: &Seen<'_>, replica: &Replica, change: Change, why: &str) -> Next {
    match change {
        Ok(next) => Next::Commit(
            next,
            format!("the copy on node {} leaves: {why}", replica.node),
        ),
        Err(Refusal::LastInSync(_)) => match seen.target {
            Some(target) => accepted(seen, target, &[replica.node]),
            None => Next::Waiting(Refusal::NoReplica(vec![replica.node]).to_string()),
        },
        Err(refusal) => Next::Waiting(refusal.to_string()),
    }
}

fn again(seen: &Seen<'_>, why: &str) -> Next {
    match membership::restart(seen.record, seen.dead) {
        Ok(next) => Next::Commit(next, format!("{why}: it starts under a new epoch")),
        Err(refusal) => Next::Waiting(refusal.to_string()),
    }
}

fn elsewhere(seen: &Seen<'_>, owner: NodeId) -> Next {
    let target = seen.target.filter(|target| *target != owner);
    let Some(target) = target else {
        return Next::Waiting(format!(
            "node {owner}, which cannot start it, and no other may"
        ));
    };
    match membership::relocate(seen.record, seen.dead, target) {
        Ok(next) => Next::Commit(
            next,
            format!("node {owner} cannot start it: node {target} does"),
        ),
        Err(refusal) => Next::Waiting(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests;
