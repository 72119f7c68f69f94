//! The slots of a running server's disk, on its owner's node: a write is acknowledged when every
//! slot has it. Which replica leaves its slot, and when the guest may go on.
//!
//! A slot's replica leaves only when control has committed that it is no member **and** is not
//! being filled: a joined replica that failed before its joining was committed could otherwise be
//! made a member by a commit that is under way, after the guest has gone on without it.
//!
//! Keep [`Slots`] in a file and write it before acting on it: an agent that starts again must not
//! take an old word of control for a new one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use undine_model::ReplicaId;

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "replica")]
pub enum Slot {
    /// Its replica receives and flushes every write.
    Live(ReplicaId),
    /// Its replica failed: the guest stands still.
    Failed(ReplicaId),
    /// A placeholder is in it.
    Empty,
}

/// The slots of one server, and the newest of control's words about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The epoch under which the server runs here.
    pub epoch: u64,
    /// The highest version of the record that was heard of.
    pub version: u64,
    /// The slots.
    pub slots: Vec<Slot>,
}

/// What control has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The owner's epoch.
    pub epoch: u64,
    /// The record's version.
    pub version: u64,
    /// The replicas in sync.
    pub in_sync: BTreeSet<ReplicaId>,
    /// Those that are being filled.
    pub syncing: BTreeSet<ReplicaId>,
}

/// Why a word of control, or a join, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotRefusal {
    /// Another epoch.
    #[error(
        "said under epoch {said}, but the server runs here under {here}: read the record again"
    )]
    OtherEpoch {
        /// This one.
        said: u64,
        /// The one here.
        here: u64,
    },
    /// An old word.
    #[error("version {said} is older than {seen}, which was seen: read the record again")]
    OldVersion {
        /// This one.
        said: u64,
        /// The one seen.
        seen: u64,
    },
    /// No slot is empty.
    #[error("no slot is empty: a replica must leave first")]
    NoSlot,
}

impl Slots {
    /// A server starts with these replicas; the other slots get placeholders.
    pub fn start(epoch: u64, version: u64, count: usize, replicas: &[ReplicaId]) -> Self {
        let mut slots: Vec<Slot> = replicas.iter().copied().map(Slot::Live).collect();
        slots.resize(count.max(replicas.len()), Slot::Empty);
        Self {
            epoch,
            version,
            slots,
        }
    }

    /// A replica did not answer in time, or its connection broke. Tells whether that is news.
    pub fn failed(&mut self, replica: ReplicaId) -> bool {
        let mut is_news = false;
        for slot in self
            .slots
            .iter_mut()
            .filter(|it| **it == Slot::Live(replica))
        {
            *slot = Slot::Failed(replica);
            is_news = true;
        }
        is_news
    }

    /// Control has committed this: the replicas that leave now, each for a placeholder. Write
    /// `self` down, swap each out and call [`Slots::vacated`], then continue the guest if
    /// [`Slots::may_continue`].
    ///
    /// # Errors
    /// Another epoch, or an older version than was seen.
    pub fn committed(&mut self, said: &Committed) -> Result<Vec<ReplicaId>, SlotRefusal> {
        self.at_epoch(said.epoch)?;
        if said.version < self.version {
            return Err(SlotRefusal::OldVersion {
                said: said.version,
                seen: self.version,
            });
        }
        self.version = said.version;
        let stays = |it: &ReplicaId| said.in_sync.contains(it) || said.syncing.contains(it);
        Ok(self
            .replicas()
            .into_iter()
            .filter(|it| !stays(it))
            .collect())
    }

    /// A placeholder has taken this replica's place.
    pub fn vacated(&mut self, replica: ReplicaId) {
        for slot in &mut self.slots {
            if matches!(*slot, Slot::Live(it) | Slot::Failed(it) if it == replica) {
                *slot = Slot::Empty;
            }
        }
    }

    /// May a copy be started whose target will take an empty slot?
    ///
    /// # Errors
    /// Another epoch, or no slot is empty.
    pub fn may_join(&self, epoch: u64) -> Result<(), SlotRefusal> {
        self.at_epoch(epoch)?;
        let has_room = self.slots.contains(&Slot::Empty);
        has_room.then_some(()).ok_or(SlotRefusal::NoSlot)
    }

    /// The last pass is done and flushed, with the guest standing still: the replica takes an
    /// empty slot.
    ///
    /// # Errors
    /// Another epoch, or no slot is empty.
    pub fn joined(&mut self, epoch: u64, replica: ReplicaId) -> Result<(), SlotRefusal> {
        self.at_epoch(epoch)?;
        if self.is_live(replica) {
            return Ok(());
        }
        let empty = self.slots.iter_mut().find(|it| **it == Slot::Empty);
        *empty.ok_or(SlotRefusal::NoSlot)? = Slot::Live(replica);
        Ok(())
    }

