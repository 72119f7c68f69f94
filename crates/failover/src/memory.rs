//! A store that lost its memory (a promoted standby that lacked commits, a restored backup) must
//! not cost data. After any such event, and at every first start, control asks **every holder of
//! a replica and every owner** what they have seen, and fails nothing over before (protocols §1).
//!
//! That is not enough by itself: a word of control that was read from the store before it went
//! back may still be under way (an instance that stood still, a late message) and arrive after the
//! node was asked. It would make the node do what nobody remembers. So every order of control
//! carries the [`Term`] of the store that it was read from, the asking raises the node's, and
//! orders of a lower one are refused for ever.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ReplicaId};

use crate::membership::{Change, Record, Refusal, Replica, Worth};
use crate::slots::Slots;

/// Which life of the store an order was read from: rises whenever the store may have lost its
/// memory. A node keeps the highest that it heard, written down before it answers or obeys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

/// The order was read from an earlier life of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read from the store's term {said}, but term {heard} has begun: read again")]
pub struct OldTerm {
    /// The order's.
    pub said: u64,
    /// The highest one heard.
    pub heard: u64,
}

impl Term {
    /// An order, or a question, of this term arrives. Tells whether the term is news, to be
    /// written down first.
    ///
    /// # Errors
    /// A higher term has begun: the order is refused.
    ///
    /// ```
    /// use undine_failover::memory::Term;
    /// let mut heard = Term::default();
    /// assert_eq!(heard.hear(Term(2)), Ok(true));
    /// assert_eq!(heard.hear(Term(2)), Ok(false));
    /// assert!(heard.hear(Term(1)).is_err());
    /// ```
    pub fn hear(&mut self, said: Self) -> Result<bool, OldTerm> {
        if said < *self {
            return Err(OldTerm {
                said: said.0,
                heard: self.0,
            });
        }
        let is_news = said > *self;
        *self = said;
        Ok(is_news)
    }
}

/// What a node says about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The highest epoch that its sidecar has seen.
    pub epoch: u64,
    /// The replica whose file is there: the store may have forgotten that it was ever made.
    pub holds: Option<ReplicaId>,
    /// Its replica, when that was opened under this epoch as one in sync, not to be filled.
    pub opened: Option<ReplicaId>,
    /// When it ran the server last: the slots as it wrote them down, with the newest version that
    /// it heard of. They are flushed **before** a replica leaves its slot, so that a store that
    /// forgot the commit is found out also when the owner has lost its power since.
    pub slots: Option<Slots>,
}

/// What control may do with this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The store knows everything that anybody has seen.
    Clear,
    /// These have not answered yet: nothing may be failed over or joined.
    Asking(Vec<NodeId>),
    /// Somebody has seen more than the store remembers: an operator must decide.
    Blocked(String),
}

/// Compares the record with what was said. `said` holds the nodes that answered; none as a value
/// says that the node knows nothing of the server.
pub fn trust(record: &Record, said: &BTreeMap<NodeId, Option<Sighting>>) -> Trust {
    for (node, sighting) in said
        .iter()
        .filter_map(|(node, it)| Some((node, it.as_ref()?)))
    {
        if let Some(why) = knows_more(record, sighting) {
            return Trust::Blocked(format!("node {node} {why}"));
        }
    }
    let holders = record.replicas.iter().map(|it| it.node);
    let mut silent: Vec<NodeId> = holders
        .chain(record.owner)
        .filter(|node| !said.contains_key(node))
        .collect();
    silent.sort_unstable();
    silent.dedup();
    if silent.is_empty() {
        Trust::Clear
    } else {
        Trust::Asking(silent)
    }
}

fn knows_more(record: &Record, sighting: &Sighting) -> Option<String> {
    let (seen, stands) = (sighting.epoch, record.epoch);
    if seen > stands {
        return Some(format!(
            "has seen epoch {seen}, but the store is at {stands}: adopt what it says, or restore a newer backup"
        ));
    }
    let slots = sighting.slots.as_ref().filter(|it| it.epoch == stands)?;
    (slots.version > record.version).then(|| {
        format!(
            "was told version {}, but the store is at {}: adopt what it says, or restore a newer backup",
            slots.version, record.version
        )
    })
}

/// The operator lets the record follow what the nodes say; **every node** must have answered. Who
/// ran the server under the highest epoch that anybody has seen owns it, and exactly the replicas
/// in its live slots are in sync. Where nobody has started it under that epoch yet, a replica that
/// was opened under it had every acknowledged write then, and nothing was written since.
///
/// # Errors
/// No node has seen anything of it that can be told from a copy that lacks writes: one must be
/// chosen by accepting loss.
pub fn adopt(record: &Record, said: &BTreeMap<NodeId, Option<Sighting>>) -> Change {
    let known = said
        .iter()
        .filter_map(|(node, it)| Some((*node, it.as_ref()?)));
    let highest = known.clone().map(|(_, it)| it.epoch).max().unwrap_or(0);
    if highest < record.epoch {
        return Err(Refusal::NoReplica(Vec::new()));
    }
    let runner = known
        .clone()
        .filter_map(|(node, it)| Some((node, it.slots.as_ref()?)))
        .find(|(_, slots)| slots.epoch == highest);
    if let Some((owner, slots)) = runner {
        // What has failed and was not let go has everything as well: the guest stands still.
        let live = slots.live();
        let members = if live.is_empty() {
            slots.failures()
        } else {
            live
        };
        return follow(record, said, owner, (highest, slots.version), &members);
    }
    let opened = known
        .filter(|(_, it)| it.epoch == highest)
        .find_map(|(node, it)| Some((node, it.opened?)));
    let (owner, replica) = opened.ok_or(Refusal::NoReplica(Vec::new()))?;
    let live = BTreeSet::from([replica]);
    follow(record, said, owner, (highest + 1, 0), &live)
}

