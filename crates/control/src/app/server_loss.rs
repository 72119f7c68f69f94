//! The operator accepts, in words, that a server's newest writes are lost: the last resort when no
//! copy in sync will come back.

use std::collections::BTreeSet;

use serde_json::json;
use undine_api::public::{AcceptLoss, ServerOperation};
use undine_failover::membership::accept_loss;
use undine_model::ServerId;
use undine_store::{Db, Replica, ReplicaState, Server, Tx, Wanted};

use super::caller::{Caller, Expected};
use super::servers::show;
use super::{nodes, operations};
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::fencing::{Heirs, fail_over};
use crate::memory::refuse_doubted;
use crate::operations::wake;
use crate::refusal::{Refusal, Result};

/// Goes on with a copy that lacks writes.
pub async fn accept(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
    wish: AcceptLoss,
) -> Result<ServerOperation> {
    let node = nodes::named(control, &wish.node).await?;
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(id).await?;
    expected.check("server", server.version)?;
    refuse_doubted(&tx, id).await?;
    if wish.confirm != server.name.as_str() {
        return Err(Refusal::invalid(
            "confirm",
            format!(
                "Accepting the loss of writes takes the server's name, {}, as confirmation.",
                server.name
            ),
        )
        .remedy("Make sure that no copy in sync will come back, then send its name."));
    }
    let all = copies::of(&tx, id).await?;
    needed(&tx, &server, &all).await?;
    let copy = all.iter().find(|copy| copy.node == node.id);
    let copy = usable(copy, &node)?;
    let before: Vec<_> = all
        .iter()
        .map(|copy| json!({"replica": copy.id, "node": copy.node, "state": copy.state}))
        .collect();
    // From here on it is the one that counts; what it lacks is lost.
    let reason = format!(
        "{} accepts the loss of what the copy on {} lacks",
        caller.who(),
        node.name
    );
    let record = copies::record(&server, &all);
    let next =
        accept_loss(&record, &BTreeSet::new(), copy.id, node.id, &reason).map_err(|refusal| {
            Refusal::conflict("no-copy", "That copy cannot be used", refusal.to_string())
        })?;
    copies::follow(&tx, &all, &next, Some("the operator chose another copy")).await?;
    let mut server = server;
    server.wanted = Wanted::Running;
    let server = tx.servers().update(&server, now_ms()).await?;
    let mut heirs = Heirs::read(control, &tx).await?;
    let (server, operation) = fail_over(&tx, &mut heirs, server, reason).await?;
    let data = json!({
        "name": server.name, "node": node.name, "left_at": copy.left_at, "copies": before,
    });
    caller
        .did(
            &tx,
            "server.accept_loss",
            format!("server/{id}"),
            None,
            data,
        )
        .await?;
    let shown = ServerOperation {
        server: show(&tx, server).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// Loss is accepted only where nothing else brings the server up.
async fn needed(tx: &Tx, server: &Server, all: &[Replica]) -> Result<()> {
    let live = copies::live_nodes(tx).await?;
    let there = copies::in_sync(all, None)
        .into_iter()
        .filter(|copy| copy.error.is_none())
        .any(|copy| live.iter().any(|node| node.id == copy.node));
    if !there {
        return Ok(());
    }
    Err(Refusal::conflict(
        "not-needed",
        "Nothing needs to be lost",
        format!("{} has a copy in sync on a node that answers.", server.name),
    )
    .remedy("Start it."))
}

fn usable<'a>(copy: Option<&'a Replica>, node: &undine_store::Node) -> Result<&'a Replica> {
    let live = copies::is_live(node.state);
    match copy {
        Some(copy) if live && matches!(copy.state, ReplicaState::Stale) => Ok(copy),
        Some(copy) if live => Err(Refusal::conflict(
            "no-copy",
            "That copy cannot be used",
            format!("The copy on {} is {}.", node.name, copy.state),
        )),
        Some(_) => Err(Refusal::conflict(
            "node-away",
            "The node does not answer",
            format!("{} is {}.", node.name, node.state),
        )
        .remedy("Name a node that answers.")),
        None => Err(Refusal::invalid(
            "node",
            format!("{} has no copy of the server's disk.", node.name),
        )),
    }
}