    /// No slot holds a replica that failed, and one holds a replica at all.
    pub fn may_continue(&self) -> bool {
        let is_failed = |it: &Slot| matches!(it, Slot::Failed(_));
        !self.slots.iter().any(is_failed) && !self.live().is_empty()
    }

    /// Does it receive every write?
    pub fn is_live(&self, replica: ReplicaId) -> bool {
        self.slots.contains(&Slot::Live(replica))
    }

    /// The replicas that receive every write.
    pub fn live(&self) -> BTreeSet<ReplicaId> {
        let live = self.slots.iter().filter_map(|it| match it {
            Slot::Live(id) => Some(*id),
            _ => None,
        });
        live.collect()
    }

    /// The replicas that failed: control is to be asked to commit that they leave.
    pub fn failures(&self) -> BTreeSet<ReplicaId> {
        let failed = self.slots.iter().filter_map(|it| match it {
            Slot::Failed(id) => Some(*id),
            _ => None,
        });
        failed.collect()
    }

    fn replicas(&self) -> BTreeSet<ReplicaId> {
        self.live().union(&self.failures()).copied().collect()
    }

    fn at_epoch(&self, said: u64) -> Result<(), SlotRefusal> {
        let here = self.epoch;
        if said == here {
            return Ok(());
        }
        Err(SlotRefusal::OtherEpoch { said, here })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, replica_id as r};

    fn said(version: u64, in_sync: &[u64], syncing: &[u64]) -> Committed {
        Committed {
            epoch: 3,
            version,
            in_sync: ids(in_sync),
            syncing: ids(syncing),
        }
    }

    fn two() -> Slots {
        Slots::start(3, 7, 2, &[r(1), r(2)])
    }

    #[test]
    fn a_failed_replica_leaves_only_when_control_has_committed_it() {
        let mut slots = two();
        assert!(slots.may_continue());
        assert!(slots.failed(r(2)) && !slots.failed(r(2)));
        assert!(!slots.may_continue());
        assert_eq!(slots.committed(&said(7, &[1, 2], &[])), Ok(vec![]));
        assert_eq!(slots.committed(&said(8, &[1], &[])), Ok(vec![r(2)]));
        assert!(!slots.may_continue());
        slots.vacated(r(2));
        assert!(slots.may_continue());
        assert_eq!(slots.live(), ids(&[1]));
    }

    #[test]
    fn old_words_and_words_under_another_epoch_change_nothing() {
        let mut slots = two();
        slots.failed(r(2));
        let before = slots.clone();
        assert_eq!(
            slots.committed(&said(6, &[1], &[])),
            Err(SlotRefusal::OldVersion { said: 6, seen: 7 })
        );
        let foreign = Committed {
            epoch: 4,
            ..said(9, &[1], &[])
        };
        assert_eq!(
            slots.committed(&foreign),
            Err(SlotRefusal::OtherEpoch { said: 4, here: 3 })
        );
        assert_eq!(slots, before);
    }

    #[test]
    fn a_joined_replica_that_fails_before_the_commit_stays_until_it_is_said_to_leave() {
        let mut slots = Slots::start(3, 7, 2, &[r(1)]);
        slots.may_join(3).unwrap();
        slots.joined(3, r(2)).unwrap();
        slots.joined(3, r(2)).unwrap();
        assert_eq!(slots.may_join(3), Err(SlotRefusal::NoSlot));
        slots.failed(r(2));
        assert_eq!(slots.committed(&said(8, &[1], &[2])), Ok(vec![]));
        assert!(!slots.may_continue());
        assert_eq!(slots.committed(&said(9, &[1], &[])), Ok(vec![r(2)]));
    }

    #[test]
    fn a_replica_that_control_took_out_leaves_although_it_answers() {
        assert_eq!(two().committed(&said(8, &[1], &[])), Ok(vec![r(2)]));
    }

    #[test]
    fn nothing_goes_on_without_a_replica() {
        assert!(!Slots::start(3, 7, 2, &[]).may_continue());
    }

    #[test]
    fn slots_survive_their_file() {
        let mut slots = two();
        slots.failed(r(1));
        let text = serde_json::to_string(&slots).unwrap();
        assert_eq!(serde_json::from_str::<Slots>(&text).unwrap(), slots);
    }
}
