//! A store that lost its memory (a promoted standby that lacked commits, a restored backup) must
//! not cost data. After any such event, and at every first start, control asks **every holder of
//! a replica and every owner** what they have seen, and fails nothing over before (protocols §1).

use std::collections::BTreeMap;

use undine_model::NodeId;

use crate::membership::{Change, Record, Refusal, Worth};
use crate::slots::Slots;

/// What a node says about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The highest epoch that its sidecar has seen.
    pub epoch: u64,
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

/// The operator lets the record follow what the owner's node says: who ran the server under the
/// highest epoch that anybody has seen owns it, and exactly the replicas in its live slots are in
/// sync.
///
/// # Errors
/// Nobody ran it under the highest epoch: which copy is the newest cannot be told, so one must
/// be chosen by accepting loss.
pub fn adopt(record: &Record, said: &BTreeMap<NodeId, Option<Sighting>>) -> Change {
    let known = said
        .iter()
        .filter_map(|(node, it)| Some((*node, it.as_ref()?)));
    let highest = known.clone().map(|(_, it)| it.epoch).max().unwrap_or(0);
    let runner = known
        .filter_map(|(node, it)| Some((node, it.slots.as_ref()?)))
        .find(|(_, slots)| slots.epoch == highest && highest >= record.epoch);
    let Some((owner, slots)) = runner else {
        return Err(Refusal::NoReplica(Vec::new()));
    };
    let mut next = record.clone();
    next.version = record.version.max(slots.version) + 1;
    next.epoch = highest;
    next.owner = Some(owner);
    let live = slots.live();
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
        Some(Sighting { epoch, slots })
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
    fn when_nobody_runs_under_the_highest_epoch_nothing_is_guessed() {
        let it = record(&[InSync, InSync]);
        let zombie = Slots::start(3, 7, 2, &[r(1), r(2)]);
        let said = BTreeMap::from([
            (node(1), sighting(3, Some(zombie))),
            (node(2), sighting(4, None)),
        ]);
        assert!(adopt(&it, &said).is_err());
    }
}
