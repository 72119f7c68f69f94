//! Servers that the store may have forgotten something of: every node is asked what it has seen
//! (protocols, chapter 1). Who agrees with the record clears it, server by server; who knows more
//! blocks that server for the operator. Each verdict is one transaction, so that two instances and
//! a crash in between change nothing about it.

use std::collections::BTreeMap;

use serde_json::json;
use undine_api::node::NodeStatus;
use undine_failover::membership::Record;
use undine_failover::memory::{Said, Trust, trust};
use undine_model::lifecycle::ServerState;
use undine_model::{NodeId, ServerId};
use undine_store::{Db, Doubt, DoubtFilter, Node, Replica, Server, Settings, StoreError, Tx};

use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::memory::{self, ask, everyone, heard_above, is_over, said_of};
use crate::operations::{event_of, wake};
use crate::refusal::Result;
use crate::routes::server_changed;

/// Asks, then judges every server that is in doubt.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let store = &control.store;
    if store.settings().find(Settings::RESTORED).await?.is_some() {
        memory::begin(store).await?;
    }
    let mut open = store.doubts().all(&DoubtFilter::default()).await?;
    open.retain(|doubt| doubt.blocked.is_none());
    // One of an earlier life asks nobody: the nodes would go on taking that life's orders.
    if open.is_empty() || is_over(control).await? {
        return Ok(());
    }
    let nodes = everyone(store).await?;
    let answers = ask(control, &nodes).await;
    control.failpoints.pass("memory/asked").await;
    if let Some(heard) = heard_above(control.term, &answers) {
        tracing::warn!(
            heard,
            "the store has forgotten a life that a node has heard of"
        );
        store.life().rise_above(control.term, heard).await?;
        return Ok(());
    }
    for doubt in open {
        judge(control, &nodes, &answers, doubt.id).await?;
        control.failpoints.pass("memory/judged").await;
    }
    Ok(())
}

/// One server, by what these have answered since this life began.
pub async fn judge(
    control: &Control,
    nodes: &[Node],
    answers: &BTreeMap<NodeId, NodeStatus>,
    id: ServerId,
) -> Result<()> {
    let tx = control.store.begin().await?;
    let server = match tx.servers().lock(id).await {
        Err(StoreError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    let Some(doubt) = tx.doubts().find(id).await? else {
        return Ok(());
    };
    let all = copies::of(&tx, id).await?;
    let (record, said) = compared(&server, &all, &doubt, said_of(id, answers));
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    match trust(&record, &said, &ids) {
        Trust::Clear => clear(control, tx, &server, &said).await,
        Trust::Blocked(why) => block(tx, server, doubt, named(&why, nodes)).await,
        Trust::Asking(silent) => {
            let silent = nodes.iter().filter(|node| silent.contains(&node.id));
            let silent: Vec<_> = silent.map(|node| node.name.to_string()).collect();
            tracing::warn!(server = %server.name, ?silent, "waits until they say what they have seen");
            Ok(())
        }
    }
}

/// The record as it stood when the doubt arose. What was changed since, no node was told; its
/// members then are not known, so they are not held against who was told of that very version.
fn compared(server: &Server, all: &[Replica], doubt: &Doubt, mut said: Said) -> (Record, Said) {
    let mut record = copies::record(server, all);
    (record.epoch, record.version) = (doubt.epoch, doubt.stood.unsigned_abs());
    if server.version != doubt.stood {
        let members = record.in_sync_ids();
        for word in said
            .values_mut()
            .flatten()
            .filter_map(|it| it.known.as_mut())
        {
            if (word.epoch, word.version) == (record.epoch, record.version) {
                word.in_sync.clone_from(&members);
            }
        }
    }
    (record, said)
}

/// Nodes are named as people know them.
fn named(why: &str, nodes: &[Node]) -> String {
    nodes.iter().fold(why.to_owned(), |why, node| {
        why.replace(&format!("node {}", node.id), node.name.as_str())
    })
}

/// The store knows everything that anybody has seen.
async fn clear(control: &Control, tx: Tx, server: &Server, said: &Said) -> Result<()> {
    let told = said.values().flatten().filter_map(|it| it.known.as_ref());
    let told = told.map(|it| it.version).max().unwrap_or_default();
    // Nodes refuse words of a lower version than they were told, whatever it was about.
    tx.servers().rise(server.id, told.cast_signed()).await?;
    tx.doubts().delete(server.id, None).await?;
    tx.commit().await?;
    tracing::info!(server = %server.name, "its nodes know no more than the store");
    wake(control);
    control.copies_due.notify_one();
    Ok(())
}

async fn block(tx: Tx, mut server: Server, mut doubt: Doubt, why: String) -> Result<()> {
    if doubt.blocked.is_some() {
        return Ok(());
    }
    let now = now_ms();
    doubt.blocked = Some(why.clone());
    tx.doubts().update(&doubt, now).await?;
    server.state = ServerState::Failed;
    server.error = Some(format!("the store has forgotten something: {why}"));
    let server = tx.servers().update(&server, now).await?;
    server_changed(&tx, server.id).await?;
    let data = json!({"name": server.name, "error": server.error});
    let event = event_of("server.blocked", server.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    tracing::error!(server = %server.name, why, "blocked: an operator must decide");
    Ok(())
}
