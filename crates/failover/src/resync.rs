//! Which copies are filled, how, and where new ones go.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use undine_model::{Bytes, NodeId, ReplicaId};

use crate::membership::{Record, Replica, Worth};
use crate::slots::Slots;

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// What was written since it left.
    Bitmap,
    /// Everything.
    Full,
}

/// How a replica is filled. What it lacks is known only when it left under this epoch, while its
/// owner went on, and the owner's daemon has run without interruption since: `bitmap_kept`, as the
/// owner's node says. In every other case both sides may have writes that the other has not.
pub fn method(record: &Record, replica: &Replica, bitmap_kept: bool) -> Method {
    if bitmap_kept && replica.left_epoch == Some(record.epoch) {
        Method::Bitmap
    } else {
        Method::Full
    }
}

/// Is what a replica lacks still known? `left` is the replica whose bitmap recorded writes when the
/// other one failed, and the incarnation of its daemon then; `now` is that daemon's incarnation
/// now. A bitmap records only while its own replica is in a slot: one that has left meanwhile, or
/// came back through a daemon of its own, has missed writes.
pub fn bitmap_kept<I: PartialEq>(slots: &Slots, left: (ReplicaId, &I), now: Option<&I>) -> bool {
    slots.is_live(left.0) && now == Some(left.1)
}

/// A node that could hold a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Which one; it is alive and takes new things.
    pub node: NodeId,
    /// Disk that is free there.
    pub free: Bytes,
    /// Its rack, where racks are known.
    pub rack: Option<String>,
}

/// Something to do for the copies of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// Commit [`crate::membership::begin_sync`], open it for a resync and let it join.
    Begin(ReplicaId),
    /// Commit [`crate::membership::add`] for this node, then begin.
    Add(NodeId),
    /// Commit [`crate::membership::remove`]: it is replaced.
    Remove(ReplicaId),
}

/// What is to be done now, and why, so that every slot has its replica again. Copies that are
/// there are filled before new ones are made; a new one goes to the node with most free disk that
/// has none, in a rack that has none where there is one.
pub fn plan(record: &Record, spots: &[Spot], size: Bytes) -> Vec<(Fill, String)> {
    let members = record.in_sync().count();
    if members == 0 {
        return Vec::new();
    }
    let under_way = record.syncing_ids().len();
    let missing = record.slots.saturating_sub(members + under_way);
    if missing == 0 {
        return surplus(record, members);
    }
    let is_spot = |node: NodeId| spots.iter().any(|it| it.node == node);
    let mut at_hand: Vec<&Replica> = record
        .replicas
        .iter()
        .filter(|it| matches!(it.worth, Worth::Stale | Worth::Creating) && is_spot(it.node))
        .collect();
    at_hand.sort_by_key(|it| (Reverse(it.left_epoch), it.id));
    let mut fills: Vec<(Fill, String)> = at_hand
        .into_iter()
        .take(missing)
        .map(|it| {
            let why = format!("the copy on node {} lacks writes", it.node);
            (Fill::Begin(it.id), why)
        })
        .collect();
    while fills.len() < missing {
        let Some(spot) = best_spot(record, spots, size, &fills) else {
            break;
        };
        let why = format!(
            "{missing} of {} copies are missing; node {} has most room of those without one",
            record.slots, spot.node
        );
        fills.push((Fill::Add(spot.node), why));
    }
    fills
}

/// Every slot has its replica: what else there is was replaced.
fn surplus(record: &Record, members: usize) -> Vec<(Fill, String)> {
    if members < record.slots {
        return Vec::new();
    }
    let left = record
        .replicas
        .iter()
        .filter(|it| !matches!(it.worth, Worth::InSync | Worth::Syncing));
    left.map(|it| {
        let why = format!("the copy on node {} was replaced", it.node);
        (Fill::Remove(it.id), why)
    })
    .collect()
}

