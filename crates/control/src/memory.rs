//! What the store may have forgotten. A new life of it begins at its first start, after a restore,
//! when it stands behind what this instance saw of it, and when its database was promoted (the
//! store notices that one itself). From then on every server is in doubt until the nodes have said
//! what they know of it: `background::doubts` asks, an operator may let the record follow them.
//!
//! An instance belongs to the one life that it was started in. Its orders say so, nodes refuse
//! those of an earlier one, and it ends when another life has begun: whatever it had read is gone
//! with it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use undine_api::node::{Committed, NodeStatus, Phase, ReplicaState, ReplicaStatus, SlotState};
use undine_failover::memory::{Said, Sighting, Word};
use undine_failover::slots::{Slot, Slots};
use undine_model::lifecycle::NodeState;
use undine_model::{NodeId, ServerId};
use undine_store::{Db, Node, NodeFilter, Settings, Store};

use crate::control::Control;
use crate::refusal::{Refusal, Result};
use crate::state_dir::StateDir;

/// What an instance saw of the store, kept beside its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The store's term.
    pub term: u64,
    /// How far it was.
    pub mark: u64,
}

impl Seen {
    const FILE: &'static str = "store-seen.json";

    async fn now(store: &Store) -> Result<Self> {
        let term = store.life().now().await?.term;
        let mark = store.life().mark().await?;
        Ok(Self { term, mark })
    }

    /// Where a life has begun since, what was lost by then is in doubt already.
    const fn is_ahead_of(self, now: Self) -> bool {
        self.term > now.term || (self.term == now.term && self.mark > now.mark)
    }

