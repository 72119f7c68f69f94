//! The copies of a server's disk as the store has them: who is in sync, who leaves, who takes over.
//!
//! What may change how is `undine_failover`'s to say. Every change goes through here, with the
//! server's record locked and changed in the same transaction: its version compares and sets.

use std::collections::BTreeSet;

use serde_json::json;
use undine_api::node::Committed;
use undine_failover::membership::{self, Record, Worth};
use undine_failover::scrub;
use undine_model::lifecycle::NodeState;
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_store::{
    Db, Node, NodeFilter, Replica, ReplicaFilter, ReplicaState, Server, Tx, Wanted,
};

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
    if reachable.is_empty() {
        return Ok(None);
    }
    let holders: Vec<Candidate> = candidates
        .iter()
        .filter(|it| reachable.iter().any(|copy| copy.node == it.id))
        .cloned()
        .map(|it| it.holding(needs.disk))
        .collect();
    let choice = choose(&holders, needs)?;
    Ok(Some(Heir {
        node: choice.node,
        reason: choice.reason,
    }))
}

/// A server's record as the rules see it.
pub fn record(server: &Server, copies: &[Replica]) -> Record {
    let replica = |copy: &Replica| membership::Replica {
        id: copy.id,
        node: copy.node,
        worth: worth(copy.state),
        left_epoch: copy.left_epoch,
    };
    Record {
        server: server.id,
        epoch: server.epoch,
        version: server.version.unsigned_abs(),
        owner: server.node,
        replicas: copies.iter().map(replica).collect(),
        slots: server.slots as usize,
        wanted: server.wanted == Wanted::Running,
    }
}

const fn worth(state: ReplicaState) -> Worth {
    match state {
        ReplicaState::Creating => Worth::Creating,
        ReplicaState::InSync => Worth::InSync,
        ReplicaState::Syncing => Worth::Syncing,
        ReplicaState::Stale => Worth::Stale,
        ReplicaState::Lost => Worth::Lost,
    }
}

const fn state(worth: Worth) -> ReplicaState {
    match worth {
        Worth::Creating => ReplicaState::Creating,
        Worth::InSync => ReplicaState::InSync,
        Worth::Syncing => ReplicaState::Syncing,
        Worth::Stale => ReplicaState::Stale,
        Worth::Lost => ReplicaState::Lost,
    }
}

/// Within a transaction that has locked the server: its copies become what the rules say. `why` is
/// kept with those that leave. Tells which left.
pub async fn follow(
    tx: &Tx,
    copies: &[Replica],
    next: &Record,
    why: Option<&str>,
) -> Result<Vec<ReplicaId>> {
    let now = now_ms();
    let mut left = Vec::new();
    for copy in copies {
        let Some(to) = next.replicas.iter().find(|it| it.id == copy.id) else {
            continue;
        };
        let mut copy = copy.clone();
        if (worth(copy.state), copy.left_epoch) == (to.worth, to.left_epoch)
            && (copy.epoch == next.epoch || to.worth != Worth::InSync)
        {
            continue;
        }
        let joined = matches!(copy.state, ReplicaState::InSync | ReplicaState::Syncing);
        (copy.state, copy.left_epoch) = (state(to.worth), to.left_epoch);
        match to.worth {
            Worth::InSync => (copy.epoch, copy.error, copy.left_at) = (next.epoch, None, None),
            Worth::Syncing => copy.epoch = next.epoch,
            _ if joined => {
                copy.left_at = copy.left_at.or(Some(now));
                copy.error = why.map(str::to_owned);
                left.push(copy.id);
            }
            _ => {}
        }
        tx.replicas().update(&copy, now).await?;
    }
    Ok(left)
}

/// Within a transaction that has locked the server: after an unclean end copies may differ in
/// writes that were under way; one of them counts from now on, the owner's if it can.
pub async fn settle(tx: &Tx, server: &Server) -> Result<()> {
    let copies = of(tx, server.id).await?;
    let Some(first) = in_sync(&copies, server.node).first().map(|copy| copy.id) else {
        return Ok(());
    };
    match membership::settle(&record(server, &copies), server.epoch, first) {
        Ok(next) => drop(follow(tx, &copies, &next, None).await?),
        Err(refusal) => tracing::debug!(server = %server.name, %refusal, "nothing to settle"),
    }
    Ok(())
}

