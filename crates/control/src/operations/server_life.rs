//! `server.stop`, `server.restart` and `server.delete`.
//!
//! | step | does | undo |
//! |---|---|---|
//! | halt | the node ends the VM, asking the guest first | none: `start` brings it back |
//! | closed | state `stopped` (stop only) | none: the last step, one transaction |
//! | starting | state `starting` (restart only), then the steps of `server.start` | none: it records what follows |
//! | disk | the node removes the replica (delete only) | none: what is deleted is gone, which was asked for |
//! | forget | replicas and server leave the store (delete only) | none: the last step, one transaction |
//!
//! Routes were closed when the operation was made.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_api::node::{Phase, StopSpec};
use undine_link::CallError;
use undine_model::lifecycle::{NodeState, ServerEvent, ServerState};
use undine_model::{NodeId, ServerId};
use undine_store::{Db, Removal, ReplicaFilter, Server, StoreError};

use super::new::event_of;
use super::server_start::{boot, failed, image, mark_failed, open, replica};
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::clock::{new_id, now_ms};
use crate::copies::is_live;
use crate::routes::server_changed;

/// A server goes down.
pub const STOP: Kind = Kind {
    name: "server.stop",
    steps: &[
        step!("halt", halt, keep "start brings it back"),
        step!("closed", closed, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// A server goes down and comes up again.
pub const RESTART: Kind = Kind {
    name: "server.restart",
    steps: &[
        step!("halt", halt, keep "start brings it back"),
        step!("starting", starting, keep "it only records what follows"),
        step!("image", image, keep "images are shared and cost nothing"),
        step!("replica", replica, keep "the disk is the server's for life"),
        step!("boot", boot, keep "a VM that came up late is adopted by the next start"),
        step!("open", open, keep "the last step, one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// A server goes for good, with its disk.
pub const DELETE: Kind = Kind {
    name: "server.delete",
    steps: &[
        step!("halt", halt, keep "the server is to go"),
        step!("disk", disk, keep "what is deleted is gone"),
        step!("forget", forget, keep "the last step, one transaction"),
    ],
    failed: delete_failed,
    patience_ms: super::PATIENCE_MS,
};

/// A guest ends by itself within this time, also under emulation.
const GRACE_S: u32 = 60;
const ASK: Duration = Duration::from_millis(100);

async fn halt(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    if server.node.is_none() {
        return Ok(());
    }
    let (node, client) = work.node_of(&server).await?;
    if node.state == NodeState::Fenced {
        // What may still run there is fenced, and ended when the node comes back.
        return work.progress(format!("{} is dead", node.name)).await;
    }
    let grace_s = work.param::<Option<u32>>("grace_s")?.unwrap_or(GRACE_S);
    let spec = StopSpec {
        epoch: server.epoch,
        grace_s,
    };
    let mut answer = client.stop(server.id, &spec).await;
    let until = now_ms() + i64::from(grace_s) * 1000 + 60_000;
    loop {
        match answer {
            Err(CallError::Refused(problem)) if problem.status == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(status) => match status.phase {
                Phase::Stopped | Phase::Absent | Phase::Failed => return Ok(()),
                _ => work.progress(format!("stopping on {}", node.name)).await?,
            },
        }
        if now_ms() > until {
            return Err(Trouble::wait("the VM does not end", "It is asked again."));
        }
        tokio::time::sleep(ASK).await;
        answer = client.server(server.id).await;
    }
}

async fn closed(work: &mut Work) -> Outcome<()> {
    record(work, ServerEvent::Ended, true).await
}

async fn starting(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    if server.state == ServerState::Starting {
        return Ok(());
    }
    record(work, ServerEvent::Ended, false).await?;
    record(work, ServerEvent::Start, false).await
}

async fn record(work: &mut Work, event: ServerEvent, last: bool) -> Outcome<()> {
    let id: ServerId = work.param("server")?;
    let tx = work.control.store.begin().await?;
    let mut record = tx.servers().lock(id).await?;
    let (state, _) = record.state.on(event).map_err(|refused| {
        Trouble::stop(
            refused.to_string(),
            "Something else was wanted of the server meanwhile.",
        )
    })?;
    record.state = state;
    if last {
        record.error = None;
        record.operation = record
            .operation
            .filter(|operation| *operation != work.operation.id);
    }
    tx.servers().update(&record, now_ms()).await?;
    server_changed(&tx, id).await?;
    let kind = format!("server.{state}");
    tx.events()
        .announce(vec![event_of(
            &kind,
            id.uuid(),
            None,
            json!({"name": record.name}),
        )])
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn disk(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    let filter = ReplicaFilter {
        server: Some(server.id),
        ..ReplicaFilter::default()
    };
    for replica in work.control.store.replicas().all(&filter).await? {
        let Some(node) = work.control.store.nodes().find(replica.node).await? else {
            continue;
        };
        if !is_live(node.state) {
            remove_later(work, &server, node.id).await?;
            work.progress(format!("{} removes the disk when it is back", node.name))
                .await?;
            continue;
        }
        let client = work.control.nodes.of(&node)?;
        match client.forget(server.id, server.epoch).await {
            Err(CallError::Refused(problem)) if problem.status == 404 => {}
            other => other?,
        }
        match client.remove_replica(server.id, server.epoch).await {
            Err(CallError::Refused(problem)) if problem.status == 404 => {}
            other => other?,
        }
        work.progress(format!("{} has removed the disk", node.name))
            .await?;
    }
    Ok(())
}

/// The node is away: it removes the copy when it is back.
async fn remove_later(work: &Work, server: &Server, node: NodeId) -> Outcome<()> {
    let now = now_ms();
    let removal = Removal {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        server: server.id,
        node,
        epoch: server.epoch,
        reason: format!("{} was deleted", server.name),
    };
    match work.control.store.removals().insert(&removal).await {
        // Written before a crash of this instance.
        Err(StoreError::Taken { .. }) => Ok(()),
        other => Ok(other?),
    }
}

async fn forget(work: &mut Work) -> Outcome<()> {
    let id: ServerId = work.param("server")?;
    let tx = work.control.store.begin().await?;
    let Some(server) = tx.servers().find(id).await? else {
        return Ok(());
    };
    let filter = ReplicaFilter {
        server: Some(id),
        ..ReplicaFilter::default()
    };
    for replica in tx.replicas().all(&filter).await? {
        tx.replicas().delete(replica.id, None).await?;
    }
    tx.servers().delete(id, None).await?;
    tx.metrics().forget(id.uuid()).await?;
    let data = json!({"name": server.name});
    tx.events()
        .announce(vec![event_of("server.deleted", id.uuid(), None, data)])
        .await?;
    tx.commit().await?;
    Ok(())
}

fn delete_failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let id = work.param("server")?;
        mark_failed(work, id, detail).await
    })
}
