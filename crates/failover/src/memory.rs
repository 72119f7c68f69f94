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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The highest epoch that its sidecar has seen.
    pub epoch: u64,
    /// The replica whose file is there: the store may have forgotten that it was ever made.
    pub holds: Option<ReplicaId>,
    /// The newest of control's words about the server's copies that was written down beside it.
    pub known: Option<Word>,
    /// Its replica, when that was opened under this epoch as one in sync, not to be filled.
    pub opened: Option<ReplicaId>,
    /// When it ran the server last: the slots as it wrote them down, with the newest version that
    /// it heard of. They are flushed **before** a replica leaves its slot, so that a store that
    /// forgot the commit is found out also when the owner has lost its power since.
    pub slots: Option<Slots>,
}

/// What control had committed when it said so to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The owner's epoch.
    pub epoch: u64,
    /// The record's version.
    pub version: u64,
    /// The replicas in sync.
    pub in_sync: BTreeSet<ReplicaId>,
}

impl Word {
    const fn order(&self) -> (u64, u64) {
        (self.epoch, self.version)
    }
}

/// What nodes have said of a server: none as a value says that the node knows nothing of it.
pub type Said = BTreeMap<NodeId, Option<Sighting>>;

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

/// Compares the record with what was said. `said` holds the nodes that answered, `everyone` all
/// that there are.
///
/// It suffices that the owner and the holders of copies have answered. The first change that the
/// store has forgotten was told to one of those whom it remembers: a copy that leaves, to the owner
/// before its slot was emptied; a new owner, to the copies that were opened for it. Unless the copy
/// that knew of it was itself given up since. So where one that should be in sync is not there,
/// everyone is asked.
pub fn trust(record: &Record, said: &Said, everyone: &[NodeId]) -> Trust {
    for (node, sighting) in said
        .iter()
        .filter_map(|(node, it)| Some((node, it.as_ref()?)))
    {
        if let Some(why) = knows_more(record, sighting) {
            return Trust::Blocked(format!("node {node} {why}"));
        }
    }
    let holders = record.replicas.iter().map(|it| it.node);
    let others = everyone.iter().copied().filter(|_| lacks(record, said));
    let mut silent: Vec<NodeId> = holders
        .chain(record.owner)
        .chain(others)
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

/// A copy that should be in sync is not where it should be, says its node.
fn lacks(record: &Record, said: &Said) -> bool {
    record.in_sync().any(|it| match said.get(&it.node) {
        Some(Some(sighting)) => sighting.holds != Some(it.id),
        Some(None) => true,
        None => false,
    })
}

fn knows_more(record: &Record, sighting: &Sighting) -> Option<String> {
    let known = sighting.known.as_ref();
    let stands = record.epoch;
    let seen = sighting.epoch.max(known.map_or(0, |it| it.epoch));
    if seen > stands {
        return Some(format!(
            "has seen epoch {seen}, but the store is at {stands}: {REMEDY}"
        ));
    }
    match known.filter(|it| it.epoch == stands) {
        Some(word) => other_members(record, word),
        None => {
            let slots = sighting.slots.as_ref().filter(|it| it.epoch == stands)?;
            (slots.version > record.version).then(|| {
                format!(
                    "was told version {}, but the store is at {}: {REMEDY}",
                    slots.version, record.version
                )
            })
        }
    }
}

const REMEDY: &str = "adopt what it says, or restore a newer backup";

/// The same members under a higher version are no news: whatever else was forgotten, nobody wrote
/// without one of them. Other members under the same version: the store went back and came to that
/// number by another way.
fn other_members(record: &Record, word: &Word) -> Option<String> {
    let differs = word.version >= record.version && word.in_sync != record.in_sync_ids();
    differs.then(|| {
        format!(
            "was told other copies in sync, by version {}, but the store is at {}: {REMEDY}",
            word.version, record.version
        )
    })
}

/// The operator lets the record follow what the nodes say; **every node** must have answered. Who
/// ran the server under the highest epoch that anybody has seen owns it, and exactly the replicas
/// in its live slots are in sync. Where nobody runs it under that epoch, a replica that was opened
/// under it and is among the members that were told last has every acknowledged write; nothing was
/// written since. A copy that the store has forgotten is in the record again, to be filled.
///
/// # Errors
/// No node has seen anything of it that can be told from a copy that lacks writes: one must be
/// chosen by accepting loss.
pub fn adopt(record: &Record, said: &Said) -> Change {
    let record = &recalled(record, said);
    let known = said
        .iter()
        .filter_map(|(node, it)| Some((*node, it.as_ref()?)));
    let words = || known.clone().filter_map(|(_, it)| it.known.as_ref());
    let highest = known.clone().map(|(_, it)| it.epoch);
    let highest = highest.chain(words().map(|it| it.epoch)).max().unwrap_or(0);
    let last = words().filter(|it| it.epoch == highest);
    let last = last.max_by_key(|it| it.order());
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
        let version = slots.version.max(last.map_or(0, |it| it.version));
        return follow(record, owner, (highest, version), &members);
    }
    let counts = |it: &ReplicaId| last.is_none_or(|last| last.in_sync.contains(it));
    let opened = known
        .clone()
        .filter(|(_, it)| it.epoch == highest)
        .find_map(|(node, it)| Some((node, it.opened.filter(counts)?)));
    let (owner, replica) = opened.ok_or(Refusal::NoReplica(Vec::new()))?;
    let version = last.map_or(0, |it| it.version);
    follow(
        record,
        owner,
        (highest + 1, version),
        &BTreeSet::from([replica]),
    )
}

