//! When copies are compared, which ones, and what a difference means (protocols §2).
//!
//! A comparison changes nothing and stands in nobody's way. The owner's copy is what others are
//! compared with: it is the one that the server reads. One that differs leaves the replicas in
//! sync like a failed one, but nobody knows what it lacks: it is filled by a full copy alone.

use std::collections::BTreeSet;

use undine_model::{NodeId, ReplicaId, ServerId};

use crate::membership::{Change, Record, Refusal, Worth, degrade};

/// A server whose copies could be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub server: ServerId,
    /// When its copies were last compared, or made; ms since 1970.
    pub since_ms: i64,
    /// The last try failed at this time, if it did.
    pub failed_ms: Option<i64>,
    /// The nodes that would be read from.
    pub nodes: BTreeSet<NodeId>,
}

/// After a try that failed a server is left alone for so long, ms.
pub const PAUSE_MS: i64 = 3_600_000;

/// The servers whose turn it is, the longest forgotten first: no node reads for two at a time, and
/// none that is `busy`. `every_ms` is 0 for never.
pub fn due(
    candidates: &[Candidate],
    busy: &BTreeSet<NodeId>,
    every_ms: i64,
    now_ms: i64,
) -> Vec<ServerId> {
    if every_ms <= 0 {
        return Vec::new();
    }
    let is_due = |it: &&Candidate| {
        let paused = it.failed_ms.is_some_and(|at| now_ms - at < PAUSE_MS);
        !paused && now_ms - it.since_ms >= every_ms
    };
    let mut waiting: Vec<&Candidate> = candidates.iter().filter(is_due).collect();
    waiting.sort_by_key(|it| (it.since_ms, it.server));
    let mut busy = busy.clone();
    let mut chosen = Vec::new();
    for it in waiting {
        if it.nodes.is_disjoint(&busy) {
            busy.extend(&it.nodes);
            chosen.push(it.server);
        }
    }
    chosen
}

/// The copies that are compared with the owner's; none when there is nothing to compare, as when
/// the owner's own one is not in sync.
pub fn compared(record: &Record) -> Vec<ReplicaId> {
    let is_own = |node: NodeId| record.owner == Some(node);
    if !record.in_sync().any(|it| is_own(it.node)) {
        return Vec::new();
    }
    let others = record.in_sync().filter(|it| !is_own(it.node));
    let mut others: Vec<ReplicaId> = others.map(|it| it.id).collect();
    others.sort_unstable();
    others
}

/// These copies differ from the owner's, says its node under this epoch: they leave, and what they
/// lack is not known.
///
/// # Errors
/// Another epoch, no such replica, one of them is the owner's own, or all of them have left.
pub fn distrust(record: &Record, epoch: u64, differ: &[ReplicaId]) -> Change {
    for id in differ {
        let copy = record.replica(*id)?;
        if record.owner == Some(copy.node) {
            return Err(Refusal::InUse(*id));
        }
    }
    let mut next = degrade(record, epoch, differ)?;
    for it in &mut next.replicas {
        if differ.contains(&it.id) && it.worth == Worth::Stale {
            it.left_epoch = None;
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resync::{Method, method};
    use crate::testing::{node, nodes, record, replica_id as r};
    use Worth::{InSync, Stale, Syncing};

    const DAY: i64 = 86_400_000;
    const NOW: i64 = 1_000 * DAY;

    fn server(number: u8) -> ServerId {
        ServerId::from_parts(1, [number; 10])
    }

    fn candidate(number: u8, days_ago: i64, on: &[u64]) -> Candidate {
        Candidate {
            server: server(number),
            since_ms: NOW - days_ago * DAY,
            failed_ms: None,
            nodes: nodes(on),
        }
    }

    #[test]
    fn a_server_s_copies_are_compared_when_their_time_has_come_and_never_when_that_is_off() {
        let all = [candidate(1, 29, &[1, 2]), candidate(2, 30, &[3, 4])];
        let none = BTreeSet::new();
        assert_eq!(due(&all, &none, 30 * DAY, NOW), [server(2)]);
        assert!(due(&all, &none, 0, NOW).is_empty());
        assert!(due(&all, &none, 31 * DAY, NOW).is_empty());
        // A clock that went back makes nothing due.
        assert!(due(&all, &none, 30 * DAY, NOW - 40 * DAY).is_empty());
    }

    #[test]
    fn no_node_reads_for_two_servers_at_a_time_and_the_longest_forgotten_goes_first() {
        let all = [
            candidate(1, 31, &[1, 2]),
            candidate(2, 40, &[2, 3]),
            candidate(3, 35, &[4, 5]),
            candidate(4, 33, &[5, 6]),
        ];
        let none = BTreeSet::new();
        assert_eq!(due(&all, &none, 30 * DAY, NOW), [server(2), server(3)]);
        let busy = nodes(&[3]);
        assert_eq!(due(&all, &busy, 30 * DAY, NOW), [server(3), server(1)]);
    }

    #[test]
    fn a_try_that_failed_is_repeated_after_a_pause() {
        let mut one = candidate(1, 31, &[1, 2]);
        one.failed_ms = Some(NOW - PAUSE_MS + 1);
        let none = BTreeSet::new();
        assert!(due(std::slice::from_ref(&one), &none, 30 * DAY, NOW).is_empty());
        assert_eq!(due(&[one], &none, 30 * DAY, NOW + 1), [server(1)]);
    }

    #[test]
    fn the_owner_s_copy_is_what_others_are_compared_with() {
        assert_eq!(compared(&record(&[InSync, InSync, InSync])), [r(2), r(3)]);
        assert_eq!(compared(&record(&[InSync, Stale, InSync])), [r(3)]);
        assert!(compared(&record(&[InSync, Syncing])).is_empty());
        let mut elsewhere = record(&[InSync, InSync]);
        elsewhere.owner = Some(node(7));
        assert!(compared(&elsewhere).is_empty());
    }

    #[test]
    fn a_copy_that_differs_leaves_and_only_a_full_copy_brings_it_back() {
        let two = record(&[InSync, InSync, InSync]);
        let next = distrust(&two, two.epoch, &[r(2)]).unwrap();
        assert_eq!(next.version, two.version + 1);
        assert_eq!(next.in_sync_ids(), BTreeSet::from([r(1), r(3)]));
        let left = next.replica(r(2)).unwrap();
        assert_eq!((left.worth, left.left_epoch), (Stale, None));
        assert_eq!(method(&next, left, true), Method::Full);
        // One that failed in the ordinary way is known by what was written since.
        let next = degrade(&two, two.epoch, &[r(2)]).unwrap();
        assert_eq!(
            method(&next, next.replica(r(2)).unwrap(), true),
            Method::Bitmap
        );
    }

    #[test]
    fn the_owner_s_own_copy_is_never_distrusted_and_nothing_of_another_epoch_counts() {
        let two = record(&[InSync, InSync]);
        assert_eq!(
            distrust(&two, two.epoch, &[r(1)]),
            Err(Refusal::InUse(r(1)))
        );
        assert!(distrust(&two, two.epoch + 1, &[r(2)]).is_err());
        assert!(distrust(&two, two.epoch, &[r(9)]).is_err());
        let once = distrust(&two, two.epoch, &[r(2)]).unwrap();
        assert_eq!(distrust(&once, once.epoch, &[r(2)]), Err(Refusal::Already));
    }
}