fn follow(
    record: &Record,
    said: &BTreeMap<NodeId, Option<Sighting>>,
    owner: NodeId,
    (epoch, version): (u64, u64),
    live: &BTreeSet<ReplicaId>,
) -> Change {
    let mut next = record.clone();
    recall(&mut next, said, live);
    next.version = record.version.max(version) + 1;
    (next.epoch, next.owner) = (epoch, Some(owner));
    for it in &mut next.replicas {
        let worth = match it.worth {
            _ if live.contains(&it.id) => Worth::InSync,
            Worth::Lost => Worth::Lost,
            _ => Worth::Stale,
        };
        (it.worth, it.left_epoch) = (worth, None);
    }
    if next.in_sync().count() == 0 {
        return Err(Refusal::NoReplica(vec![owner]));
    }
    Ok(next)
}

/// Copies that were made after what the store remembers: each is on the node whose file it is, in
/// the place of one that the store remembers there.
fn recall(
    record: &mut Record,
    said: &BTreeMap<NodeId, Option<Sighting>>,
    live: &BTreeSet<ReplicaId>,
) {
    for id in live {
        if record.replica(*id).is_ok() {
            continue;
        }
        let holds = |it: &Option<Sighting>| it.as_ref().and_then(|it| it.holds) == Some(*id);
        let Some((node, _)) = said.iter().find(|(_, it)| holds(it)) else {
            continue;
        };
        record.replicas.retain(|it| it.node != *node);
        record.replicas.push(Replica {
            id: *id,
            node: *node,
            worth: Worth::Stale,
            left_epoch: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, node, record, replica_id as r};
    use Worth::{InSync, Stale};

    fn sighting(epoch: u64, slots: Option<Slots>) -> Option<Sighting> {
        Some(Sighting {
            epoch,
            holds: None,
            opened: None,
            slots,
        })
    }

    #[test]
    fn a_store_that_knows_all_is_trusted_once_all_have_said_so() {
        let it = record(&[InSync, InSync]);
        let slots = Slots::start(3, 7, 2, &[r(1), r(2)]);
        let mut said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert_eq!(trust(&it, &said), Trust::Asking(vec![node(2)]));
        said.insert(node(2), None);
        assert_eq!(trust(&it, &said), Trust::Clear);
    }

    #[test]
    fn a_higher_epoch_or_version_blocks_the_server() {
        let it = record(&[InSync, InSync]);
        let said = BTreeMap::from([(node(2), sighting(4, None))]);
        assert!(matches!(trust(&it, &said), Trust::Blocked(why) if why.contains("epoch 4")));
        // The owner was told that the other one left; the store has forgotten it.
        let slots = Slots::start(3, 9, 2, &[r(1)]);
        let said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert!(matches!(trust(&it, &said), Trust::Blocked(why) if why.contains("version 9")));
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.version, next.in_sync_ids()), (10, ids(&[1])));
    }

    #[test]
    fn a_forgotten_promotion_is_adopted_from_who_runs_it() {
        let it = record(&[InSync, InSync]);
        let slots = Slots::start(5, 9, 2, &[r(2)]);
        let said = BTreeMap::from([
            (
                node(1),
                sighting(3, Some(Slots::start(3, 7, 2, &[r(1), r(2)]))),
            ),
            (node(2), sighting(5, Some(slots))),
        ]);
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.owner, next.epoch), (Some(node(2)), 5));
        assert_eq!(next.replicas[0].worth, Stale);
    }

    #[test]
    fn a_copy_that_the_store_has_forgotten_is_recalled() {
        let it = record(&[InSync, InSync]);
        // Replica 9 took the place of replica 2 on its node, joined, and replica 1 left.
        let slots = Slots::start(3, 12, 2, &[r(9)]);
        let mut said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert!(adopt(&it, &said).is_err(), "nobody has it");
        said.insert(node(2), sighting(3, None));
        if let Some(Some(seen)) = said.get_mut(&node(2)) {
            seen.holds = Some(r(9));
        }
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.version, next.in_sync_ids()), (13, ids(&[9])));
        assert_eq!(next.replica(r(9)).unwrap().node, node(2));
        assert!(next.replica(r(2)).is_err(), "one copy a node");
    }

    #[test]
    fn a_replica_that_failed_and_was_not_let_go_has_everything() {
        let it = record(&[InSync, InSync]);
        let mut slots = Slots::start(3, 9, 2, &[r(2)]);
        slots.failed(r(2));
        let said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert_eq!(adopt(&it, &said).unwrap().in_sync_ids(), ids(&[2]));
    }

    #[test]
    fn a_forgotten_promotion_that_never_started_is_adopted_from_what_was_opened() {
        let it = record(&[InSync, InSync]);
        let zombie = Slots::start(3, 7, 2, &[r(1), r(2)]);
        let mut said = BTreeMap::from([
            (node(1), sighting(3, Some(zombie))),
            (node(2), sighting(4, None)),
        ]);
        // It may have been opened to be filled: nothing is guessed.
        assert!(adopt(&it, &said).is_err());
        if let Some(Some(seen)) = said.get_mut(&node(2)) {
            seen.opened = Some(r(2));
        }
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.owner, next.epoch), (Some(node(2)), 5));
        assert_eq!(next.in_sync_ids(), ids(&[2]));
    }
}