    fn read(state: &StateDir) -> anyhow::Result<Option<Self>> {
        match std::fs::read(state.path().join(Self::FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(self, state: &StateDir) -> anyhow::Result<()> {
        state.write_private(Self::FILE, &serde_json::to_vec(&self)?)
    }
}

/// Before anything is read from the store: has it lost its memory? Then its next life begins. Dying
/// inside leaves the old life, and the next start finds out the same, or the new one.
pub async fn at_start(store: &Store, state: &StateDir) -> anyhow::Result<()> {
    let now = Seen::now(store).await?;
    if let Some(why) = forgotten(store, now, Seen::read(state)?).await? {
        tracing::warn!(why, "a new life of the store begins: its nodes are asked");
        begin(store).await?;
    }
    Seen::now(store).await?.write(state)
}

async fn forgotten(store: &Store, now: Seen, seen: Option<Seen>) -> Result<Option<&'static str>> {
    let is_restored = store.settings().find(Settings::RESTORED).await?.is_some();
    let is_first = store.life().now().await?.place.is_empty();
    Ok(if is_restored {
        Some("it was restored")
    } else if is_first {
        Some("it is its first start")
    } else if seen.is_some_and(|seen| seen.is_ahead_of(now)) {
        Some("it stands behind what this instance has seen of it")
    } else {
        None
    })
}

/// The next life begins; of several instances that come here at once, one begins it.
pub async fn begin(store: &Store) -> Result<()> {
    let tx = store.begin().await?;
    let life = tx.life().now().await?;
    let place = if life.place.is_empty() {
        store.kind()
    } else {
        &life.place
    };
    tx.life().begin(life.term, place).await?;
    tx.settings().remove(Settings::RESTORED).await?;
    Ok(tx.commit().await?)
}

/// Keeps what the store is like now, for the next start, when it has moved since `last`.
pub async fn keep(store: &Store, state: &StateDir, last: Option<Seen>) -> anyhow::Result<Seen> {
    let now = Seen::now(store).await?;
    if last != Some(now) {
        now.write(state)?;
    }
    Ok(now)
}

/// Has another life of the store begun than the one that this instance was started in?
pub async fn is_over(control: &Control) -> Result<bool> {
    Ok(control.store.life().now().await?.term != control.term)
}

/// May the store have forgotten something of this server? Then it neither moves nor starts, its
/// copies neither join nor go, and its owner is told nothing.
pub async fn is_doubted(db: &impl Db, server: ServerId) -> Result<bool> {
    Ok(db.doubts().find(server).await?.is_some()
        || db.settings().find(Settings::RESTORED).await?.is_some())
}

/// The same, as a refusal.
pub async fn refuse_doubted(db: &impl Db, server: ServerId) -> Result<()> {
    if !is_doubted(db, server).await? {
        return Ok(());
    }
    Err(Refusal::conflict(
        "in-doubt",
        "The store may have forgotten something of the server",
        "The store was restored or promoted, and what became of this server meanwhile is not known \
         for certain.",
    )
    .remedy(
        "Wait until the nodes of its copies have answered; where they know more than the store, \
         `undine server adopt` lets the record follow them.",
    ))
}

/// Every node that may know something.
pub async fn everyone(db: &impl Db) -> Result<Vec<Node>> {
    let mut nodes = db.nodes().all(&NodeFilter::default()).await?;
    nodes.retain(|node| node.state != NodeState::Removed);
    Ok(nodes)
}

/// Asks them all; who does not answer is not among the answers. Having answered, a node refuses
/// whatever was read from an earlier life of the store.
pub async fn ask(control: &Control, nodes: &[Node]) -> BTreeMap<NodeId, NodeStatus> {
    let asks = nodes.iter().map(|node| async move {
        let client = control.nodes.of(node).ok()?;
        match client.status().await {
            Ok(status) => Some((node.id, status)),
            Err(error) => {
                tracing::warn!(node = %node.name, %error, "a node does not say what it has seen");
                None
            }
        }
    });
    join_all(asks).await.into_iter().flatten().collect()
}

/// The highest term that one of them has heard above ours: of a life that the store has forgotten.
pub fn heard_above(term: u64, answers: &BTreeMap<NodeId, NodeStatus>) -> Option<u64> {
    let heard = answers.values().filter_map(|it| it.term);
    heard.max().filter(|heard| *heard > term)
}

/// What they say about one server.
pub fn said_of(server: ServerId, answers: &BTreeMap<NodeId, NodeStatus>) -> Said {
    let of = |(node, status): (&NodeId, &NodeStatus)| (*node, sighting(server, status));
    answers.iter().map(of).collect()
}

fn sighting(server: ServerId, status: &NodeStatus) -> Option<Sighting> {
    let copy = status.replicas.iter().find(|it| it.server == server);
    let ran = status.servers.iter().find(|it| it.server == server);
    let ran = ran.filter(|it| it.phase != Phase::Absent);
    if copy.is_none() && ran.is_none() {
        return None;
    }
    let known = copy.and_then(|it| it.committed.as_ref()).map(word);
    let epoch = copy.map_or(0, |it| it.epoch);
    let ran_under = ran.map_or(0, |it| it.epoch);
    let slots = ran.filter(|it| !it.slots.is_empty()).map(|ran| Slots {
        epoch: ran.epoch,
        version: known
            .as_ref()
            .filter(|it| it.epoch == ran.epoch)
            .map_or(0, |it| it.version),
        slots: ran.slots.iter().map(slot).collect(),
    });
    let opened = copy.filter(|it| it.epoch >= ran_under && was_opened(it));
    Some(Sighting {
        epoch: epoch.max(ran_under),
        holds: copy
            .filter(|it| it.state != ReplicaState::Lost)
            .map(|it| it.replica),
        known,
        opened: opened.map(|it| it.replica),
        slots,
    })
}

/// Under its epoch it was opened as one in sync. One that is stale may have been half filled:
/// unless it was told that it is in sync.
fn was_opened(copy: &ReplicaStatus) -> bool {
    let is_member = copy
        .committed
        .as_ref()
        .is_some_and(|it| it.epoch == copy.epoch && it.in_sync.contains(&copy.replica));
    match copy.state {
        ReplicaState::Open | ReplicaState::Closed => true,
        ReplicaState::Stale => is_member,
        ReplicaState::Syncing | ReplicaState::Lost => false,
    }
}

fn word(said: &Committed) -> Word {
    Word {
        epoch: said.epoch,
        version: said.version,
        in_sync: said.in_sync.iter().copied().collect::<BTreeSet<_>>(),
    }
}

fn slot(said: &undine_api::node::SlotStatus) -> Slot {
    match (said.state, said.replica) {
        (SlotState::Live, Some(replica)) => Slot::Live(replica),
        (SlotState::Failed, Some(replica)) => Slot::Failed(replica),
        _ => Slot::Empty,
    }
}

#[cfg(test)]
mod tests {
    use undine_model::{Bytes, ReplicaId};

    use super::*;

    fn copy(state: ReplicaState, members: Option<&[u8]>) -> ReplicaStatus {
        let id = |number| ReplicaId::from_parts(1, [number; 10]);
        ReplicaStatus {
            server: ServerId::from_parts(1, [9; 10]),
            replica: id(1),
            epoch: 3,
            state,
            export: None,
            address: None,
            key: None,
            size: Bytes(0),
            used: Bytes(0),
            committed: members.map(|members| Committed {
                epoch: 3,
                version: 7,
                in_sync: members.iter().map(|number| id(*number)).collect(),
            }),
        }
    }

    #[test]
    fn a_stale_copy_counts_as_opened_only_when_it_was_told_that_it_is_in_sync() {
        assert!(was_opened(&copy(ReplicaState::Closed, None)));
        assert!(was_opened(&copy(ReplicaState::Stale, Some(&[1, 2]))));
        assert!(!was_opened(&copy(ReplicaState::Stale, Some(&[2]))));
        assert!(!was_opened(&copy(ReplicaState::Stale, None)));
        assert!(!was_opened(&copy(ReplicaState::Syncing, Some(&[2]))));
    }

    #[test]
    fn what_an_instance_saw_is_ahead_of_a_store_that_went_back_within_the_same_life() {
        let seen = |term, mark| Seen { term, mark };
        assert!(seen(5, 40).is_ahead_of(seen(5, 39)));
        assert!(!seen(5, 40).is_ahead_of(seen(5, 40)));
        assert!(seen(5, 40).is_ahead_of(seen(4, 90)));
        assert!(
            !seen(5, 40).is_ahead_of(seen(6, 12)),
            "a life has begun since: its doubts are raised"
        );
    }
}
