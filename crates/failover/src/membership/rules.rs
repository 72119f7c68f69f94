//! The invariants of protocols §1 as functions that tests and the simulator call.

use std::collections::BTreeSet;

use undine_model::{NodeId, ReplicaId, ServerId};

use super::{Record, Worth};

/// Invariant 1: whoever is in sync, as committed, receives and flushes every acknowledged write.
/// `receives` are the replicas that an acknowledgement right now would wait for. Tells who does
/// not.
pub fn invariant_1(record: &Record, receives: &BTreeSet<ReplicaId>) -> Vec<ReplicaId> {
    let members = record.in_sync_ids();
    members.difference(receives).copied().collect()
}

/// Invariant 2: after a higher epoch has been opened anywhere, nothing written under a lower one
/// is acknowledged.
pub fn invariant_2(acknowledged_under: u64, highest_opened: u64) -> bool {
    acknowledged_under >= highest_opened
}

/// A record that no change can lead to is not well formed: what is wrong with it, in words.
pub fn well_formed(record: &Record) -> Result<(), String> {
    let members = record.in_sync().count();
    let made = record.replicas.iter().any(|it| it.worth != Worth::Creating);
    if made && members == 0 {
        return Err("no replica is in sync".to_owned());
    }
    if members > record.slots {
        return Err(format!("{members} replicas in {} slots", record.slots));
    }
    let nodes: BTreeSet<NodeId> = record.replicas.iter().map(|it| it.node).collect();
    if nodes.len() < record.replicas.len() {
        return Err("two replicas on one node".to_owned());
    }
    Ok(())
}

/// What a guard is told that its node owns, before it lets go on what it has paused; none when it
/// cannot be told for certain: the node is declared dead and its servers are being taken over, or
/// the store went back and is not trusted yet ([`crate::memory`]). First commit, after the request
/// came, that the node is confirmed, in place of its record as not dead
/// ([`crate::liveness::Known::confirmed`]); then read the records. So whoever declares it dead
/// afterwards waits for longer than the guard obeys the confirmation.
pub fn confirms<'a>(
    node: NodeId,
    is_dead: bool,
    is_trusted: bool,
    records: impl IntoIterator<Item = &'a Record>,
) -> Option<Vec<(ServerId, u64)>> {
    if is_dead || !is_trusted {
        return None;
    }
    let owned = records.into_iter().filter(|it| it.owner == Some(node));
    Some(owned.map(|it| (it.server, it.epoch)).collect())
}

/// A node has this server under this epoch: is it a leftover, to be stopped and forgotten?
pub fn leftover(record: Option<&Record>, node: NodeId, epoch: u64) -> bool {
    record.is_none_or(|it| it.owner != Some(node) || it.epoch != epoch)
}
