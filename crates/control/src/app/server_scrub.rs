//! Comparing the copies of a server's disk, because somebody asks or because it is time.

use serde_json::json;
use undine_api::public::ServerOperation;
use undine_failover::scrub;
use undine_model::ServerId;
use undine_model::lifecycle::{OperationState, ServerState};
use undine_store::{Db, Operation, PageRequest, Server, Tx};

use super::caller::{Caller, Expected};
use super::operations;
use super::servers::show;
use crate::control::Control;
use crate::copies;
use crate::memory::refuse_doubted;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

/// The operation that compares.
pub const KIND: &str = "server.scrub";

/// Compares them now.
pub async fn scrub(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
) -> Result<ServerOperation> {
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(id).await?;
    expected.check("server", server.version)?;
    let reason = format!("asked for by {}", caller.who());
    let operation = begin(&tx, &server, reason).await?;
    let data = json!({"name": server.name});
    caller
        .did(&tx, KIND, format!("server/{id}"), None, data)
        .await?;
    let shown = ServerOperation {
        server: show(&tx, server).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// Within a transaction that has locked the server: the operation is made.
pub async fn begin(tx: &Tx, server: &Server, reason: String) -> Result<Operation> {
    refuse_doubted(tx, server.id).await?;
    if server.state != ServerState::Running {
        return Err(Refusal::conflict(
            "wrong-state",
            "Not in this state",
            format!(
                "{} is {}: the copies of a disk are compared while its server runs.",
                server.name, server.state
            ),
        )
        .remedy("Start it first."));
    }
    let all = copies::of(tx, server.id).await?;
    if scrub::compared(&copies::record(server, &all)).is_empty() {
        return Err(Refusal::conflict(
            "nothing-to-compare",
            "Nothing to compare",
            format!("{} has one copy in sync, on its own node.", server.name),
        )
        .remedy("Let it have two or more copies, and wait until they are in sync."));
    }
    if let Some(id) = under_way(tx, server.id).await? {
        return Err(Refusal::conflict(
            "busy",
            "It is being compared",
            format!("The operation {KIND} ({id}) works on {} now.", server.name),
        )
        .remedy("Wait for it to end, then try again."));
    }
    let new = NewOperation {
        kind: KIND,
        subjects: vec![server.id.uuid()],
        account: None,
        params: json!({"server": server.id, "epoch": server.epoch}),
        reason,
    };
    start(tx, new).await
}

async fn under_way(tx: &Tx, server: ServerId) -> Result<Option<undine_model::OperationId>> {
    let page = PageRequest::newest(50);
    let past = tx.operations().of(server.uuid(), page).await?.items;
    let works = |it: &&Operation| {
        it.kind == KIND && matches!(it.state, OperationState::Pending | OperationState::Running)
    };
    Ok(past.iter().find(works).map(|it| it.id))
}
