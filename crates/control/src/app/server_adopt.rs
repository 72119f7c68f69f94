//! The operator lets the record of a server follow what its nodes know: the store has forgotten
//! what became of it (a restored backup, a promoted standby that lacked commits).

use std::collections::BTreeMap;

use serde_json::json;
use undine_api::node::{NodeStatus, Phase};
use undine_api::public::{Adopt, Server as Shown};
use undine_failover::membership::{Record, Worth};
use undine_failover::memory::adopt;
use undine_model::lifecycle::ServerState;
use undine_model::{Bytes, NodeId, ServerId};
use undine_store::{
    Db, NEW, Node, RemovalFilter, Replica, ReplicaState, Server, StoreError, Tx, Wanted,
};

use super::caller::{Caller, Expected};
use super::servers::show;
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::fencing::{Heirs, fail_over, supersede};
use crate::memory::{ask, everyone, heard_above, is_over, said_of};
use crate::operations::{event_of, wake};
use crate::refusal::{Refusal, Result};
use crate::routes::server_changed;

/// The record follows the nodes.
pub async fn accept(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
    wish: Adopt,
) -> Result<Shown> {
    let server = control.store.servers().get(id).await?;
    confirmed(&server, &wish)?;
    in_doubt(&control.store, &server).await?;
    let answers = answers(control, &wish).await?;
    control.failpoints.pass("memory/adopt").await;
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(id).await?;
    expected.check("server", server.version)?;
    in_doubt(&tx, &server).await?;
    let before = json!({"epoch": server.epoch, "node": server.node});
    let server = adopt_in(control, &tx, server, &answers).await?;
    let data = json!({
        "name": server.name, "epoch": server.epoch, "node": server.node,
        "version": server.version, "without": wish.without, "before": before,
    });
    let subject = format!("server/{id}");
    caller
        .did(&tx, "server.adopt", subject, None, data.clone())
        .await?;
    let event = event_of("server.adopted", id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    let shown = show(&tx, server).await?;
    tx.commit().await?;
    wake(control);
    control.copies_due.notify_one();
    Ok(shown)
}

fn confirmed(server: &Server, wish: &Adopt) -> Result<()> {
    if wish.confirm == server.name.as_str() {
        return Ok(());
    }
    Err(Refusal::invalid(
        "confirm",
        format!(
            "Adopting what the nodes know takes the server's name, {}, as confirmation.",
            server.name
        ),
    )
    .remedy("Make sure that no newer backup of the store can be restored, then send its name."))
}

async fn in_doubt(db: &impl Db, server: &Server) -> Result<()> {
    if db.doubts().find(server.id).await?.is_some() {
        return Ok(());
    }
    Err(Refusal::conflict(
        "not-in-doubt",
        "Nothing is to be adopted",
        format!(
            "The store and the nodes agree about {}, as far as is known.",
            server.name
        ),
    ))
}

/// What every node says, but those that the operator goes on without.
async fn answers(control: &Control, wish: &Adopt) -> Result<BTreeMap<NodeId, NodeStatus>> {
    let nodes = everyone(&control.store).await?;
    let is_named =
        |node: &Node, text: &String| text == node.name.as_str() || *text == node.id.to_string();
    if let Some(unknown) = wish
        .without
        .iter()
        .find(|text| !nodes.iter().any(|node| is_named(node, text)))
    {
        return Err(Refusal::invalid(
            "without",
            format!("There is no node {unknown}."),
        ));
    }
    let answers = ask(control, &nodes).await;
    if is_over(control).await? || heard_above(control.term, &answers).is_some() {
        return Err(Refusal::conflict(
            "store-changed",
            "The store has begun a new life",
            "This instance of control was started before that.",
        )
        .remedy("Try again in a few seconds."));
    }
    let silent = nodes.iter().filter(|node| !answers.contains_key(&node.id));
    let silent = silent.filter(|node| !wish.without.iter().any(|text| is_named(node, text)));
    let silent: Vec<String> = silent.map(|node| node.name.to_string()).collect();
    if silent.is_empty() {
        return Ok(answers);
    }
    let all = silent.join(", ");
    Err(Refusal::conflict(
        "node-away",
        "Not every node has answered",
        format!("{all} may know more than the others."),
    )
    .remedy(
        "Bring them back and try again; or name them in `without`: what they alone know is lost then.",
    ))
}

fn nothing(server: &Server) -> Refusal {
    Refusal::conflict(
        "no-copy",
        "No copy can be adopted",
        format!(
            "No node has a copy of {} that surely has every acknowledged write.",
            server.name
        ),
    )
    .remedy("Restore a newer backup of the store, or bring back the nodes that are away.")
}

/// Within a transaction that has locked the server: its record follows what these have answered
/// since this life began, which is everybody who may know something.
pub async fn adopt_in(
    control: &Control,
    tx: &Tx,
    server: Server,
    answers: &BTreeMap<NodeId, NodeStatus>,
) -> Result<Server> {
    let all = copies::of(tx, server.id).await?;
    let said = said_of(server.id, answers);
    let next = adopt(&copies::record(&server, &all), &said).map_err(|_| nothing(&server))?;
    follow(control, tx, server, &all, &next, answers).await
}

/// Record, copies and doubt change together.
async fn follow(
    control: &Control,
    tx: &Tx,
    server: Server,
    all: &[Replica],
    next: &Record,
    answers: &BTreeMap<NodeId, NodeStatus>,
) -> Result<Server> {
    supersede(tx, &server, "an operator adopted what the nodes know").await?;
    recall(tx, &server, all, next).await?;
    let all = copies::of(tx, server.id).await?;
    copies::follow(tx, &all, next, Some("the store had forgotten how it stood")).await?;
    let running = next.owner.and_then(|owner| {
        let mut servers = answers.get(&owner)?.servers.iter();
        let is_it = |it: &&undine_api::node::ServerStatus| {
            it.server == server.id && it.epoch == next.epoch && it.phase == Phase::Running
        };
        servers.find(is_it)
    });
    let mut server = server;
    (server.epoch, server.node, server.operation) = (next.epoch, next.owner, None);
    // Somebody has opened it: its disk is not made anew.
    (server.blank, server.error) = (false, None);
    server.reason = "an operator adopted what the nodes know".to_owned();
    server.state = match running {
        Some(_) => ServerState::Running,
        None => ServerState::Failed,
    };
    if let Some(running) = running {
        server.slots = u32::try_from(running.slots.len())
            .unwrap_or(server.slots)
            .max(1);
        server.wanted = Wanted::Running;
    }
    tx.doubts().delete(server.id, None).await?;
    tx.servers().update(&server, now_ms()).await?;
    // Above whatever a node was told.
    tx.servers()
        .rise(server.id, next.version.cast_signed())
        .await?;
    server_changed(tx, server.id).await?;
    let server = tx.servers().get(server.id).await?;
    if server.state == ServerState::Failed && server.wanted == Wanted::Running {
        // What an earlier epoch may still run there is ended first.
        let (why, mut heirs) = (server.reason.clone(), Heirs::read(control, tx).await?);
        return Ok(fail_over(tx, &mut heirs, server, why).await?.0);
    }
    Ok(server)
}

/// Copies that the store had forgotten are in the record again, and those that it remembered in
/// their place are not; nor is any of them to be removed.
async fn recall(tx: &Tx, server: &Server, all: &[Replica], next: &Record) -> Result<()> {
    let is_in = |copy: &Replica| next.replicas.iter().any(|it| it.id == copy.id);
    for gone in all.iter().filter(|copy| !is_in(copy)) {
        tx.replicas().delete(gone.id, None).await?;
    }
    let filter = RemovalFilter {
        server: Some(server.id),
        ..RemovalFilter::default()
    };
    for removal in tx.removals().all(&filter).await? {
        if next.replicas.iter().any(|it| it.node == removal.node) {
            match tx.removals().delete(removal.id, None).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let now = now_ms();
    for it in &next.replicas {
        if all.iter().any(|copy| copy.id == it.id) {
            continue;
        }
        let copy = Replica {
            id: it.id,
            version: NEW,
            created_at: now,
            updated_at: now,
            server: server.id,
            node: it.node,
            epoch: next.epoch,
            state: match it.worth {
                Worth::InSync => ReplicaState::InSync,
                _ => ReplicaState::Stale,
            },
            bytes: Bytes(0),
            left_epoch: None,
            left_at: None,
            error: None,
        };
        tx.replicas().insert(&copy).await?;
    }
    Ok(())
}