/// Within a transaction that has locked the server and will write it: copies in sync beyond those
/// that it is to keep count no more. The owner's stays.
pub async fn trim(tx: &Tx, server: &Server) -> Result<()> {
    let copies = of(tx, server.id).await?;
    let members = in_sync(&copies, server.node);
    let beyond = members.iter().skip(server.replica_count.max(1) as usize);
    let beyond: Vec<ReplicaId> = beyond.map(|copy| copy.id).collect();
    if let Ok(next) = membership::degrade(&record(server, &copies), server.epoch, &beyond) {
        follow(tx, &copies, &next, Some("the server keeps fewer copies")).await?;
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
    let copies = of(tx, server.id).await?;
    match membership::degrade(&record(server, &copies), server.epoch, gone) {
        Ok(next) => left(tx, server, &copies, &next, why).await,
        Err(refusal) => {
            tracing::info!(server = %server.name, %refusal, why, "no copy leaves");
            Ok(Vec::new())
        }
    }
}

/// The same of copies that differ from the owner's: nobody knows what they lack.
pub async fn distrust(
    tx: &Tx,
    server: &Server,
    differ: &[ReplicaId],
    why: &str,
) -> Result<Vec<ReplicaId>> {
    let copies = of(tx, server.id).await?;
    match scrub::distrust(&record(server, &copies), server.epoch, differ) {
        Ok(next) => left(tx, server, &copies, &next, why).await,
        Err(refusal) => {
            tracing::info!(server = %server.name, %refusal, why, "no copy leaves");
            Ok(Vec::new())
        }
    }
}

/// The same of one whose file is gone. The last one in sync stays even then, with its fault: its
/// disk may come back.
pub async fn lose(tx: &Tx, server: &Server, gone: ReplicaId) -> Result<Vec<ReplicaId>> {
    let copies = of(tx, server.id).await?;
    match membership::lose(&record(server, &copies), gone) {
        Ok(next) => left(tx, server, &copies, &next, GONE).await,
        Err(_) => {
            let mut copy = tx.replicas().get(gone).await?;
            copy.error = Some(GONE.to_owned());
            tx.replicas().update(&copy, now_ms()).await?;
            Ok(Vec::new())
        }
    }
}

const GONE: &str = "its file is gone";

async fn left(
    tx: &Tx,
    server: &Server,
    copies: &[Replica],
    next: &Record,
    why: &str,
) -> Result<Vec<ReplicaId>> {
    let left = follow(tx, copies, next, Some(why)).await?;
    tx.servers().update(server, now_ms()).await?;
    let data = json!({"name": server.name, "replicas": left, "reason": why});
    let event = event_of("server.degraded", server.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    Ok(left)
}

/// What an owner is told: the copies in sync, and those that may be in their slots before it is
/// committed that they are. Only what is not among them may leave a slot.
pub fn told(copies: &[Replica], owner: Option<NodeId>) -> Vec<ReplicaId> {
    in_sync(copies, owner)
        .iter()
        .map(|copy| copy.id)
        .chain(syncing(copies))
        .collect()
}

/// Those that are being filled.
pub fn syncing(copies: &[Replica]) -> Vec<ReplicaId> {
    let filled = copies
        .iter()
        .filter(|copy| copy.state == ReplicaState::Syncing);
    filled.map(|copy| copy.id).collect()
}

/// What a node that opens a copy is told of all of them. Read after the server's record: whoever
/// is told of a version is told of nothing older than it.
pub async fn committed(db: &impl Db, server: &Server) -> Result<Committed> {
    let copies = of(db, server.id).await?;
    let members = in_sync(&copies, server.node);
    Ok(Committed {
        epoch: server.epoch,
        version: server.version.unsigned_abs(),
        in_sync: members.iter().map(|copy| copy.id).collect(),
    })
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
        assert_eq!(heir.node, node(3));
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
    fn an_owner_is_told_of_copies_that_may_be_in_a_slot() {
        let copies = [
            copy(1, ReplicaState::InSync),
            copy(2, ReplicaState::Syncing),
            copy(3, ReplicaState::Stale),
        ];
        assert_eq!(told(&copies, None), vec![copies[0].id, copies[1].id]);
    }

    #[test]
    fn every_state_is_the_same_there_and_back() {
        for it in ReplicaState::ALL {
            assert_eq!(state(worth(*it)), *it);
        }
    }
}
