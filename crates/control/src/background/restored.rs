//! After a restore of the store: nothing is started before every node has said which epochs its
//! disks have seen. A disk that is ahead of the record blocks its server for the operator: the
//! backup is older than the server's last move (protocols, chapter 1).

use std::collections::BTreeMap;

use serde_json::json;
use undine_api::node::ReplicaStatus;
use undine_model::lifecycle::ServerState;
use undine_model::{NodeId, ServerId};
use undine_store::{Db, NodeFilter, ServerFilter, Settings, Wanted};

use crate::clock::now_ms;
use crate::control::Control;
use crate::operations::event_of;
use crate::refusal::Result;
use crate::routes::server_changed;

/// Must nothing be started yet?
pub(crate) async fn is_waiting(control: &Control) -> Result<bool> {
    Ok(control
        .store
        .settings()
        .find(Settings::RESTORED)
        .await?
        .is_some())
}

/// Asks every node, then lets go.
pub(super) async fn turn(control: &Control) -> Result<()> {
    if !is_waiting(control).await? {
        return Ok(());
    }
    let mut seen: BTreeMap<(ServerId, NodeId), u64> = BTreeMap::new();
    for node in control.store.nodes().all(&NodeFilter::default()).await? {
        let Ok(client) = control.nodes.of(&node) else {
            return Ok(());
        };
        match client.status().await {
            Ok(status) => seen.extend(epochs(node.id, &status.replicas)),
            Err(error) => {
                tracing::warn!(node = %node.name, %error, "the restored store waits for this node");
                return Ok(());
            }
        }
    }
    for server in control
        .store
        .servers()
        .all(&ServerFilter::default())
        .await?
    {
        let highest = seen
            .iter()
            .filter(|((id, _), _)| *id == server.id)
            .map(|(_, epoch)| *epoch);
        if let Some(highest) = highest.max().filter(|highest| *highest > server.epoch) {
            block(control, server.id, server.epoch, highest).await?;
        }
    }
    control.store.settings().remove(Settings::RESTORED).await?;
    tracing::info!("every node was asked after the restore; servers may start");
    Ok(())
}

fn epochs(
    node: NodeId,
    replicas: &[ReplicaStatus],
) -> impl Iterator<Item = ((ServerId, NodeId), u64)> {
    replicas
        .iter()
        .map(move |replica| ((replica.server, node), replica.epoch))
}

async fn block(control: &Control, id: ServerId, own: u64, highest: u64) -> Result<()> {
    let tx = control.store.begin().await?;
    let mut server = tx.servers().lock(id).await?;
    server.state = ServerState::Failed;
    server.wanted = Wanted::Stopped;
    let why = format!(
        "the restored record is of epoch {own}, its disk has seen epoch {highest}: the backup is \
         older than the server's last move; an operator must decide"
    );
    server.error = Some(why.clone());
    let server = tx.servers().update(&server, now_ms()).await?;
    server_changed(&tx, id).await?;
    let data = json!({"name": server.name, "error": why});
    tx.events()
        .announce(vec![event_of("server.blocked", id.uuid(), None, data)])
        .await?;
    tx.commit().await?;
    Ok(())
}
