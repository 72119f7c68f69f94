//! Telling the owner of a running server what is committed about its disk, until it has said yes;
//! and taking a copy out that failed. A visitor waits for this: it happens at once, in the task
//! that learned of the failure, and a reconciler repeats it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use undine_api::node::{ServerStatus, SlotState, SlotsSpec};
use undine_link::CallError;
use undine_model::lifecycle::ServerState;
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_store::{Db, Server, Tx};

use crate::app::caller::finding;
use crate::app::servers::{Wish, begin};
use crate::control::Control;
use crate::copies;
use crate::fencing::{Heirs, fail_over};
use crate::memory::is_doubted;
use crate::operations::{event_of, wake};
use crate::refusal::Result;

type Told = (u64, Vec<ReplicaId>);

/// What owners have confirmed, as far as this instance knows.
#[derive(Default)]
pub struct SlotBook(Mutex<BTreeMap<ServerId, Told>>);

impl SlotBook {
    /// Does the owner know this?
    pub fn knows(&self, server: ServerId, epoch: u64, in_sync: &[ReplicaId]) -> bool {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(&server)
            .is_some_and(|(known, members)| *known == epoch && members == in_sync)
    }

    fn confirmed(&self, server: ServerId, told: Told) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.insert(server, told);
    }

    /// What is known of servers that are not there any more goes.
    pub fn forget(&self, server: ServerId) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.remove(&server);
    }
}

/// What is told of a copy that differs: an event and an audit row of this name.
pub const DIFFERS: &str = "server.copy_differs";

const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(100);
/// How often late words about failed slots are asked for again at once; then the next report is.
const LATE: u32 = 5;

/// What became of telling an owner once.
enum Tell {
    /// It has confirmed.
    Confirmed,
    /// There is nobody to tell, or what is known must not be told.
    Nobody,
    /// It did not answer as it should.
    Again,
}

