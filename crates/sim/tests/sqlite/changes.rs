//! What the simulated control does to the real store: the transactions that control makes in
//! earnest, with the same functions of the store.

use undine_failover::membership::Record;
use undine_model::lifecycle::{NodeState, OperationState};
use undine_model::{InstanceId, NodeId, OperationId, ServerId};
use undine_sim::{Change, ids};
use undine_store::{
    Db, Doubt, NEW, Node, Replica, ReplicaFilter, Result, Server, Settings, Store, StoreError, Tx,
};

use super::rows;

/// A server's copies.
pub async fn copies(db: &impl Db, server: ServerId) -> Result<Vec<Replica>> {
    let filter = ReplicaFilter {
        server: Some(server),
        ..ReplicaFilter::default()
    };
    db.replicas().all(&filter).await
}

/// A record in place of the version that was read. Tells whether it was taken.
pub async fn commit(
    store: &Store,
    server: ServerId,
    change: &Change,
    compares: bool,
    now: i64,
) -> Result<bool> {
    let tx = store.begin().await?;
    if let Some(node) = change.while_dead {
        let node = tx.nodes().lock(ids::node(node)).await?;
        if node.state != NodeState::Fenced {
            return Ok(false);
        }
    }
    let mut next = tx.servers().get(server).await?;
    if compares {
        next.version = change.base.cast_signed();
    }
    follow_server(&mut next, &change.record);
    match tx.servers().update(&next, now).await {
        Ok(_) => {}
        Err(StoreError::Stale { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    follow_copies(&tx, &change.record, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// The record follows what the nodes know, as an operator had it: above whatever a node was told.
pub async fn adopt(store: &Store, record: &Record, now: i64) -> Result<()> {
    let tx = store.begin().await?;
    let mut next = tx.servers().lock(record.server).await?;
    follow_server(&mut next, record);
    follow_copies(&tx, record, now).await?;
    clear(&tx, record.server).await?;
    tx.servers().update(&next, now).await?;
    let version = record.version.cast_signed();
    tx.servers().rise(record.server, version).await?;
    tx.commit().await
}

fn follow_server(server: &mut Server, record: &Record) {
    (server.epoch, server.node) = (record.epoch, record.owner);
    server.slots = rows::slots(record);
}

async fn follow_copies(tx: &Tx, record: &Record, now: i64) -> Result<()> {
    let stored = copies(tx, record.server).await?;
    let is_in = |copy: &&Replica| record.replicas.iter().any(|it| it.id == copy.id);
    for gone in stored.iter().filter(|copy| !is_in(copy)) {
        tx.replicas().delete(gone.id, None).await?;
    }
    for it in &record.replicas {
        let wanted = rows::copy(record, it);
        let Some(copy) = stored.iter().find(|copy| copy.id == it.id) else {
            tx.replicas().insert(&wanted).await?;
            continue;
        };
        if (copy.state, copy.left_epoch) != (wanted.state, wanted.left_epoch) {
            let version = copy.version;
            tx.replicas()
                .update(&Replica { version, ..wanted }, now)
                .await?;
        }
    }
    Ok(())
}

/// Nothing is in doubt about a server any more.
pub async fn clear(db: &impl Db, server: ServerId) -> Result<()> {
    match db.doubts().delete(server, None).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// An operator must see to a server.
pub async fn block(store: &Store, server: ServerId, why: &str, now: i64) -> Result<()> {
    let tx = store.begin().await?;
    let blocked = Some(why.to_owned());
    if let Some(doubt) = tx.doubts().find(server).await? {
        tx.doubts().update(&Doubt { blocked, ..doubt }, now).await?;
    } else {
        // Another instance, which had asked at another time, found nothing.
        let it = tx.servers().lock(server).await?;
        let doubt = Doubt {
            id: server,
            version: NEW,
            created_at: now,
            updated_at: now,
            epoch: it.epoch,
            stood: it.version,
            blocked,
        };
        tx.doubts().insert(&doubt).await?;
    }
    tx.commit().await
}

/// As control does it before a guard is told what its node owns: the node's record changes.
pub async fn confirm(store: &Store, node: NodeId, now: i64) -> Result<bool> {
    let tx = store.begin().await?;
    let found = tx.nodes().lock(node).await?;
    if found.state == NodeState::Fenced {
        return Ok(false);
    }
    tx.nodes().update(&found, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// A node is declared dead, or back, as it was read.
pub async fn fence(store: &Store, read: &Node, is_fenced: bool, now: i64) -> Result<bool> {
    let tx = store.begin().await?;
    let mut node = tx.nodes().lock(read.id).await?;
    if (node.state == NodeState::Fenced) == is_fenced || node.version != read.version {
        return Ok(false);
    }
    (node.state, node.fenced_at) = match is_fenced {
        true => (NodeState::Fenced, Some(now)),
        false => (NodeState::Ready, None),
    };
    tx.nodes().update(&node, now).await?;
    tx.commit().await?;
    Ok(true)
}

/// An instance takes the work on a server, or goes on with it.
pub async fn claim(
    store: &Store,
    id: OperationId,
    by: InstanceId,
    now: i64,
    lease_ms: i64,
) -> Result<bool> {
    match store.operations().renew_lease(id, by, now, lease_ms).await {
        Ok(()) => return Ok(true),
        Err(StoreError::LostLease(_)) => {}
        Err(error) => return Err(error),
    }
    let taken = store.operations().claim_this(id, by, now, lease_ms).await?;
    Ok(taken.is_some())
}

/// It lets the work go, if it is its own.
pub async fn release(store: &Store, id: OperationId, by: InstanceId, now: i64) -> Result<()> {
    let mut operation = store.operations().get(id).await?;
    operation.state = OperationState::Pending;
    match store.operations().save(&operation, by, &[], now).await {
        Ok(_) | Err(StoreError::LostLease(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a server's route is kept. In earnest it is not stored: it follows from the server's record.
fn route_key(server: usize) -> String {
    format!("sim.route.{server}")
}

/// The epoch of a server's route.
pub async fn route(db: &impl Db, server: usize) -> Result<u64> {
    let epoch = db.settings().get(&route_key(server)).await?;
    Ok(epoch.unwrap_or_default())
}

/// A route moves, never to a lower epoch.
pub async fn move_route(store: &Store, server: usize, epoch: u64, now: i64) -> Result<()> {
    let tx = store.begin().await?;
    if epoch > route(&tx, server).await? {
        tx.settings().put(&route_key(server), &epoch, now).await?;
    }
    tx.commit().await
}

/// A restored store begins its next life, above every one that a node may have heard of.
pub async fn begin_life(store: &Store, heard: u64) -> Result<u64> {
    let tx = store.begin().await?;
    let life = tx.life().now().await?;
    tx.life().begin(life.term, "sqlite").await?;
    tx.settings().remove(Settings::RESTORED).await?;
    tx.commit().await?;
    let term = store.life().now().await?.term;
    if term <= heard {
        store.life().rise_above(term, heard).await?;
    }
    Ok(store.life().now().await?.term)
}