fn best_spot<'a>(
    record: &Record,
    spots: &'a [Spot],
    size: Bytes,
    fills: &[(Fill, String)],
) -> Option<&'a Spot> {
    let mut taken: BTreeSet<NodeId> = record.replicas.iter().map(|it| it.node).collect();
    taken.extend(fills.iter().filter_map(|(fill, _)| match fill {
        Fill::Add(node) => Some(*node),
        _ => None,
    }));
    let racks: BTreeSet<&String> = spots
        .iter()
        .filter(|it| taken.contains(&it.node))
        .filter_map(|it| it.rack.as_ref())
        .collect();
    spots
        .iter()
        .filter(|it| !taken.contains(&it.node) && it.free >= size)
        .min_by_key(|it| {
            let shares_rack = it.rack.as_ref().is_some_and(|rack| racks.contains(rack));
            (shares_rack, Reverse(it.free), it.node)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{degrade, promote};
    use crate::testing::{node, nodes, record, replica_id as r};
    use Worth::{InSync, Lost, Stale, Syncing};

    const SIZE: Bytes = Bytes::gib(1);

    fn spot(number: u64, gib: u64, rack: Option<&str>) -> Spot {
        Spot {
            node: node(number),
            free: Bytes::gib(gib),
            rack: rack.map(str::to_owned),
        }
    }

    fn fills(record: &Record, spots: &[Spot]) -> Vec<Fill> {
        let planned = plan(record, spots, SIZE);
        planned.into_iter().map(|(fill, _)| fill).collect()
    }

    #[test]
    fn a_bitmap_counts_only_while_the_owner_has_gone_on_uninterrupted() {
        let one = degrade(&record(&[InSync, InSync]), 3, &[r(2)]).unwrap();
        assert_eq!(method(&one, &one.replicas[1], true), Method::Bitmap);
        assert_eq!(method(&one, &one.replicas[1], false), Method::Full);
        let mut later = one.clone();
        later.epoch += 1;
        assert_eq!(method(&later, &later.replicas[1], true), Method::Full);
        let taken = promote(&record(&[InSync, InSync]), &nodes(&[1]), node(2)).unwrap();
        assert_eq!(method(&taken, &taken.replicas[0], true), Method::Full);
    }

    #[test]
    fn a_bitmap_of_a_replica_that_left_itself_knows_nothing() {
        let mut slots = Slots::start(3, 7, 3, &[r(1), r(2), r(3)]);
        slots.failed(r(2));
        assert!(bitmap_kept(&slots, (r(1), &"a"), Some(&"a")));
        assert!(!bitmap_kept(&slots, (r(1), &"a"), Some(&"b")));
        assert!(!bitmap_kept(&slots, (r(1), &"a"), None));
        // Its daemon runs on, but nothing is written to it any more.
        slots.vacated(r(1));
        assert!(!bitmap_kept(&slots, (r(1), &"a"), Some(&"a")));
    }

    #[test]
    fn a_copy_at_hand_is_filled_before_a_new_one_is_made() {
        let it = record(&[InSync, Stale]);
        let spots = [spot(1, 9, None), spot(2, 9, None), spot(3, 9, None)];
        assert_eq!(fills(&it, &spots), [Fill::Begin(r(2))]);
        // Its node is away: another node gets one, at once.
        assert_eq!(
            fills(&it, &[spots[0].clone(), spots[2].clone()]),
            [Fill::Add(node(3))]
        );
        let filling = record(&[InSync, Syncing]);
        assert!(fills(&filling, &spots).is_empty());
    }

    #[test]
    fn a_new_copy_goes_to_another_rack_and_where_there_is_room() {
        let it = record(&[InSync, Lost]);
        let spots = [
            spot(1, 9, Some("a")),
            spot(3, 90, Some("a")),
            spot(4, 5, Some("b")),
            spot(5, 0, Some("c")),
        ];
        assert_eq!(fills(&it, &spots), [Fill::Add(node(4))]);
        assert!(fills(&it, &spots[..1]).is_empty());
    }

    #[test]
    fn what_was_replaced_is_removed_once_every_slot_has_its_replica() {
        let mut it = record(&[InSync, Stale, InSync]);
        it.slots = 2;
        assert_eq!(fills(&it, &[]), [Fill::Remove(r(2))]);
        it.replicas[2].worth = Syncing;
        assert!(fills(&it, &[]).is_empty());
    }
}
