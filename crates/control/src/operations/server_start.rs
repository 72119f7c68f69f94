//! `server.create` and `server.start`. The node was chosen and committed when the operation was
//! made.
//!
//! | step | does | undo |
//! |---|---|---|
//! | image | the node holds the server's image | none: images are shared and cost nothing |
//! | replica | the node holds and exports the disk | none: the disk is the server's for life; `server.delete` removes it |
//! | boot | the VM runs and its guest answers for itself | none: a VM that came up late is adopted by the next start, and ended by stop or delete |
//! | open | state `running`, routes open | none: it is the last step and one transaction |
//!
//! A server that could not start stays, `failed` with the reason: `start` tries again, `delete`
//! removes it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_api::node::{FetchImage, Phase, ReplicaState as Held, ServerStatus};
use undine_failover::membership;
use undine_model::ReplicaId;
use undine_model::lifecycle::{ServerEvent, ServerState};
use undine_store::{Db, Node, Replica, ReplicaState, Server};

use super::new::event_of;
use super::start_spec::{image_of, open_replica, replica_client, sources, start_spec};
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, StepOf, step};
use crate::clock::now_ms;
use crate::copies;
use crate::manifests::{record, whole};
use crate::nodes::NodeClient;
use crate::routes::server_changed;

/// Image, replica, boot, open.
pub(super) const STEPS: &[StepOf] = &[
    step!("image", image, keep "images are shared and cost nothing"),
    step!("replica", replica, keep "the disk is the server's for life; delete removes it"),
    step!("boot", boot, keep "a VM that came up late is adopted by the next start"),
    step!("open", open, keep "the last step, one transaction"),
];

