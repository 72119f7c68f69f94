//! `server.scrub`: the copies of a running server's disk are compared with the one that it reads.
//! One that differs leaves the copies in sync, the operator is told, and it is filled anew by
//! `server.replicate`. It stands in nobody's way: stop, restart and fail-over go ahead, and it ends.
//!
//! | step | does | undo |
//! |---|---|---|
//! | compare | each copy in sync is compared by the owner; one that differs leaves by a commit | none: reading changes nothing, and what differs must not come back unfilled |
//! | record | when that was, and what was found | none: one transaction |

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use undine_api::node::{ScrubSpec, ScrubState, ScrubStatus, SlotState, SlotStatus};
use undine_failover::scrub;
use undine_link::CallError;
use undine_model::lifecycle::ServerState;
use undine_model::{Bytes, ReplicaId, ServerId};
use undine_store::{Db, Replica, ReplicaState, Server};

use super::new::event_of;
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, step};
use crate::clock::now_ms;
use crate::copies;
use crate::nodes::NodeClient;
use crate::policy::Policy;
use crate::slots;

/// Copies are compared.
pub const SCRUB: Kind = Kind {
    name: "server.scrub",
    steps: &[
        step!("compare", compare, keep "reading changes nothing, and what differs must not come back unfilled"),
        step!("record", record, keep "one transaction"),
    ],
    failed,
    patience_ms: super::PATIENCE_MS,
};

/// At first it is asked often, for small disks; then seldom.
const ASK: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
const OFTEN: u32 = 40;
/// A node that does not answer for a moment does not end hours of work.
const SILENT: u32 = 30;

/// The server, as long as nothing has changed under the operation, and its copies.
async fn current(work: &Work) -> Outcome<(Server, Vec<Replica>)> {
    let server = work.server().await?;
    let over = |why: &str| Trouble::stop(why, "It is compared when it is due again, or asked for.");
    if server.epoch != work.param::<u64>("epoch")? {
        return Err(over("the server has another owner now"));
    }
    if server.state != ServerState::Running {
        return Err(over("the server does not run any more"));
    }
    let copies = copies::of(&work.control.store, server.id).await?;
    Ok((server, copies))
}

/// The copies whose comparison has ended.
fn done(work: &Work) -> Vec<ReplicaId> {
    work.found("compared").unwrap_or_default()
}

async fn compare(work: &mut Work) -> Outcome<()> {
    loop {
        let (server, copies) = current(work).await?;
        let done = done(work);
        let all = scrub::compared(&copies::record(&server, &copies));
        let next = all.into_iter().find(|id| !done.contains(id));
        let Some(copy) = next.and_then(|id| copies.iter().find(|copy| copy.id == id)) else {
            return Ok(());
        };
        one(work, copy).await?;
    }
}

/// One copy, until it is known to be equal or has left.
async fn one(work: &mut Work, copy: &Replica) -> Outcome<()> {
    let store = work.control.store.clone();
    let node = store.nodes().find(copy.node).await?;
    let name = node.map_or_else(|| "a node".to_owned(), |node| node.name.to_string());
    let (mut asked, mut silent) = (0_u32, 0);
    loop {
        let (server, copies) = current(work).await?;
        let stands = copies.iter().find(|it| it.id == copy.id);
        if stands.is_none_or(|it| it.state != ReplicaState::InSync) {
            return work.progress(format!("the copy on {name} has left")).await;
        }
        let (owner, client) = work.node_of(&server).await?;
        match ask(work, &client, server.id, copy.id).await {
            Ok(Seen::Status(status)) => {
                silent = 0;
                if said(work, &name, &status).await? {
                    return Ok(());
                }
            }
            Ok(Seen::Failed(slot)) => {
                if slot.differs {
                    note(work, copy.id, &name, slot.error.as_deref()).await?;
                }
                slots::degrade(&work.control, owner.id, server.id).await?;
            }
            Err(error) if error.is_transient() && silent < SILENT => silent += 1,
            Err(error) => return Err(error.into()),
        }
        asked += 1;
        tokio::time::sleep(ASK[usize::from(asked > OFTEN)]).await;
    }
}

