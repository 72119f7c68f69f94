//! The copies of a server's disk as the store has them: who is in sync, who leaves, who takes over.
//!
//! Every change of the copies in sync goes through here, with the server's record locked and
//! changed in the same transaction: the record's version is what compares and sets.

use std::collections::BTreeSet;

use serde_json::json;
use undine_model::lifecycle::NodeState;
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_store::{Db, Node, NodeFilter, Replica, ReplicaFilter, ReplicaState, Server, Tx};

use crate::clock::now_ms;
use crate::operations::event_of;
use crate::placement::{Candidate, choose};
use crate::refusal::Result;

/// A server's copies.
pub async fn of(db: &impl Db, server: ServerId) -> Result<Vec<Replica>> {
    let filter = ReplicaFilter {
        server: Some(server),
        ..ReplicaFilter::default()
    };
    Ok(db.replicas().all(&filter).await?)
}

/// Those that are in sync, the owner's first.
pub fn in_sync(copies: &[Replica], owner: Option<NodeId>) -> Vec<&Replica> {
    let mut found: Vec<&Replica> = copies
        .iter()
        .filter(|copy| copy.state == ReplicaState::InSync)
        .collect();
    found.sort_by_key(|copy| (Some(copy.node) != owner, copy.id));
    found
}

/// May this node own servers and hold copies that are opened now?
pub const fn is_live(state: NodeState) -> bool {
    matches!(state, NodeState::Ready | NodeState::Cordoned)
}

/// The nodes that are live, as recorded.
pub async fn live_nodes(db: &impl Db) -> Result<Vec<Node>> {
    let mut nodes = db.nodes().all(&NodeFilter::default()).await?;
    nodes.retain(|node| is_live(node.state));
    Ok(nodes)
}

/// Who takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heir {
    /// The new owner.
    pub node: NodeId,
    /// The one copy that stays in sync: after an unclean end copies may differ in writes that were
    /// under way, and only one of them may count.
    pub keep: ReplicaId,
    /// Why that one, in words.
    pub reason: String,
}

/// Chooses the new owner of a server among the live nodes with a copy in sync: a server reads its
/// own node's copy. None: there is no such node. The error: none of them has room.
pub fn heir(
    needs: &undine_api::public::Resources,
    copies: &[Replica],
    live: &BTreeSet<NodeId>,
    candidates: &[Candidate],
) -> Result<Option<Heir>, String> {
    let reachable: Vec<&Replica> = in_sync(copies, None)
        .into_iter()
        .filter(|copy| live.contains(&copy.node))
        .collect();
    let Some(any) = reachable.first() else {
        return Ok(None);
    };
    let holders: Vec<Candidate> = candidates
        .iter()
        .filter(|it| reachable.iter().any(|copy| copy.node == it.id))
        .cloned()
        .map(|it| it.holding(needs.disk))
        .collect();
    let choice = choose(&holders, needs)?;
    let own = reachable.iter().find(|copy| copy.node == choice.node);
    Ok(Some(Heir {
        node: choice.node,
        keep: own.map_or(any.id, |copy| copy.id),
        reason: choice.reason,
    }))
}

/// Within a transaction that has locked the server: only `keep` stays in sync, under this epoch.
pub async fn keep_only(tx: &Tx, server: &Server, keep: ReplicaId, epoch: u64) -> Result<()> {
    let now = now_ms();
    for mut copy in of(tx, server.id).await? {
        if copy.id == keep {
            copy.state = ReplicaState::InSync;
            copy.epoch = epoch;
            copy.error = None;
            (copy.left_epoch, copy.left_at) = (None, None);
        } else if matches!(copy.state, ReplicaState::InSync | ReplicaState::Syncing) {
            copy.state = ReplicaState::Stale;
            copy.left_epoch = None;
            copy.left_at = Some(now);
        } else {
            continue;
        }
        tx.replicas().update(&copy, now).await?;
    }
    Ok(())
}

/// Within a transaction that has locked the server: these copies are in sync no more, with the
/// reason; the last one that is stays. Tells which left; the server's version rises if any did.
pub async fn leave(
    tx: &Tx,
    server: &Server,
    gone: &[ReplicaId],
    why: &str,
) -> Result<Vec<ReplicaId>> {
    let now = now_ms();
    let copies = of(tx, server.id).await?;
    let leaving = leaving(&copies, gone);
    for id in &leaving {
        let Some(copy) = copies.iter().find(|copy| copy.id == *id) else {
            continue;
        };
        let mut copy = copy.clone();
        copy.state = ReplicaState::Stale;
        copy.left_epoch = Some(server.epoch);
        copy.left_at = Some(now);
        copy.error = Some(why.to_owned());
        tx.replicas().update(&copy, now).await?;
    }
    if !leaving.is_empty() {
        tx.servers().update(server, now).await?;
        let data = json!({"name": server.name, "replicas": leaving, "reason": why});
        let event = event_of("server.degraded", server.id.uuid(), None, data);
        tx.events().announce(vec![event]).await?;
    }
    Ok(leaving)
}