/// A new server comes up.
pub const CREATE: Kind = Kind {
    name: "server.create",
    steps: STEPS,
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// A server comes up again.
pub const START: Kind = Kind {
    name: "server.start",
    steps: STEPS,
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// How often a node is asked how far it is.
const ASK: Duration = Duration::from_millis(80);
/// An image is fetched, and a VM comes up, within this time also under emulation.
const IMAGE_MS: i64 = 15 * 60_000;
const BOOT_MS: i64 = 8 * 60_000;

pub(super) async fn image(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    let (node, client) = work.node_of(&server).await?;
    fetch_image(work, &server, &node, &client).await
}

/// The node holds the server's image when this has ended well.
pub(super) async fn fetch_image(
    work: &mut Work,
    server: &Server,
    node: &Node,
    client: &NodeClient,
) -> Outcome<()> {
    let fetch = FetchImage {
        manifest: image_of(&work.control, server).await?,
        sources: sources(&work.control).await?,
    };
    let until = now_ms() + IMAGE_MS;
    loop {
        let status = client.image(&fetch).await?;
        if status.present {
            return work
                .progress(format!("{} holds the image", node.name))
                .await;
        }
        if let Some(error) = status.error {
            return Err(Trouble::wait(
                format!("{} could not fetch the image: {error}", node.name),
                "It is tried again; see that control's internal address answers the node.",
            ));
        }
        let percent = status.have * 100 / status.total.max(1);
        work.progress(format!("{} fetches the image: {percent} %", node.name))
            .await?;
        if now_ms() > until {
            return Err(Trouble::wait(
                "fetching the image takes too long",
                "See the node's network.",
            ));
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Opens every copy that counts, and makes those that are new. One that cannot be had leaves, as
/// long as another is there: it is filled again while the server runs.
pub(super) async fn replica(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    let copies = copies::of(&work.control.store, server.id).await?;
    let wanted: Vec<&Replica> = copies
        .iter()
        .filter(|copy| match copy.state {
            ReplicaState::InSync => true,
            // Later ones are filled from those in sync.
            ReplicaState::Creating => server.blank,
            _ => false,
        })
        .collect();
    let last = wanted.len() <= 1;
    let (mut opened, mut gone, mut first_trouble) = (Vec::new(), Vec::new(), None);
    for copy in wanted {
        match open_one(work, &server, copy, last).await {
            Ok(()) => opened.push(copy),
            Err(Trouble::Lost) => return Err(Trouble::Lost),
            Err(trouble) => {
                let why = trouble.to_string();
                work.progress(format!("goes on without a copy: {why}"))
                    .await?;
                gone.push((copy, why));
                first_trouble.get_or_insert(trouble);
            }
        }
    }
    if opened.is_empty() {
        return Err(first_trouble.unwrap_or_else(nothing_to_open));
    }
    settle(work, &server, &opened, &gone).await
}

fn nothing_to_open() -> Trouble {
    Trouble::stop(
        "no copy of the server's disk is in sync",
        "Accept the loss of the newest writes with `undine server accept-loss`.",
    )
}

async fn open_one(work: &mut Work, server: &Server, copy: &Replica, last: bool) -> Outcome<()> {
    let (node, client) = replica_client(&work.control, copy).await?;
    let status = open_replica(&work.control, &client, server, copy, last).await?;
    match status.state {
        Held::Open => {
            let held = format!("{} holds the disk of {}", node.name, server.disk);
            work.progress(held).await
        }
        Held::Lost => Err(Trouble::stop(
            format!("{} has lost the server's disk", node.name),
            "Restore the server from a backup; control never makes an empty disk in its place.",
        )),
        _ => Err(Trouble::wait(
            format!("the copy on {} may lack writes", node.name),
            "It is filled again while the server runs.",
        )),
    }
}

/// Records what was opened and what was not.
async fn settle(
    work: &Work,
    server: &Server,
    opened: &[&Replica],
    gone: &[(&Replica, String)],
) -> Outcome<()> {
    let tx = work.control.store.begin().await?;
    let record = tx.servers().lock(server.id).await?;
    if record.epoch != server.epoch {
        return Err(superseded());
    }
    let all = copies::of(&tx, server.id).await?;
    let made = all.iter().filter(|copy| {
        copy.state == ReplicaState::Creating && opened.iter().any(|it| it.id == copy.id)
    });
    let made: Vec<ReplicaId> = made.map(|copy| copy.id).collect();
    if !made.is_empty() {
        let next = membership::made(&copies::record(&record, &all), record.epoch, &made);
        let next = next.map_err(|refusal| {
            Trouble::stop(refusal.to_string(), "Delete the server and create it anew.")
        })?;
        copies::follow(&tx, &all, &next, None).await?;
    }
    for (copy, why) in gone {
        copies::leave(&tx, &record, &[copy.id], why).await?;
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn boot(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    let (node, client) = work.node_of(&server).await?;
    let manifest = whole(&work.control, &server).await?;
    let sites: Vec<_> = manifest.sites.iter().map(|site| site.id).collect();
    let spec = start_spec(work, &server, manifest).await?;
    let mut status = client.start(server.id, &spec).await?;
    let until = now_ms() + BOOT_MS;
    loop {
        match status.phase {
            Phase::Running => break,
            Phase::Failed | Phase::Absent | Phase::Stopped => return Err(did_not_start(&status)),
            phase => {
                let word = serde_json::to_value(phase).unwrap_or_default();
                let word = word.as_str().unwrap_or_default().to_owned();
                work.progress(format!("{} on {}", word, node.name)).await?;
            }
        }
        if now_ms() > until {
            return Err(Trouble::stop(
                format!(
                    "the server did not answer for itself within {} s",
                    BOOT_MS / 1000
                ),
                "See the console log of the server on its node; `start` tries again.",
            ));
        }
        tokio::time::sleep(ASK).await;
        status = client.server(server.id).await?;
    }
    if let Some(start) = &status.start {
        work.keep("start", start);
        let how = if start.from_template {
            "a template"
        } else {
            "cold boot"
        };
        let fallback = start
            .fallback
            .as_deref()
            .map(|why| format!(" ({why})"))
            .unwrap_or_default();
        let total = start.steps_s.last().map_or(0.0, |(_, seconds)| *seconds);
        work.progress(format!("up by {how}{fallback} in {total:.1} s"))
            .await?;
    }
    if let Some(applied) = &status.applied {
        record(&work.control, server.id, applied, &sites).await?;
    }
    Ok(())
}

fn did_not_start(status: &ServerStatus) -> Trouble {
    let why = status
        .error
        .clone()
        .unwrap_or_else(|| "the node gave no reason".to_owned());
    Trouble::stop(
        format!("the server did not start: {why}"),
        "See the console log of the server on its node; `start` tries again.",
    )
}

pub(super) async fn open(work: &mut Work) -> Outcome<()> {
    let server = work.server().await?;
    let tx = work.control.store.begin().await?;
    let mut record = tx.servers().lock(server.id).await?;
    match record.operation {
        Some(id) if id == work.operation.id => {}
        // Opened before this instance died over it.
        None if record.state == ServerState::Running => return Ok(()),
        // What answered may be an earlier owner: a newer operation has the say.
        _ => return Err(superseded()),
    }
    let (state, _) = record.state.on(ServerEvent::Answered).map_err(|refused| {
        Trouble::stop(
            refused.to_string(),
            "Somebody stopped or deleted the server meanwhile.",
        )
    })?;
    record.state = state;
    record.error = None;
    record.blank = false;
    record.operation = record.operation.filter(|id| *id != work.operation.id);
    tx.servers().update(&record, now_ms()).await?;
    server_changed(&tx, server.id).await?;
    tx.events()
        .announce(vec![event_of(
            "server.running",
            server.id.uuid(),
            None,
            json!({"name": server.name}),
        )])
        .await?;
    tx.commit().await?;
    work.control.copies_due.notify_one();
    Ok(())
}

/// Something else was decided about the server: what this operation found out is of no use.
pub(super) fn superseded() -> Trouble {
    Trouble::stop(
        "a newer operation works on the server",
        "Nothing is left to do.",
    )
}

pub(super) fn failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let id = work.param("server")?;
        mark_failed(work, id, detail).await
    })
}

/// The server's record says that it failed and why, and is free for other operations.
pub(super) async fn mark_failed(
    work: &mut Work,
    id: undine_model::ServerId,
    detail: String,
) -> Outcome<()> {
    let tx = work.control.store.begin().await?;
    let Some(_) = tx.servers().find(id).await? else {
        return Ok(());
    };
    let mut record = tx.servers().lock(id).await?;
    if record.operation.is_some_and(|it| it != work.operation.id) {
        return Ok(());
    }
    if record.state != ServerState::Deleting
        && let Ok((state, _)) = record.state.on(ServerEvent::Fail)
    {
        record.state = state;
    }
    record.error = Some(detail.clone());
    record.operation = record
        .operation
        .filter(|operation| *operation != work.operation.id);
    tx.servers().update(&record, now_ms()).await?;
    server_changed(&tx, id).await?;
    let data = json!({"name": record.name, "error": detail});
    tx.events()
        .announce(vec![event_of("server.failed", id.uuid(), None, data)])
        .await?;
    tx.commit().await?;
    Ok(())
}