/// What the owner says about a copy.
enum Seen {
    /// How far its comparison is.
    Status(ScrubStatus),
    /// Its slot failed, for this or another reason.
    Failed(SlotStatus),
}

async fn ask(
    work: &Work,
    owner: &NodeClient,
    server: ServerId,
    copy: ReplicaId,
) -> Result<Seen, CallError> {
    let status = owner.server(server).await?;
    let slot = status.slots.iter().find(|it| it.replica == Some(copy));
    if let Some(slot) = slot.filter(|slot| slot.state == SlotState::Failed) {
        return Ok(Seen::Failed(slot.clone()));
    }
    let policy = Policy::of(&work.control.store).await.unwrap_or_default();
    let spec = ScrubSpec {
        epoch: work.param("epoch").unwrap_or_default(),
        scrub: work.operation.id,
        limit_bytes_s: policy.scrub_limit_bytes_s,
    };
    owner.scrub(server, copy, &spec).await.map(Seen::Status)
}

/// Notes how far it is; true when its copy is equal. One that differs is seen in its slot next.
async fn said(work: &mut Work, name: &str, status: &ScrubStatus) -> Outcome<bool> {
    match status.state {
        ScrubState::Comparing => {
            work.progress(format!(
                "compares the copy on {name}: {} of {}",
                status.compared, status.total
            ))
            .await?;
            Ok(false)
        }
        ScrubState::Equal => {
            let mut done = done(work);
            done.push(status.replica);
            work.keep("compared", done);
            let undecided: Bytes = work.found("undecided").unwrap_or_default();
            work.keep("undecided", Bytes(undecided.0 + status.undecided.0));
            let busy = match status.undecided {
                Bytes(0) => String::new(),
                bytes => format!("; {bytes} were written all the time and could not be compared"),
            };
            work.progress(format!("the copy on {name} is equal{busy}"))
                .await?;
            Ok(true)
        }
        ScrubState::Differs => {
            note(work, status.replica, name, status.error.as_deref()).await?;
            Ok(false)
        }
        ScrubState::Failed => {
            let why = status.error.clone().unwrap_or_default();
            Err(Trouble::stop(
                format!("the copy on {name} could not be compared: {why}"),
                "It is tried again by itself when it is due; or ask for it again.",
            ))
        }
    }
}

/// That a copy differs is kept before it leaves.
async fn note(work: &mut Work, copy: ReplicaId, name: &str, error: Option<&str>) -> Outcome<()> {
    let mut found: Vec<ReplicaId> = work.found("differ").unwrap_or_default();
    if !found.contains(&copy) {
        found.push(copy);
        work.keep("differ", found);
    }
    let why = error.unwrap_or("it differs");
    work.progress(format!("the copy on {name} is copied anew: {why}"))
        .await
}

async fn record(work: &mut Work) -> Outcome<()> {
    let (server, _) = current(work).await?;
    let differ: Vec<ReplicaId> = work.found("differ").unwrap_or_default();
    let compared = done(work);
    if compared.is_empty() && differ.is_empty() {
        return Err(Trouble::stop(
            "no copy was there to compare",
            "It is compared when its copies are in sync again.",
        ));
    }
    let tx = work.control.store.begin().await?;
    let mut server = tx.servers().lock(server.id).await?;
    server.scrubbed_at = Some(now_ms());
    tx.servers().update(&server, now_ms()).await?;
    let data = json!({"name": server.name, "equal": compared, "differ": differ});
    let event = event_of("server.scrubbed", server.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    Ok(())
}

/// The owner does not go on comparing; it may not be there any more.
fn failed(work: &mut Work, _: String) -> BoxFuture<'_, Outcome<()>> {
    Box::pin(async move {
        let epoch: u64 = work.param("epoch")?;
        let Ok((server, copies)) = current(work).await else {
            return Ok(());
        };
        let (node, client) = work.node_of(&server).await?;
        if !copies::is_live(node.state) {
            return Ok(());
        }
        for copy in scrub::compared(&copies::record(&server, &copies)) {
            if let Err(error) = client.end_scrub(server.id, copy, epoch).await {
                tracing::info!(%error, "a comparison could not be ended");
            }
        }
        Ok(())
    })
}
