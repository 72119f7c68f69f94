//! `server.replicate`: a copy of a running server's disk is filled and takes its slot. Which copy,
//! and what is copied, was decided when the operation was made. It stands in nobody's way: stop,
//! restart and fail-over go ahead, and it ends.
//!
//! | step | does | undo |
//! |---|---|---|
//! | image | the copy's node holds the server's image, so that it can take over | none: images are shared and cost nothing |
//! | join | the copy is opened for a resync and filled until it is in its slot | none: a copy that is not in sync counts for nothing |
//! | commit | the copy is in sync, by compare-and-set under the same epoch | none: one transaction |
//! | tell | its node and the owner know it | none: the last step, told again by the reconciler |

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_api::node::{
    JoinMethod, JoinSpec, JoinState, JoinStatus, ReplicaSpec, ReplicaState as Held, ReplicaTarget,
    SlotState,
};
use undine_failover::membership;
use undine_link::CallError;
use undine_model::lifecycle::ServerState;
use undine_model::{ReplicaId, ServerId};
use undine_store::{Db, Replica, ReplicaState, Server};

use super::new::event_of;
use super::server_start::fetch_image;
use super::start_spec::{replica_client, target};
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::clock::now_ms;
use crate::copies;
use crate::policy::Policy;
use crate::slots;

