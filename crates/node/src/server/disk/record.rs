//! What is in the slots of a server's disk: pure, and kept in `servers/<server>/disk.json`.
//!
//! ```text
//!          failed              PUT slots              PUT joins          swapped in
//!   Live ─────────> Failed ─────────────────> Empty ────────────> Joining ─────────> Live
//!                                               ^── failed, cancelled ──┘
//! ```
//!
//! The first slot is the owner's own replica. It never leaves: a server whose own replica failed
//! moves to a node with another one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use undine_api::Problem;
use undine_api::node::{
    JoinMethod, JoinSpec, ReplicaTarget, SlotState, SlotStatus, SlotsSpec, StartSpec,
};
use undine_failover::slots::{self, Committed, SlotRefusal, Slots};
use undine_model::ReplicaId;
use undine_qemu::vm::SlotContent;

use crate::problems;

/// The slots of one running server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DiskRecord {
    /// The owner's epoch.
    pub epoch: u64,
    /// The highest version of the server's record that control has told.
    pub version: u64,
    /// The slots, the owner's own replica in the first.
    pub slots: Vec<Slot>,
    /// The replicas for which the bitmap of the owner's daemon holds every write that they may
    /// lack, should they leave or have left.
    pub covered: Vec<ReplicaId>,
    /// The export of the owner's daemon that the bitmap belongs to: another one covers nothing.
    pub base: String,
    /// A replica that is being copied to.
    pub joining: Option<Joining>,
    /// The VM was stopped by us for a moment, not by somebody else.
    pub holding: bool,
    /// Openings that a join has begun on: no other one may, as writes of the first might be late.
    #[serde(default)]
    pub spent: Vec<String>,
}

/// So many spent openings are remembered.
const SPENT: usize = 16;

/// One slot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Slot {
    /// The replica in it; none: a placeholder.
    pub target: Option<ReplicaTarget>,
    /// Why it failed.
    pub failed: Option<String>,
    /// It failed by what a scrub found.
    #[serde(default)]
    pub differs: bool,
    /// It still takes every write, and may yet fail by itself.
    #[serde(default)]
    pub accused: bool,
    /// When it began to take its place, microseconds since 1970; 0 since the server's start.
    #[serde(default)]
    pub since_us: i64,
}

/// A replica on its way into a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joining {
    /// Which slot.
    pub slot: usize,
    /// Which replica.
    pub target: ReplicaTarget,
}