/// The record with every copy that a node holds of it, in place of what it remembers to be there.
fn recalled(record: &Record, said: &Said) -> Record {
    let mut next = record.clone();
    for (node, sighting) in said {
        let Some(id) = sighting.as_ref().and_then(|it| it.holds) else {
            continue;
        };
        if next
            .replicas
            .iter()
            .any(|it| it.id == id && it.node == *node)
        {
            continue;
        }
        next.replicas.retain(|it| it.node != *node && it.id != id);
        next.replicas.push(Replica {
            id,
            node: *node,
            worth: Worth::Stale,
            left_epoch: None,
        });
    }
    next
}

fn follow(
    record: &Record,
    owner: NodeId,
    (epoch, version): (u64, u64),
    live: &BTreeSet<ReplicaId>,
) -> Change {
    let mut next = record.clone();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, node, record, replica_id as r};
    use Worth::{InSync, Stale};

    fn sighting(epoch: u64, slots: Option<Slots>) -> Option<Sighting> {
        Some(Sighting {
            epoch,
            slots,
            ..Sighting::default()
        })
    }

    fn holds(number: u64, epoch: u64, version: u64, members: &[u64]) -> Option<Sighting> {
        Some(Sighting {
            epoch,
            holds: Some(r(number)),
            known: Some(Word {
                epoch,
                version,
                in_sync: ids(members),
            }),
            opened: Some(r(number)),
            slots: None,
        })
    }

    const NOBODY: &[NodeId] = &[];

    #[test]
    fn a_store_that_knows_all_is_trusted_once_all_have_said_so() {
        let it = record(&[InSync, InSync]);
        let slots = Slots::start(3, 7, 2, &[r(1), r(2)]);
        let mut said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert_eq!(trust(&it, &said, NOBODY), Trust::Asking(vec![node(2)]));
        said.insert(node(2), None);
        assert_eq!(trust(&it, &said, NOBODY), Trust::Clear);
    }

    #[test]
    fn where_a_copy_in_sync_is_not_there_everyone_is_asked() {
        let it = record(&[InSync, InSync]);
        let everyone = [node(1), node(2), node(3)];
        let mut said = BTreeMap::from([
            (node(1), holds(1, 3, 7, &[1, 2])),
            (node(2), holds(2, 3, 7, &[1, 2])),
        ]);
        assert_eq!(trust(&it, &said, &everyone), Trust::Clear);
        said.insert(node(2), None);
        assert_eq!(trust(&it, &said, &everyone), Trust::Asking(vec![node(3)]));
        said.insert(node(3), holds(9, 5, 2, &[9]));
        assert!(matches!(
            trust(&it, &said, &everyone),
            Trust::Blocked(why) if why.contains("epoch 5")
        ));
    }

    #[test]
    fn a_word_beside_a_copy_tells_what_the_owner_has_forgotten_with_its_server() {
        let it = record(&[InSync, InSync]);
        // The second left, and its node never heard of it; the first stopped since.
        let mut said = BTreeMap::from([
            (node(1), holds(1, 3, 9, &[1])),
            (node(2), holds(2, 3, 7, &[1, 2])),
        ]);
        assert!(matches!(
            trust(&it, &said, NOBODY),
            Trust::Blocked(why) if why.contains("version 9")
        ));
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.owner, next.epoch), (Some(node(1)), 4));
        assert_eq!((next.version, next.in_sync_ids()), (10, ids(&[1])));
        // Nor is the other one taken when the one that counts is gone.
        said.insert(node(1), None);
        said.insert(node(3), {
            let mut word = holds(3, 3, 9, &[1]);
            if let Some(it) = &mut word {
                it.opened = None;
            }
            word
        });
        assert!(adopt(&it, &said).is_err());
    }

    #[test]
    fn other_members_of_the_same_version_block_the_server_and_the_same_of_a_higher_do_not() {
        let it = record(&[InSync, InSync]);
        let said = BTreeMap::from([
            (node(1), holds(1, it.epoch, it.version + 4, &[1, 2])),
            (node(2), holds(2, it.epoch, it.version, &[1, 2])),
        ]);
        assert_eq!(trust(&it, &said, NOBODY), Trust::Clear);
        let said = BTreeMap::from([(node(1), holds(1, it.epoch, it.version, &[1]))]);
        assert!(matches!(
            trust(&it, &said, NOBODY),
            Trust::Blocked(why) if why.contains("other copies")
        ));
    }

    #[test]
    fn a_copy_that_the_store_has_forgotten_is_recalled() {
        let it = record(&[InSync, InSync]);
        let mut runs = holds(3, 5, 12, &[3]);
        if let Some(it) = &mut runs {
            it.slots = Some(Slots::start(5, 12, 2, &[r(3)]));
        }
        let said = BTreeMap::from([
            (node(1), holds(1, 3, 7, &[1, 2])),
            (node(2), None),
            (node(3), runs),
        ]);
        let next = adopt(&it, &said).unwrap();
        assert_eq!((next.owner, next.epoch), (Some(node(3)), 5));
        assert_eq!(next.in_sync_ids(), ids(&[3]));
        assert_eq!(next.replicas.len(), 3);
    }

    #[test]
    fn a_higher_epoch_or_version_blocks_the_server() {
        let it = record(&[InSync, InSync]);
        let said = BTreeMap::from([(node(2), sighting(4, None))]);
        assert!(
            matches!(trust(&it, &said, NOBODY), Trust::Blocked(why) if why.contains("epoch 4"))
        );
        // The owner was told that the other one left; the store has forgotten it.
        let slots = Slots::start(3, 9, 2, &[r(1)]);
        let said = BTreeMap::from([(node(1), sighting(3, Some(slots)))]);
        assert!(
            matches!(trust(&it, &said, NOBODY), Trust::Blocked(why) if why.contains("version 9"))
        );
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
