//! Changes of the owner, and starts after an unclean end: each raises the epoch, so that whatever
//! still writes under the old one is refused by name.

use std::collections::BTreeSet;

use undine_model::{NodeId, ReplicaId};

use super::{Change, Record, Refusal, Worth};

/// The owner is dead: `target` takes over. The new epoch's replicas in sync are exactly those on
/// nodes that are not dead; the dead nodes' copies become stale in the same commit, for the server
/// goes on without them. `target` need not hold a replica itself.
///
/// Commit it in one transaction with the check that the owner is **still** declared dead (or with
/// the declaration itself): a node that came back meanwhile may have been told that it owns the
/// server, and have let it go on.
///
/// # Errors
/// The owner is not among the dead, the target is, or no replica in sync is left.
///
/// ```
/// use std::collections::BTreeSet;
/// use undine_failover::membership::{promote, Record, Replica, Worth};
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
/// let next = promote(&record, &BTreeSet::from([node(1)]), node(2)).unwrap();
/// assert_eq!((next.epoch, next.version, next.owner), (5, 10, Some(node(2))));
/// assert_eq!(next.replicas[0].worth, Worth::Stale);
/// ```
pub fn promote(record: &Record, dead: &BTreeSet<NodeId>, target: NodeId) -> Change {
    if record.owner.is_some_and(|owner| !dead.contains(&owner)) {
        return Err(Refusal::OwnerLives);
    }
    if dead.contains(&target) {
        return Err(Refusal::TargetDead(target));
    }
    take(record, dead, target)
}

fn take(record: &Record, dead: &BTreeSet<NodeId>, target: NodeId) -> Change {
    if record.in_sync().all(|it| dead.contains(&it.node)) {
        return Err(Refusal::NoReplica(
            record.in_sync().map(|it| it.node).collect(),
        ));
    }
    let mut next = record.next();
    next.epoch += 1;
    next.owner = Some(target);
    for it in &mut next.replicas {
        // What was being filled, was being filled from an owner that is gone.
        let stays = it.worth == Worth::InSync && !dead.contains(&it.node);
        if matches!(it.worth, Worth::InSync | Worth::Syncing) && !stays {
            (it.worth, it.left_epoch) = (Worth::Stale, None);
        }
        // The bitmaps that knew what the others lack are gone with the owner's daemons.
        it.left_epoch = None;
    }
    Ok(next)
}

/// The server's QEMU ended uncleanly on an owner that lives: it starts anew there, under a new
/// epoch, without the replicas on nodes that are dead.
///
/// # Errors
/// It has no owner that lives, or no replica in sync is left.
pub fn restart(record: &Record, dead: &BTreeSet<NodeId>) -> Change {
    match record.owner {
        Some(owner) if !dead.contains(&owner) => take(record, dead, owner),
        Some(owner) => Err(Refusal::TargetDead(owner)),
        None => Err(Refusal::NoReplica(Vec::new())),
    }
}

/// The owner lives but cannot start the server: another node takes over.
///
/// # Errors
/// The target is the owner already or dead, or no replica in sync is left.
pub fn relocate(record: &Record, dead: &BTreeSet<NodeId>, target: NodeId) -> Change {
    if record.owner == Some(target) {
        return Err(Refusal::Already);
    }
    if dead.contains(&target) {
        return Err(Refusal::TargetDead(target));
    }
    take(record, dead, target)
}

/// `target` runs the server from now on: one that takes over from a dead owner ([`promote`]), from
/// one that cannot start it ([`relocate`]), or the owner itself, after an unclean end ([`restart`]).
/// An owner that is back with the only replica in sync keeps its epoch: nobody else was ever told
/// anything, and what may still run there goes on.
///
/// # Errors
/// The target is dead, or no replica in sync is left.
pub fn succeed(record: &Record, dead: &BTreeSet<NodeId>, target: NodeId) -> Change {
    match record.owner {
        Some(owner) if owner == target && !dead.contains(&owner) => {
            if record.in_sync().count() > 1 {
                return restart(record, dead);
            }
            let mut next = take(record, dead, target)?;
            next.epoch = record.epoch;
            Ok(next)
        }
        Some(owner) if !dead.contains(&owner) => relocate(record, dead, target),
        _ => promote(record, dead, target),
    }
}

/// Before the first start under a new epoch: after an unclean end the replicas in sync may differ
/// in writes that were in flight. One is kept, the first to be read; what the guest reads there
/// must not vanish with it, so the others are filled again.
///
/// # Errors
/// The epoch is another one, the kept replica is not in sync, or it is the only one already.
pub fn settle(record: &Record, epoch: u64, keep: ReplicaId) -> Change {
    record.at_epoch(epoch)?;
    if record.replica(keep)?.worth != Worth::InSync {
        return Err(Refusal::NotSyncing(keep));
    }
    if record.in_sync().count() == 1 {
        return Err(Refusal::Already);
    }
    let mut next = record.next();
    for id in record.in_sync_ids() {
        if id != keep {
            next.set(id, Worth::Stale, None);
        }
    }
    Ok(next)
}

/// No replica in sync can be reached, and the operator accepts in words what the chosen one may
/// lack: it is promoted alone.
///
/// # Errors
/// No words, no such replica, its file is gone, or its node or the target is dead.
pub fn accept_loss(
    record: &Record,
    dead: &BTreeSet<NodeId>,
    chosen: ReplicaId,
    target: NodeId,
    words: &str,
) -> Change {
    if words.trim().is_empty() {
        return Err(Refusal::NoWords);
    }
    let found = record.replica(chosen)?;
    if matches!(found.worth, Worth::Lost | Worth::Creating) || dead.contains(&found.node) {
        return Err(Refusal::NoReplica(vec![found.node]));
    }
    if dead.contains(&target) {
        return Err(Refusal::TargetDead(target));
    }
    let mut next = record.next();
    next.epoch += 1;
    next.owner = Some(target);
    for it in &mut next.replicas {
        let worth = match it.worth {
            _ if it.id == chosen => Worth::InSync,
            Worth::InSync | Worth::Syncing => Worth::Stale,
            other => other,
        };
        (it.worth, it.left_epoch) = (worth, None);
    }
    Ok(next)
}

/// A migration's target died after the commit that made it the owner: the source takes the server
/// back by a commit of its own, and the target is fenced by its epoch.
///
/// # Errors
/// The target is not the owner, or no replica in sync can be reached.
pub fn took_back(record: &Record, from: NodeId, source: NodeId, dead: &BTreeSet<NodeId>) -> Change {
    if record.owner != Some(from) {
        return Err(Refusal::Already);
    }
    if dead.contains(&source) {
        return Err(Refusal::TargetDead(source));
    }
    // Nothing was written since: the source's QEMU goes on where it stopped, on the same replicas.
    let mut next = record.next();
    next.epoch += 1;
    next.owner = Some(source);
    let mut gone: BTreeSet<ReplicaId> = BTreeSet::new();
    gone.extend(
        next.in_sync()
            .filter(|it| dead.contains(&it.node))
            .map(|it| it.id),
    );
    if gone.len() == next.in_sync().count() {
        return Err(Refusal::NoReplica(
            record.in_sync().map(|it| it.node).collect(),
        ));
    }
    for id in gone {
        next.set(id, Worth::Stale, None);
    }
    Ok(next)
}