impl DiskRecord {
    /// The slots of a server that starts: all its replicas are equal now.
    pub fn fresh(spec: &StartSpec) -> Self {
        let taken = spec.replicas.iter().map(|target| Slot {
            target: Some(target.clone()),
            ..Slot::default()
        });
        let count = (spec.slots as usize).max(spec.replicas.len());
        let empty = std::iter::repeat_with(Slot::default);
        Self {
            epoch: spec.epoch,
            version: spec.version,
            slots: taken.chain(empty).take(count).collect(),
            covered: spec.replicas.iter().map(|target| target.replica).collect(),
            base: spec
                .replicas
                .first()
                .map(|target| target.export.clone())
                .unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Corrects what a crash kept from being written down by what the disk really holds.
    pub fn seen(&mut self, contents: &[SlotContent]) {
        let joining = self.joining.take();
        for (index, content) in contents.iter().enumerate() {
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            match content {
                SlotContent::Placeholder => *slot = Slot::default(),
                SlotContent::Replica if slot.target.is_none() => {
                    let arrived = joining.as_ref().filter(|joining| joining.slot == index);
                    slot.target = arrived.map(|joining| joining.target.clone());
                    if let Some(target) = &slot.target
                        && !self.covered.contains(&target.replica)
                    {
                        self.covered.push(target.replica);
                    }
                }
                SlotContent::Replica => {}
            }
        }
    }

    /// Notes that the replica in a slot failed; tells whether that is news.
    pub fn fail(&mut self, index: usize, reason: &str) -> bool {
        match self.slots.get_mut(index) {
            Some(slot) if slot.target.is_some() && (slot.failed.is_none() || slot.accused) => {
                slot.failed.get_or_insert_with(|| reason.to_owned());
                slot.accused = false;
                true
            }
            _ => false,
        }
    }

    /// Notes that the replica of this opening was found to differ from the owner's own one. It is
    /// to leave its slot, and what it lacks is not known any more. Tells whether it was in its slot
    /// all the time, so that the finding counts: an opening that has left never comes back.
    pub fn accuse(&mut self, index: usize, export: &str, reason: &str) -> bool {
        let Some(slot) = self.slots.get_mut(index).filter(|_| index > 0) else {
            return false;
        };
        let Some(target) = slot.target.as_ref().filter(|it| it.export == export) else {
            return false;
        };
        if slot.failed.is_some() {
            return false;
        }
        let replica = target.replica;
        slot.failed = Some(reason.to_owned());
        (slot.differs, slot.accused) = (true, true);
        self.covered.retain(|covered| *covered != replica);
        true
    }

    /// The slot in which a replica lives, and its opening; never the owner's own one.
    pub fn scrubbed(&self, replica: ReplicaId) -> Option<(usize, &ReplicaTarget)> {
        let slots = self.slots.iter().enumerate().skip(1);
        let mut live = slots.filter(|(_, slot)| slot.failed.is_none());
        live.find_map(|(index, slot)| {
            let target = slot.target.as_ref()?;
            (target.replica == replica).then_some((index, target))
        })
    }

    /// The slots that what control has committed empties.
    ///
    /// # Errors
    /// It is of another epoch or older than what was seen, or the owner's own replica would leave.
    pub fn leaving(&self, spec: &SlotsSpec) -> Result<Vec<usize>, Problem> {
        let mut slots = self.slots();
        let leaving = slots.committed(&Committed {
            epoch: spec.epoch,
            version: spec.version,
            in_sync: spec.in_sync.iter().copied().collect(),
            syncing: BTreeSet::new(),
        });
        let leaving = leaving.map_err(|refusal| refused(&refusal))?;
        // One that still answers may stay until it fails: it takes every write, which harms nobody.
        let leaves = |slot: &Slot| {
            let target = slot.target.as_ref().filter(|_| slot.failed.is_some());
            target.is_some_and(|target| leaving.contains(&target.replica))
        };
        let found: Vec<usize> = (0..self.slots.len())
            .filter(|index| leaves(&self.slots[*index]))
            .collect();
        if found.first() == Some(&0) {
            return Err(Problem::new(
                409,
                "own-replica-failed",
                "The owner's own replica failed",
                "a server does not run on other nodes' replicas alone",
            )
            .field("in_sync")
            .remedy("stop the server here and start it on a node with a replica in sync"));
        }
        Ok(found)
    }

    /// The slots as the rules see them.
    fn slots(&self) -> Slots {
        let slot = |slot: &Slot| match (&slot.target, &slot.failed) {
            (Some(target), None) => slots::Slot::Live(target.replica),
            (Some(target), Some(_)) => slots::Slot::Failed(target.replica),
            (None, _) => slots::Slot::Empty,
        };
        Slots {
            epoch: self.epoch,
            version: self.version,
            slots: self.slots.iter().map(slot).collect(),
        }
    }

    /// Empties a slot; tells what was in it.
    pub fn left(&mut self, index: usize) -> Option<ReplicaTarget> {
        let slot = self.slots.get_mut(index)?;
        std::mem::take(slot).target
    }

    /// The slot that a replica gets back into.
    ///
    /// # Errors
    /// Another epoch, no free slot, or a bitmap that does not cover it.
    pub fn slot_for(&self, spec: &JoinSpec) -> Result<usize, Problem> {
        self.same_epoch(spec.epoch)?;
        let replica = spec.target.replica;
        let there = |slot: &Slot| {
            slot.target
                .as_ref()
                .is_some_and(|target| target.replica == replica)
        };
        if self.slots.iter().any(there) {
            return Err(Problem::new(
                409,
                "still-in-a-slot",
                "The replica is still in a slot",
                "an earlier opening of it has not left its slot",
            )
            .field("target")
            .remedy("commit that it is not in sync and say so (PUT slots) first"));
        }
        if spec.method == JoinMethod::Bitmap && !self.covered.contains(&replica) {
            return Err(Problem::new(
                409,
                "not-recorded",
                "What the replica lacks is not known",
                "the owner's bitmap does not hold every write since that replica was last complete",
            )
            .field("method")
            .remedy("let it join by the method full"));
        }
        let free = self.slots.iter().position(|slot| slot.target.is_none());
        free.ok_or_else(|| {
            Problem::new(
                409,
                "no-free-slot",
                "Every slot is taken",
                format!("the disk has {} slots", self.slots.len()),
            )
            .remedy("commit which replica is not in sync and say so (PUT slots) first")
        })
    }

    /// A replica begins to be copied to.
    pub fn begin(&mut self, joining: Joining) {
        self.spent.push(joining.target.export.clone());
        let old = self.spent.len().saturating_sub(SPENT);
        self.spent.drain(..old);
        self.joining = Some(joining);
    }

    /// Is what happened then a matter of a replica that was in this slot before?
    pub fn is_bygone(&self, index: usize, at_us: i64) -> bool {
        self.slots
            .get(index)
            .is_some_and(|slot| at_us < slot.since_us)
    }

    /// A replica took its slot; it began to at this time.
    pub fn joined(&mut self, joining: Joining, since_us: i64) {
        let replica = joining.target.replica;
        if let Some(slot) = self.slots.get_mut(joining.slot) {
            *slot = Slot {
                target: Some(joining.target),
                since_us,
                ..Slot::default()
            };
        }
        if !self.covered.contains(&replica) {
            self.covered.push(replica);
        }
        self.joining = None;
    }

    /// Is each slot taken by a replica that lives?
    pub fn is_complete(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| slot.target.is_some() && slot.failed.is_none())
    }

    /// Has a replica failed that has not left yet?
    pub fn has_failed(&self) -> bool {
        self.slots.iter().any(|slot| slot.failed.is_some())
    }

    /// Does the server write to no other node's replica? Not so from the moment on in which one
    /// takes its slot.
    pub fn is_local_only(&self) -> bool {
        !self.holding && self.slots.iter().skip(1).all(|slot| slot.target.is_none())
    }

    /// The exports in the slots.
    pub fn exports(&self) -> Vec<Option<String>> {
        let export = |slot: &Slot| slot.target.as_ref().map(|target| target.export.clone());
        self.slots.iter().map(export).collect()
    }

    /// How the slots stand.
    pub fn statuses(&self) -> Vec<SlotStatus> {
        let joining = |index| {
            let joining = self.joining.as_ref()?;
            (joining.slot == index).then_some(joining.target.replica)
        };
        let slots = self.slots.iter().enumerate();
        slots
            .map(|(index, slot)| match (&slot.target, joining(index)) {
                (Some(target), _) => SlotStatus {
                    replica: Some(target.replica),
                    state: if slot.failed.is_some() {
                        SlotState::Failed
                    } else {
                        SlotState::Live
                    },
                    error: slot.failed.clone(),
                    differs: slot.differs,
                },
                (None, replica) => SlotStatus {
                    replica,
                    state: if replica.is_some() {
                        SlotState::Joining
                    } else {
                        SlotState::Empty
                    },
                    error: None,
                    differs: false,
                },
            })
            .collect()
    }

    /// # Errors
    /// Another epoch.
    pub fn same_epoch(&self, epoch: u64) -> Result<(), Problem> {
        if epoch == self.epoch {
            return Ok(());
        }
        Err(problems::other_epoch(epoch, self.epoch))
    }
}

fn refused(refusal: &SlotRefusal) -> Problem {
    match refusal {
        SlotRefusal::OtherEpoch { said, here } => problems::other_epoch(*said, *here),
        SlotRefusal::OldVersion { .. } => Problem::new(
            409,
            "older-version",
            "The server's record has changed since",
            refusal.to_string(),
        )
        .field("version")
        .remedy("read the server's record again"),
        SlotRefusal::NoSlot => problems::internal(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undine_model::NodeId;

    fn id(number: u8) -> ReplicaId {
        ReplicaId::from_parts(1, [number; 10])
    }

    fn target(number: u8, incarnation: &str) -> ReplicaTarget {
        ReplicaTarget {
            node: NodeId::from_parts(1, [number; 10]),
            replica: id(number),
            export: format!("s-e3-{incarnation}"),
            address: None,
            key: None,
        }
    }

    fn pair() -> DiskRecord {
        let slot = |number| Slot {
            target: Some(target(number, "a")),
            ..Slot::default()
        };
        DiskRecord {
            epoch: 3,
            version: 5,
            slots: vec![slot(1), slot(2)],
            covered: vec![id(1), id(2)],
            ..DiskRecord::default()
        }
    }

    fn committed(version: u64, in_sync: &[u8]) -> SlotsSpec {
        SlotsSpec {
            epoch: 3,
            version,
            in_sync: in_sync.iter().map(|number| id(*number)).collect(),
            syncing: Vec::new(),
        }
    }

    fn join(number: u8, method: JoinMethod) -> JoinSpec {
        JoinSpec {
            epoch: 3,
            target: target(number, "b"),
            method,
            limit_bytes_s: 0,
        }
    }

    fn kind<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.unwrap_err().kind
    }

    #[test]
    fn only_a_failed_replica_leaves_and_only_when_control_has_committed_so() {
        let mut record = pair();
        assert_eq!(record.leaving(&committed(6, &[1])).unwrap(), [0; 0]);
        assert!(record.fail(1, "gone"));
        assert!(!record.fail(1, "again"));
        assert_eq!(record.leaving(&committed(6, &[1, 2])).unwrap(), [0; 0]);
        assert_eq!(record.leaving(&committed(6, &[1])).unwrap(), [1]);
        assert!(record.has_failed() && !record.is_complete());
        assert!(!record.is_local_only());
        record.left(1);
        assert!(!record.has_failed() && record.is_local_only());
        assert_eq!(record.statuses()[1].state, SlotState::Empty);
    }

    #[test]
    fn a_replica_that_differs_leaves_like_a_failed_one_and_comes_back_by_a_full_copy_alone() {
        let mut record = pair();
        assert_eq!(record.scrubbed(id(2)).unwrap().0, 1);
        // The owner's own replica is what others are compared with.
        assert!(record.scrubbed(id(1)).is_none());
        assert!(!record.accuse(0, "s-e3-a", "it differs"));
        assert!(record.accuse(1, "s-e3-a", "it differs"));
        assert!(record.scrubbed(id(2)).is_none());
        assert_eq!(record.statuses()[1].state, SlotState::Failed);
        assert_eq!(record.statuses()[1].error.as_deref(), Some("it differs"));
        assert_eq!(record.leaving(&committed(6, &[1])).unwrap(), [1]);
        // Should it fail before it has left, that is news.
        assert!(record.fail(1, "silent"));
        assert!(!record.fail(1, "silent"));
        let said = record.statuses().remove(1);
        assert_eq!(said.error.as_deref(), Some("it differs"));
        assert!(said.differs);
        record.left(1);
        let wish = join(2, JoinMethod::Bitmap);
        assert_eq!(kind(record.slot_for(&wish)), "not-recorded");
        assert_eq!(record.slot_for(&join(2, JoinMethod::Full)).unwrap(), 1);
    }

    #[test]
    fn what_was_found_of_an_opening_that_left_or_failed_counts_for_nothing() {
        let mut record = pair();
        assert!(!record.accuse(1, "s-e3-b", "it differs"));
        assert!(!record.accuse(7, "s-e3-a", "it differs"));
        record.fail(1, "gone");
        assert!(!record.accuse(1, "s-e3-a", "it differs"));
        assert_eq!(record.covered, [id(1), id(2)]);
        record.left(1);
        assert!(!record.accuse(1, "s-e3-a", "it differs"));
    }

    #[test]
    fn what_is_old_or_another_owner_s_is_refused() {
        let record = pair();
        assert_eq!(kind(record.leaving(&committed(4, &[1]))), "older-version");
        let other = SlotsSpec {
            epoch: 4,
            ..committed(6, &[1])
        };
        assert_eq!(kind(record.leaving(&other)), "other-epoch");
        let other = JoinSpec {
            epoch: 2,
            ..join(2, JoinMethod::Full)
        };
        assert_eq!(kind(record.slot_for(&other)), "other-epoch");
    }

    #[test]
    fn the_owner_s_own_replica_never_leaves() {
        let mut record = pair();
        record.fail(0, "disk full");
        assert_eq!(
            kind(record.leaving(&committed(6, &[2]))),
            "own-replica-failed"
        );
    }

    #[test]
    fn a_replica_joins_by_its_bitmap_only_when_that_covers_it() {
        let mut record = pair();
        let wish = join(2, JoinMethod::Bitmap);
        assert_eq!(kind(record.slot_for(&wish)), "still-in-a-slot");
        assert_eq!(
            kind(record.slot_for(&join(3, JoinMethod::Full))),
            "no-free-slot"
        );
        record.fail(1, "gone");
        record.left(1);
        assert_eq!(record.slot_for(&wish).unwrap(), 1);
        let stranger = join(3, JoinMethod::Bitmap);
        assert_eq!(kind(record.slot_for(&stranger)), "not-recorded");
        let joining = Joining {
            slot: 1,
            target: target(3, "b"),
        };
        record.begin(joining.clone());
        assert_eq!(record.spent, ["s-e3-b"]);
        assert_eq!(record.statuses()[1].state, SlotState::Joining);
        record.joined(joining, 1_000);
        assert!(record.is_bygone(1, 999) && !record.is_bygone(1, 1_000));
        assert!(!record.is_bygone(0, 1) && !record.is_bygone(9, 1));
        assert!(record.is_complete() && record.covered.contains(&id(3)));
        assert_eq!(record.statuses()[1].replica, Some(id(3)));
    }

    #[test]
    fn what_a_crash_did_not_write_down_is_read_off_the_disk() {
        use SlotContent::{Placeholder, Replica};
        // It died between the swap and its record, on the way out …
        let mut record = pair();
        record.fail(1, "gone");
        record.seen(&[Replica, Placeholder]);
        assert_eq!(record.statuses()[1].state, SlotState::Empty);
        // … and on the way in.
        record.joining = Some(Joining {
            slot: 1,
            target: target(2, "b"),
        });
        record.seen(&[Replica, Replica]);
        assert!(record.is_complete() && record.joining.is_none());
        // A copy that was under way is not a replica.
        let mut record = pair();
        record.left(1);
        record.joining = Some(Joining {
            slot: 1,
            target: target(3, "b"),
        });
        record.seen(&[Replica, Placeholder]);
        assert!(record.joining.is_none() && !record.covered.contains(&id(3)));
    }
}
