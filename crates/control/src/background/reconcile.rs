//! Servers that should run and do not are started, on their node, when it can be heard: after a
//! crash, a reboot, or a start that failed. Each failure doubles the pause before the next try.

use undine_model::lifecycle::{NodeState, OperationState, ServerState};
use undine_store::{Db, PageRequest, Server, ServerFilter, StoreError, Wanted};

use crate::app::servers::{Wish, begin};
use crate::clock::now_ms;
use crate::control::Control;
use crate::memory::is_doubted;
use crate::operations::wake;
use crate::refusal::Result;

const FIRST_PAUSE_MS: i64 = 5_000;
const LAST_PAUSE_MS: i64 = 10 * 60_000;
/// Failures that are longer ago count no more.
const REMEMBER_MS: i64 = 3_600_000;

/// Looks at every server that is down and should be up.
pub(super) async fn turn(control: &Control) -> Result<()> {
    for state in [
        ServerState::Failed,
        ServerState::Stopped,
        ServerState::Creating,
    ] {
        let filter = ServerFilter {
            state: Some(state),
            wanted: Some(Wanted::Running),
            ..ServerFilter::default()
        };
        for server in control.store.servers().all(&filter).await? {
            if !is_doubted(&control.store, server.id).await? && due(control, &server).await? {
                start(control, &server).await?;
            }
        }
    }
    Ok(())
}

/// A server that ran ended unasked: is it started again in the same breath? Not if starts of it
/// failed lately.
pub(crate) async fn is_started_at_once(control: &Control, server: &Server) -> Result<bool> {
    if server.wanted != Wanted::Running || is_doubted(&control.store, server.id).await? {
        return Ok(false);
    }
    let past = past(control, server).await?;
    Ok(past.is_some_and(|past| past.failures == 0))
}

async fn due(control: &Control, server: &Server) -> Result<bool> {
    let Some(past) = past(control, server).await? else {
        return Ok(false);
    };
    let pause = FIRST_PAUSE_MS
        .saturating_mul(1 << past.failures.min(10))
        .min(LAST_PAUSE_MS);
    let last = past.last.unwrap_or(server.updated_at);
    Ok(now_ms() - last.max(server.updated_at) > pause)
}

/// What became of a server's operations.
struct Past {
    /// So many failed lately, the last ones in a row.
    failures: usize,
    /// When something became of one last.
    last: Option<i64>,
}

/// None when it cannot be started now: its node is not there, or something goes on.
async fn past(control: &Control, server: &Server) -> Result<Option<Past>> {
    let Some(node) = server.node else {
        return Ok(None);
    };
    let ready = control
        .store
        .nodes()
        .find(node)
        .await?
        .is_some_and(|node| matches!(node.state, NodeState::Ready | NodeState::Cordoned));
    if !ready {
        return Ok(None);
    }
    let now = now_ms();
    let past = control
        .store
        .operations()
        .of(server.id.uuid(), PageRequest::newest(12))
        .await?;
    if past
        .items
        .iter()
        .any(|it| matches!(it.state, OperationState::Pending | OperationState::Running))
    {
        return Ok(None);
    }
    let failures = past
        .items
        .iter()
        .take_while(|it| it.state == OperationState::Failed && now - it.updated_at < REMEMBER_MS)
        .count();
    let last = past.items.first().map(|it| it.updated_at);
    Ok(Some(Past { failures, last }))
}

async fn start(control: &Control, server: &Server) -> Result<()> {
    let tx = control.store.begin().await?;
    let record = match tx.servers().lock(server.id).await {
        Err(StoreError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    // Another instance was quicker, or somebody wants something else now.
    if record.version != server.version {
        return Ok(());
    }
    let why = record
        .error
        .clone()
        .unwrap_or_else(|| "it is down".to_owned());
    begin(
        control,
        &tx,
        record,
        Wish::Start,
        format!("it should run: {why}"),
    )
    .await?;
    tx.commit().await?;
    tracing::info!(server = %server.name, why, "starting a server that should run");
    wake(control);
    Ok(())
}