/// Those of `gone` that are in sync, unless nothing would be left: the last copy never leaves. One
/// that is being filled may be in its slot already: it leaves as well, or a commit of its joining
/// that is under way would make a member of a copy that lacks writes.
fn leaving(copies: &[Replica], gone: &[ReplicaId]) -> Vec<ReplicaId> {
    let with = |state| {
        copies
            .iter()
            .filter(move |copy| copy.state == state && gone.contains(&copy.id))
            .map(|copy| copy.id)
    };
    let mut leaving: Vec<ReplicaId> = with(ReplicaState::InSync).collect();
    if leaving.len() == in_sync(copies, None).len() {
        leaving.clear();
    }
    leaving.extend(with(ReplicaState::Syncing));
    leaving
}

/// What an owner is told: the copies in sync, and those that may be in their slots before it is
/// committed that they are. Only what is not among them may leave a slot.
pub fn told(copies: &[Replica], owner: Option<NodeId>) -> Vec<ReplicaId> {
    let syncing = copies
        .iter()
        .filter(|copy| copy.state == ReplicaState::Syncing)
        .map(|copy| copy.id);
    in_sync(copies, owner)
        .iter()
        .map(|copy| copy.id)
        .chain(syncing)
        .collect()
}

#[cfg(test)]
mod tests {
    use undine_api::public::Resources;
    use undine_model::{Bytes, MilliCpu};

    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn copy(number: u128, state: ReplicaState) -> Replica {
        Replica {
            id: ReplicaId::from_uuid(uuid::Uuid::from_u128(number)),
            version: 1,
            created_at: 0,
            updated_at: 0,
            server: ServerId::from_uuid(uuid::Uuid::from_u128(99)),
            node: node(number),
            epoch: 1,
            state,
            bytes: Bytes(0),
            left_epoch: None,
            left_at: None,
            error: None,
        }
    }

    fn candidate(number: u128, memory_mib: u64) -> Candidate {
        Candidate {
            id: node(number),
            name: format!("node-{number}").parse().unwrap(),
            total: Resources {
                cpu: MilliCpu(8_000),
                memory: Bytes::mib(memory_mib),
                disk: Bytes::gib(1),
            },
            committed: Resources::default(),
            alike: 0,
        }
    }

    fn needs() -> Resources {
        Resources {
            cpu: MilliCpu(500),
            memory: Bytes::mib(512),
            disk: Bytes::gib(10),
        }
    }

    fn heir_of(copies: &[Replica], memory: &[(u128, u64)]) -> Result<Option<Heir>, String> {
        let candidates: Vec<_> = memory.iter().map(|(n, m)| candidate(*n, *m)).collect();
        let live = candidates.iter().map(|it| it.id).collect();
        heir(&needs(), copies, &live, &candidates)
    }

    #[test]
    fn a_node_with_a_copy_in_sync_takes_over_and_never_one_with_a_stale_copy_alone() {
        let copies = [
            copy(1, ReplicaState::InSync),
            copy(2, ReplicaState::Stale),
            copy(3, ReplicaState::InSync),
        ];
        let heir = heir_of(&copies, &[(2, 9_000), (3, 1_000)])
            .unwrap()
            .unwrap();
        assert_eq!((heir.node, heir.keep), (node(3), copies[2].id));
        assert_eq!(heir_of(&copies[1..2], &[(2, 9_000)]), Ok(None));
        assert_eq!(heir_of(&copies[..1], &[(2, 9_000)]), Ok(None));
    }

    #[test]
    fn a_holder_without_room_is_named() {
        let copies = [copy(3, ReplicaState::InSync)];
        let full = heir_of(&copies, &[(2, 9_000), (3, 100)]).unwrap_err();
        assert!(full.contains("node-3 lacks memory"), "{full}");
    }

    #[test]
    fn the_last_copy_in_sync_never_leaves() {
        let copies = [copy(1, ReplicaState::InSync), copy(2, ReplicaState::InSync)];
        let (one, two) = (copies[0].id, copies[1].id);
        assert_eq!(leaving(&copies, &[one]), vec![one]);
        assert_eq!(leaving(&copies, &[one, two]), vec![]);
        assert_eq!(leaving(&copies[..1], &[one]), vec![]);
        let stale = [copy(1, ReplicaState::Stale), copy(2, ReplicaState::InSync)];
        assert_eq!(leaving(&stale, &[one]), vec![]);
        let joining = [
            copy(1, ReplicaState::InSync),
            copy(2, ReplicaState::Syncing),
        ];
        assert_eq!(leaving(&joining, &[one, two]), vec![two]);
        assert_eq!(told(&joining, None), vec![one, two]);
    }
}
