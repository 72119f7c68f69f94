//! The slots of a server's disk at its owner: a write is acknowledged when every slot has it. A
//! slot whose copy failed holds everything up until control has committed that the copy is no
//! member; only then an empty slot, which takes writes and answers no read, stands in for it.

use serde::{Deserialize, Serialize};
use undine_model::ReplicaId;

/// How a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its copy receives every write.
    Live,
    /// Its copy failed: nothing is acknowledged.
    Failed,
    /// Nothing stands in it.
    Empty,
}

/// A slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its copy; none when it is empty.
    pub replica: Option<ReplicaId>,
    /// How it stands.
    pub state: State,
}

/// What the owner's node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The empty stand-in goes into this slot.
    Empty(usize),
    /// The server goes on, if a failed write stopped it.
    Continue,
}

/// What control said belongs to another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another owner's.
    #[error("this is about epoch {asked}, the server runs under epoch {here}")]
    OtherEpoch {
        /// Control's.
        asked: u64,
        /// The server's.
        here: u64,
    },
    /// Something newer was heard already.
    #[error("version {asked} is older than version {seen}, which was heard already")]
    Older {
        /// Control's.
        asked: u64,
        /// The newest that was heard.
        seen: u64,
    },
}

/// The disk of a server that runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    epoch: u64,
    version: u64,
    slots: Vec<Slot>,
}

impl Disk {
    /// A disk of so many slots, the first ones filled; the others begin empty.
    pub fn new(epoch: u64, version: u64, replicas: &[ReplicaId], slots: usize) -> Self {
        let slots = (0..slots.max(replicas.len())).map(|at| match replicas.get(at) {
            Some(replica) => Slot {
                replica: Some(*replica),
                state: State::Live,
            },
            None => Slot {
                replica: None,
                state: State::Empty,
            },
        });
        Self {
            epoch,
            version,
            slots: slots.collect(),
        }
    }

    /// The slots, in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether a write can be acknowledged now.
    pub fn acknowledges(&self) -> bool {
        self.slots.iter().all(|slot| slot.state != State::Failed)
            && self.slots.iter().any(|slot| slot.state == State::Live)
    }

    /// A copy does not answer, or answered with an error.
    pub fn failed(&mut self, replica: ReplicaId) {
        for slot in &mut self.slots {
            if slot.replica == Some(replica) {
                slot.state = State::Failed;
            }
        }
    }

    /// A copy was filled and stands in an empty slot; none is left when this says no.
    pub fn joined(&mut self, replica: ReplicaId) -> bool {
        let empty = self
            .slots
            .iter_mut()
            .find(|slot| slot.state == State::Empty);
        let Some(slot) = empty else { return false };
        *slot = Slot {
            replica: Some(replica),
            state: State::Live,
        };
        true
    }

    /// Control has committed who the members are: failed copies that are none are let go, and the
    /// server goes on when no failed one is left. A live copy that is no member yet stays: it has
    /// just joined, and leaves by a commit like any other.
    ///
    /// # Errors
    /// It is about another owner or an older commit; nothing is done.
    pub fn committed(
        &mut self,
        epoch: u64,
        version: u64,
        members: &[ReplicaId],
    ) -> Result<Vec<Order>, Refused> {
        if epoch != self.epoch {
            return Err(Refused::OtherEpoch {
                asked: epoch,
                here: self.epoch,
            });
        }
        if version < self.version {
            return Err(Refused::Older {
                asked: version,
                seen: self.version,
            });
        }
        self.version = version;
        let mut orders = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let is_member = slot.replica.is_some_and(|id| members.contains(&id));
            if slot.state == State::Failed && !is_member {
                *slot = Slot {
                    replica: None,
                    state: State::Empty,
                };
                orders.push(Order::Empty(at));
            }
        }
        if self.acknowledges() {
            orders.push(Order::Continue);
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    fn copy(n: u8) -> ReplicaId {
        Id::from_parts(1, [n; 10])
    }

    #[test]
    fn nothing_goes_on_before_the_commit() {
        let mut disk = Disk::new(4, 7, &[copy(1), copy(2)], 2);
        assert!(disk.acknowledges());
        disk.failed(copy(2));
        assert!(!disk.acknowledges());
        let still = disk.committed(4, 7, &[copy(1), copy(2)]).unwrap();
        assert_eq!(still, [], "it is a member still");
        let orders = disk.committed(4, 8, &[copy(1)]).unwrap();
        assert_eq!(orders, [Order::Empty(1), Order::Continue]);
        assert!(disk.acknowledges());
    }

    #[test]
    fn what_is_old_or_another_owner_s_changes_nothing() {
        let mut disk = Disk::new(4, 7, &[copy(1), copy(2)], 2);
        disk.failed(copy(2));
        let before = disk.clone();
        let old = disk.committed(4, 6, &[copy(1)]);
        assert_eq!(old, Err(Refused::Older { asked: 6, seen: 7 }));
        for epoch in [3, 5] {
            assert!(disk.committed(epoch, 9, &[copy(1)]).is_err());
        }
        assert_eq!(disk, before);
    }

    #[test]
    fn a_copy_that_joined_stays_though_it_is_no_member_yet() {
        let mut disk = Disk::new(1, 1, &[copy(1)], 2);
        assert!(disk.joined(copy(2)));
        assert!(!disk.joined(copy(3)), "no slot is left");
        assert_eq!(disk.committed(1, 2, &[copy(1)]).unwrap(), [Order::Continue]);
        assert_eq!(disk.slots()[1].state, State::Live);
        disk.failed(copy(2));
        let orders = disk.committed(1, 2, &[copy(1)]).unwrap();
        assert_eq!(
            orders,
            [Order::Empty(1), Order::Continue],
            "said again after it failed"
        );
    }

    #[test]
    fn a_disk_without_a_live_copy_acknowledges_nothing() {
        let mut disk = Disk::new(1, 1, &[copy(1)], 1);
        disk.failed(copy(1));
        assert_eq!(disk.committed(1, 2, &[]).unwrap(), [Order::Empty(0)]);
        assert!(!disk.acknowledges());
    }
}