/// A copy is filled and counts from then on.
pub const REPLICATE: Kind = Kind {
    name: "server.replicate",
    steps: &[
        step!("image", image, keep "images are shared and cost nothing"),
        step!("join", join, keep "a copy that is not in sync counts for nothing"),
        step!("commit", commit, keep "one transaction"),
        step!("tell", tell, keep "the last step, told again by the reconciler"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// A node says so when a copy's file is gone.
const LOST: &str = "replica-lost";
const ASK: Duration = Duration::from_millis(250);

/// Server and copy, as long as nothing has changed under the operation.
async fn both(work: &Work) -> Outcome<(Server, Replica)> {
    let server = work.server().await?;
    let over = |why: &str| Trouble::stop(why, "The reconciler begins anew when it is due.");
    if server.epoch != work.param::<u64>("epoch")? {
        return Err(over("the server has another owner now"));
    }
    if server.state != ServerState::Running {
        return Err(over("the server does not run any more"));
    }
    let id: ReplicaId = work.param("replica")?;
    let copy = work.control.store.replicas().find(id).await?;
    match copy {
        Some(copy) if matches!(copy.state, ReplicaState::Syncing | ReplicaState::InSync) => {
            Ok((server, copy))
        }
        Some(copy) => Err(over(&format!("the copy is {} meanwhile", copy.state))),
        None => Err(over("the copy was given up meanwhile")),
    }
}

async fn image(work: &mut Work) -> Outcome<()> {
    let (server, copy) = both(work).await?;
    let (node, client) = replica_client(&work.control, &copy).await?;
    fetch_image(work, &server, &node, &client).await
}

async fn join(work: &mut Work) -> Outcome<()> {
    let mut spec: Option<JoinSpec> = None;
    loop {
        let (server, copy) = both(work).await?;
        let (_, owner) = work.node_of(&server).await?;
        if copy.state == ReplicaState::InSync {
            return Ok(());
        }
        let status = owner.server(server.id).await?;
        let slot = status.slots.iter().find(|it| it.replica == Some(copy.id));
        match slot.map(|slot| slot.state) {
            Some(SlotState::Live) => return Ok(()),
            // Begun before this instance took over: asked about, not begun again.
            Some(SlotState::Joining) if spec.is_none() => {
                spec = Some(join_spec(work, resumed(&server, &copy)).await?);
            }
            Some(SlotState::Joining) => {}
            // It failed before it counted: it leaves by a commit, and this operation ends.
            Some(SlotState::Failed) => {
                let owner = server.node.unwrap_or(copy.node);
                slots::degrade(&work.control, owner, server.id).await?;
                continue;
            }
            _ => match prepare(work, &server, &copy).await? {
                Some(target) => spec = Some(join_spec(work, target).await?),
                None => {
                    work.keep("method", JoinMethod::Full);
                    work.progress("everything is copied: its file is gone")
                        .await?;
                    continue;
                }
            },
        }
        let Some(wish) = &spec else { continue };
        match owner.join(server.id, wish).await {
            Ok(status) => said(work, &status).await?,
            Err(CallError::Refused(problem))
                if wish.method == JoinMethod::Bitmap && problem.status < 500 =>
            {
                work.keep("method", JoinMethod::Full);
                work.progress(format!("everything is copied: {}", problem.detail))
                    .await?;
                spec = None;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Opens the copy as the target of a resync; none when there is nothing that what changed could be
/// copied onto. Only a full copy may begin with an empty file.
async fn prepare(work: &Work, server: &Server, copy: &Replica) -> Outcome<Option<ReplicaTarget>> {
    let (node, client) = replica_client(&work.control, copy).await?;
    let is_full = method(work)? == JoinMethod::Full;
    let spec = ReplicaSpec {
        resync: true,
        create: is_full,
        ..spec_of(work, server, copy).await?
    };
    let status = match client.replica(server.id, &spec).await {
        Err(CallError::Refused(problem)) if !is_full && problem.kind == LOST => return Ok(None),
        Ok(status) if !is_full && status.state == Held::Lost => return Ok(None),
        other => other?,
    };
    let target = target(server, copy, status).ok_or_else(|| {
        Trouble::wait(
            format!("the disk's daemon on {} is not up", node.name),
            "It is tried again by itself.",
        )
    })?;
    Ok(Some(target))
}

/// How the copy is filled: as was planned, or fully, when that was found to be needed.
fn method(work: &Work) -> Outcome<JoinMethod> {
    match work.found::<JoinMethod>("method") {
        Ok(method) => Ok(method),
        Err(_) => work.param("method"),
    }
}

async fn spec_of(work: &Work, server: &Server, copy: &Replica) -> Outcome<ReplicaSpec> {
    let store = &work.control.store;
    let policy = Policy::of(store).await?;
    Ok(ReplicaSpec {
        replica: copy.id,
        epoch: server.epoch,
        size: server.disk,
        create: false,
        accept_stale: false,
        remote: server.node != Some(copy.node),
        resync: false,
        tls: policy.tls,
        committed: Some(copies::committed(store, server).await?),
    })
}

/// A join that goes on is known by its replica alone.
fn resumed(server: &Server, copy: &Replica) -> ReplicaTarget {
    ReplicaTarget {
        node: copy.node,
        replica: copy.id,
        export: format!("{}-e{}", server.id, server.epoch),
        address: None,
        key: None,
    }
}

async fn join_spec(work: &Work, target: ReplicaTarget) -> Outcome<JoinSpec> {
    let policy = Policy::of(&work.control.store).await?;
    Ok(JoinSpec {
        epoch: work.param("epoch")?,
        target,
        method: method(work)?,
        limit_bytes_s: policy.limit_bytes_s,
    })
}

async fn said(work: &mut Work, status: &JoinStatus) -> Outcome<()> {
    let method = match status.method {
        JoinMethod::Bitmap => "what changed",
        JoinMethod::Full => "everything",
    };
    if status.state == JoinState::Failed {
        let why = status.error.clone().unwrap_or_default();
        return Err(Trouble::stop(
            format!("the copy could not be filled: {why}"),
            "It is begun anew by itself.",
        ));
    }
    if let Some(pause_ms) = status.pause_ms {
        work.keep("pause_ms", pause_ms);
    }
    work.keep("copied", status.copied);
    work.progress(format!(
        "copies {method}: {} of {}",
        status.copied, status.total
    ))
    .await
}

async fn commit(work: &mut Work) -> Outcome<()> {
    let (server, copy) = both(work).await?;
    if copy.state == ReplicaState::InSync {
        return Ok(());
    }
    let (_, owner) = work.node_of(&server).await?;
    let status = owner.server(server.id).await?;
    let live = |it: &undine_api::node::SlotStatus| {
        it.replica == Some(copy.id) && it.state == SlotState::Live
    };
    if status.epoch != server.epoch || !status.slots.iter().any(live) {
        return Err(Trouble::stop(
            "the copy has lost its slot again",
            "It is begun anew by itself.",
        ));
    }
    let failpoints = work.control.failpoints.clone();
    failpoints.pass("server.replicate/commit/looked").await;
    let tx = work.control.store.begin().await?;
    let record = tx.servers().lock(server.id).await?;
    let all = copies::of(&tx, server.id).await?;
    let next = membership::join(&copies::record(&record, &all), server.epoch, copy.id);
    let next = next.map_err(|refusal| {
        Trouble::stop(
            format!("something else was decided about the copy meanwhile: {refusal}"),
            "It is begun anew by itself.",
        )
    })?;
    copies::follow(&tx, &all, &next, None).await?;
    tx.servers().update(&record, now_ms()).await?;
    let data = json!({"name": record.name, "node": copy.node});
    let event = event_of("server.replicated", record.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    Ok(())
}

async fn tell(work: &mut Work) -> Outcome<()> {
    let (server, copy) = both(work).await?;
    let (_, client) = replica_client(&work.control, &copy).await?;
    let spec = spec_of(work, &server, &copy).await?;
    client.replica(server.id, &spec).await?;
    slots::tell(&work.control, server.id).await;
    // The next copy of this server, or one that waited for a free place.
    work.control.copies_due.notify_one();
    Ok(())
}

/// The copy counts for nothing; everything must be copied to it next time.
fn failed(work: &mut Work, detail: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let server: ServerId = work.param("server")?;
        let id: ReplicaId = work.param("replica")?;
        let tx = work.control.store.begin().await?;
        if tx.servers().find(server).await?.is_none() {
            return Ok(());
        }
        let record = tx.servers().lock(server).await?;
        let copy = tx.replicas().find(id).await?;
        if copy.is_some_and(|copy| copy.state == ReplicaState::Syncing) {
            copies::leave(&tx, &record, &[id], &detail).await?;
            tx.commit().await?;
        }
        cancel(work, server, id).await;
        Ok(())
    })
}

/// So that the owner does not go on copying; it may not be there any more.
async fn cancel(work: &Work, server: ServerId, copy: ReplicaId) {
    let Ok(epoch) = work.param::<u64>("epoch") else {
        return;
    };
    let Ok(record) = work.server().await else {
        return;
    };
    let Ok((node, client)) = work.node_of(&record).await else {
        return;
    };
    if record.epoch == epoch
        && copies::is_live(node.state)
        && let Err(error) = client.cancel_join(server, copy, epoch).await
    {
        tracing::info!(%error, "a join could not be cancelled");
    }
}