/// Tells the owner, and again when it does not answer; gives up when the server does not run any
/// more or after a while: the reconciler repeats it. Has it confirmed?
pub async fn tell(control: &Control, id: ServerId) -> bool {
    for _ in 0..TRIES {
        match try_tell(control, id).await {
            Ok(Tell::Confirmed) => return true,
            Ok(Tell::Nobody) => return false,
            Ok(Tell::Again) => {}
            Err(error) => tracing::info!(server = %id, %error, "slots could not be told"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    false
}

async fn try_tell(control: &Control, id: ServerId) -> Result<Tell> {
    let Some(server) = control.store.servers().find(id).await? else {
        return Ok(Tell::Nobody);
    };
    let (Some(node), ServerState::Running | ServerState::Starting) = (server.node, server.state)
    else {
        return Ok(Tell::Nobody);
    };
    // What it was told before must not be written over by what the store remembers.
    if is_doubted(&control.store, id).await? {
        return Ok(Tell::Nobody);
    }
    let copies = copies::of(&control.store, id).await?;
    let in_sync = copies::told(&copies, server.node);
    let Some(node) = control.store.nodes().find(node).await? else {
        return Ok(Tell::Nobody);
    };
    let Ok(client) = control.nodes.of(&node) else {
        return Ok(Tell::Nobody);
    };
    let spec = SlotsSpec {
        epoch: server.epoch,
        version: server.version.unsigned_abs(),
        syncing: copies::syncing(&copies),
        in_sync: in_sync.clone(),
    };
    match client.slots(id, &spec).await {
        Ok(_) => {
            control.slots.confirmed(id, (server.epoch, in_sync));
            Ok(Tell::Confirmed)
        }
        // Not there, or an older record than it has seen: read again.
        Err(CallError::Refused(problem)) if problem.status == 404 => Ok(Tell::Nobody),
        Err(error) => {
            tracing::info!(server = %server.name, %error, "the owner did not confirm its slots");
            Ok(Tell::Again)
        }
    }
}

/// The copies whose slots failed under this epoch on their owner.
pub fn failed(server: &Server, owner: NodeId, status: &ServerStatus) -> Vec<ReplicaId> {
    if server.node != Some(owner) || server.epoch != status.epoch {
        return Vec::new();
    }
    status
        .slots
        .iter()
        .filter(|slot| slot.state == SlotState::Failed)
        .filter_map(|slot| slot.replica)
        .collect()
}

/// A node reported failed slots: asked once more, for reports may be late, then committed and told.
/// What it says of a record that was written meanwhile is late as well: it is asked again.
pub async fn degrade(control: &Control, owner: NodeId, id: ServerId) -> Result<()> {
    for _ in 0..LATE {
        if try_degrade(control, owner, id).await? {
            break;
        }
    }
    Ok(())
}

/// What the owner says of a server, and the version of its record from before it was asked.
async fn asked(
    control: &Control,
    owner: NodeId,
    id: ServerId,
) -> Result<Option<(i64, ServerStatus)>> {
    let node = control.store.nodes().find(owner).await?;
    let server = control.store.servers().find(id).await?;
    let (Some(node), Some(server)) = (node, server) else {
        return Ok(None);
    };
    let Ok(client) = control.nodes.of(&node) else {
        return Ok(None);
    };
    Ok(Some((server.version, client.server(id).await?)))
}

/// Once; false: again.
async fn try_degrade(control: &Control, owner: NodeId, id: ServerId) -> Result<bool> {
    let Some((version, status)) = asked(control, owner, id).await? else {
        return Ok(true);
    };
    let why = status.slots.iter().find_map(|slot| slot.error.clone());
    let why = why.unwrap_or_else(|| "its slot failed".to_owned());
    control.failpoints.pass("slots/degrade/before").await;
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(id).await?;
    if server.version != version {
        return Ok(false);
    }
    let gone = failed(&server, owner, &status);
    if gone.is_empty() || is_doubted(&tx, id).await? {
        return Ok(true);
    }
    let all = copies::of(&tx, id).await?;
    if all
        .iter()
        .any(|copy| copy.node == owner && gone.contains(&copy.id))
    {
        leave_owner(control, tx, server, &gone, &why).await?;
        return Ok(true);
    }
    let differ: Vec<ReplicaId> = differing(&status, &gone);
    let left = leave(&tx, owner, server.clone(), (&gone, &differ), &why).await?;
    tx.commit().await?;
    control.failpoints.pass("slots/degrade/after").await;
    if left.is_empty() {
        tracing::info!(server = %server.name, why, "failed slots are told again");
    } else {
        tracing::warn!(server = %server.name, ?left, why, "copies left");
    }
    tell(control, id).await;
    control.copies_due.notify_one();
    Ok(true)
}

/// Those of the failed copies that a comparison found to differ.
fn differing(status: &ServerStatus, gone: &[ReplicaId]) -> Vec<ReplicaId> {
    let differ = status.slots.iter().filter(|slot| slot.differs);
    differ
        .filter_map(|slot| slot.replica)
        .filter(|copy| gone.contains(copy))
        .collect()
}

/// Failed copies leave. That some differ is told to the operator, in the same transaction.
async fn leave(
    tx: &Tx,
    owner: NodeId,
    server: Server,
    (gone, differ): (&[ReplicaId], &[ReplicaId]),
    why: &str,
) -> Result<Vec<ReplicaId>> {
    if differ.is_empty() {
        return copies::leave(tx, &server, gone, why).await;
    }
    let mut left = copies::distrust(tx, &server, differ, why).await?;
    if !left.is_empty() {
        let subject = format!("server/{}", server.id);
        let data = json!({"name": server.name, "copies": left, "detail": why});
        let event = event_of(DIFFERS, server.id.uuid(), None, data.clone());
        let row = finding(format!("node/{owner}"), DIFFERS, subject, "differs", data);
        tx.audit().insert(&row).await?;
        tx.events().announce(vec![event]).await?;
    }
    let others: Vec<ReplicaId> = gone
        .iter()
        .filter(|copy| !differ.contains(copy))
        .copied()
        .collect();
    if !others.is_empty() {
        let server = tx.servers().lock(server.id).await?;
        left.extend(copies::leave(tx, &server, &others, why).await?);
    }
    Ok(left)
}

/// The owner's own copy failed: a server reads it, so it moves to another one in sync; where there
/// is none it starts again on what it has.
async fn leave_owner(
    control: &Control,
    tx: Tx,
    server: Server,
    gone: &[ReplicaId],
    why: &str,
) -> Result<()> {
    if server.operation.is_some() || server.state != ServerState::Running {
        return Ok(());
    }
    let (id, name) = (server.id, server.name.clone());
    let reason = format!("its copy on its own node failed: {why}");
    if copies::leave(&tx, &server, gone, why).await?.is_empty() {
        copies::settle(&tx, &server).await?;
        begin(control, &tx, server, Wish::Restart, reason.clone()).await?;
    } else {
        let server = tx.servers().lock(id).await?;
        let mut heirs = Heirs::read(control, &tx).await?;
        fail_over(&tx, &mut heirs, server, reason.clone()).await?;
    }
    tx.commit().await?;
    tracing::warn!(server = %name, reason, "a server leaves its node's copy");
    wake(control);
    Ok(())
}
