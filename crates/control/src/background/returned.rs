//! Nodes that come back: what still runs there under an older epoch is stopped, disks that were
//! given up are removed, and a node that was declared dead is used again once it is clean. Servers
//! do not go back for no reason.

use std::time::{Duration, Instant};

use serde_json::json;
use undine_api::node::{NodeStatus, Phase, ServerStatus, StopSpec};
use undine_link::CallError;
use undine_model::lifecycle::NodeState;
use undine_model::{NodeId, ServerId};
use undine_store::{Db, Node, NodeFilter, Removal, RemovalFilter};

use crate::clock::now_ms;
use crate::control::Control;
use crate::copies::is_live;
use crate::memory::is_doubted;
use crate::nodes::NodeClient;
use crate::operations::event_of;
use crate::refusal::Result;

/// A leftover whose power is cut ends within this time.
const STOP: Duration = Duration::from_secs(20);
const ASK: Duration = Duration::from_millis(100);

/// Looks at nodes that were declared dead and answer again, and at disks to be removed.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let removals = control
        .store
        .removals()
        .all(&RemovalFilter::default())
        .await?;
    for node in control.store.nodes().all(&NodeFilter::default()).await? {
        let owes = removals.iter().any(|it| it.node == node.id) && is_live(node.state);
        if owes || (node.state == NodeState::Fenced && is_heard(control, &node)) {
            clean(control, &node).await?;
        }
    }
    Ok(())
}

/// Was it heard since it was declared dead?
fn is_heard(control: &Control, node: &Node) -> bool {
    let reported = node.last_report_at > node.fenced_at;
    let silence = control.heard.silence(node.id, Instant::now());
    reported || silence.is_some_and(|it| it < Duration::from_secs(1))
}

/// Cleans one node; it is used again when nothing is left to clean.
pub async fn clean(control: &Control, node: &Node) -> Result<()> {
    let Ok(client) = control.nodes.of(node) else {
        return Ok(());
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => {
            tracing::info!(node = %node.name, %error, "a node that is back does not answer yet");
            return Ok(());
        }
    };
    if !stop_leftovers(control, node.id, &client, &status).await? {
        return Ok(());
    }
    remove(control, node.id, &client).await?;
    if node.state == NodeState::Fenced {
        welcome(control, node).await?;
    }
    Ok(())
}

/// The epoch under which a server on a node is to be stopped; none when it may be there.
pub async fn leftover(
    control: &Control,
    node: NodeId,
    status: &ServerStatus,
) -> Result<Option<u64>> {
    let is_absent = matches!(status.phase, Phase::Absent);
    if is_absent || is_doubted(&control.store, status.server).await? {
        return Ok(None);
    }
    match control.store.servers().find(status.server).await? {
        // Its own epoch: should a newer run begin meanwhile, the node refuses to stop that.
        Some(server) => {
            Ok(is_left_over(server.node, server.epoch, node, status.epoch).then_some(status.epoch))
        }
        None => {
            let filter = removal_of(status.server, node);
            let removal = control.store.removals().find_by(&filter).await?;
            Ok(removal.map(|_| status.epoch))
        }
    }
}

/// It belongs to another node, or to an older epoch of this one.
fn is_left_over(owner: Option<NodeId>, epoch: u64, node: NodeId, seen: u64) -> bool {
    owner != Some(node) && seen <= epoch || seen < epoch
}

const fn removal_of(server: ServerId, node: NodeId) -> RemovalFilter {
    RemovalFilter {
        server: Some(server),
        node: Some(node),
    }
}

/// Stops what runs there and must not; false: not all of it has ended.
async fn stop_leftovers(
    control: &Control,
    node: NodeId,
    client: &NodeClient,
    status: &NodeStatus,
) -> Result<bool> {
    let mut all = true;
    for server in &status.servers {
        if let Some(epoch) = leftover(control, node, server).await? {
            tracing::info!(server = %server.server, node = %node, "a leftover is stopped");
            all &= stop(client, server.server, epoch).await;
        }
    }
    Ok(all)
}

/// Cuts its power and forgets it; the copy stays.
pub async fn stop(client: &NodeClient, server: ServerId, epoch: u64) -> bool {
    let spec = StopSpec { epoch, grace_s: 0 };
    let until = Instant::now() + STOP;
    let mut answer = client.stop(server, &spec).await;
    loop {
        match answer {
            Err(error) if is_gone(&error) => return true,
            Err(error) => {
                tracing::warn!(%server, %error, "a leftover could not be stopped");
                return false;
            }
            Ok(status)
                if matches!(status.phase, Phase::Stopped | Phase::Absent | Phase::Failed) =>
            {
                break;
            }
            Ok(_) if Instant::now() > until => return false,
            Ok(_) => tokio::time::sleep(ASK).await,
        }
        answer = client.server(server).await;
    }
    match client.forget(server, epoch).await {
        Err(error) if !is_gone(&error) => {
            tracing::warn!(%server, %error, "a leftover could not be forgotten");
            false
        }
        _ => true,
    }
}

fn is_gone(error: &CallError) -> bool {
    error.problem().is_some_and(|problem| problem.status == 404)
}

/// Removes the disks that were given up while it was away.
async fn remove(control: &Control, node: NodeId, client: &NodeClient) -> Result<()> {
    let filter = RemovalFilter {
        node: Some(node),
        ..RemovalFilter::default()
    };
    for removal in control.store.removals().all(&filter).await? {
        if is_doubted(&control.store, removal.server).await? {
            continue;
        }
        match client.remove_replica(removal.server, removal.epoch).await {
            Err(error) if !is_gone(&error) => {
                tracing::warn!(server = %removal.server, %error, "a disk could not be removed");
            }
            _ => removed(control, &removal).await?,
        }
    }
    Ok(())
}

async fn removed(control: &Control, removal: &Removal) -> Result<()> {
    use undine_store::StoreError;
    match control.store.removals().delete(removal.id, None).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// It is clean: it may be used again, as before its death.
async fn welcome(control: &Control, node: &Node) -> Result<()> {
    let tx = control.store.begin().await?;
    let mut record = tx.nodes().lock(node.id).await?;
    if record.state != NodeState::Fenced || record.fenced_at != node.fenced_at {
        return Ok(());
    }
    record.state = if record.cordoned {
        NodeState::Cordoned
    } else {
        NodeState::Ready
    };
    record.fenced_at = None;
    let record = tx.nodes().update(&record, now_ms()).await?;
    let data = json!({"name": record.name, "state": record.state});
    let event = event_of("node.returned", node.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    tracing::info!(node = %record.name, "a node is back and clean");
    control.copies_due.notify_one();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_node_owns_or_an_older_epoch_began_is_left_over() {
        let node = |number| NodeId::from_uuid(uuid::Uuid::from_u128(number));
        let here = node(1);
        let over = |owner, epoch, seen| is_left_over(owner, epoch, here, seen);
        assert!(over(Some(node(2)), 2, 1), "it moved");
        assert!(over(Some(node(2)), 2, 2));
        assert!(over(Some(here), 3, 1), "it moved away and back");
        assert!(!over(Some(here), 2, 2), "it belongs here");
        assert!(
            !over(Some(node(2)), 2, 3),
            "the record may be behind: nobody stops what is newer"
        );
    }
}
