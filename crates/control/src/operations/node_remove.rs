//! `node.remove`: a node that holds no server leaves the cluster.
//!
//! | step | does | undo |
//! |---|---|---|
//! | shut | state `removed`: its certificate counts no more | the node is cordoned again |
//! | forget | its record leaves the store | none: the last step, one transaction |

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, ReplicaFilter, ServerFilter, StoreError};

use super::new::event_of;
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::clock::now_ms;

/// A node leaves.
pub const REMOVE: Kind = Kind {
    name: "node.remove",
    steps: &[
        step!("shut", shut, undo reopen),
        step!("forget", forget, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

async fn shut(work: &mut Work) -> Outcome<()> {
    let id: NodeId = work.param("node")?;
    let tx = work.control.store.begin().await?;
    let Some(_) = tx.nodes().find(id).await? else {
        return Ok(());
    };
    let mut node = tx.nodes().lock(id).await?;
    let servers = tx
        .servers()
        .count(&ServerFilter {
            node: Some(id),
            ..ServerFilter::default()
        })
        .await?;
    let replicas = tx
        .replicas()
        .count(&ReplicaFilter {
            node: Some(id),
            ..ReplicaFilter::default()
        })
        .await?;
    if servers + replicas > 0 {
        return Err(Trouble::stop(
            format!("{} holds {servers} servers and {replicas} disks", node.name),
            "Delete or move them first.",
        ));
    }
    node.state = NodeState::Removed;
    tx.nodes().update(&node, now_ms()).await?;
    tx.commit().await?;
    Ok(())
}

async fn reopen(work: &mut Work) -> Outcome<()> {
    let id: NodeId = work.param("node")?;
    let written = work
        .control
        .store
        .nodes()
        .modify(id, now_ms(), |node| {
            if node.state == NodeState::Removed {
                node.state = NodeState::Cordoned;
            }
            Ok(())
        })
        .await;
    match written {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn forget(work: &mut Work) -> Outcome<()> {
    let id: NodeId = work.param("node")?;
    let tx = work.control.store.begin().await?;
    let Some(node) = tx.nodes().find(id).await? else {
        return Ok(());
    };
    tx.nodes().delete(id, None).await?;
    tx.metrics().forget(id.uuid()).await?;
    let data = json!({"name": node.name});
    tx.events()
        .announce(vec![event_of("node.removed", id.uuid(), None, data)])
        .await?;
    tx.commit().await?;
    Ok(())
}

/// The undo has said what there is to say.
fn failed(_: &mut Work, _: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async { Ok(()) })
}
