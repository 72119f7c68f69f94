//! Who boots first when many servers come up together on emulated nodes: those whose databases have
//! to recover take long in any case and keep whole cores busy meanwhile, so they let the others go
//! first, for a while (decision 20). With KVM nobody waits.

use std::time::Duration;

use undine_model::lifecycle::ServerState;
use undine_store::{DatabaseFilter, Db, Server, ServerFilter};

use super::server_failover::NAME;
use super::trouble::Outcome;
use super::work::Work;
use crate::clock::now_ms;
use crate::policy::is_emulated;

/// Nobody waits for longer than this since its operation was made.
const LONGEST_MS: i64 = 8_000;
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until it is this server's turn.
pub(super) async fn wait(work: &mut Work) -> Outcome<()> {
    let until = work.operation.created_at + LONGEST_MS;
    while now_ms() < until {
        let server = work.server().await?;
        let (node, _) = work.node_of(&server).await?;
        if !is_emulated(&node.accelerator) || !has_databases(work, &server).await? {
            return Ok(());
        }
        let Some(before) = shorter(work, &server).await? else {
            return Ok(());
        };
        work.progress(format!("lets {} start first", before.name))
            .await?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// A server without databases that is coming up elsewhere as well.
async fn shorter(work: &Work, own: &Server) -> Outcome<Option<Server>> {
    let filter = ServerFilter {
        state: Some(ServerState::Starting),
        ..ServerFilter::default()
    };
    for server in work.control.store.servers().all(&filter).await? {
        let is_other = server.id != own.id;
        if is_other && fails_over(work, &server).await? && !has_databases(work, &server).await? {
            return Ok(Some(server));
        }
    }
    Ok(None)
}

async fn fails_over(work: &Work, server: &Server) -> Outcome<bool> {
    let Some(operation) = server.operation else {
        return Ok(false);
    };
    let found = work.control.store.operations().find(operation).await?;
    Ok(found.is_some_and(|it| it.kind == NAME))
}

async fn has_databases(work: &Work, server: &Server) -> Outcome<bool> {
    let filter = DatabaseFilter {
        server: Some(server.id),
        ..DatabaseFilter::default()
    };
    Ok(work.control.store.databases().count(&filter).await? > 0)
}
