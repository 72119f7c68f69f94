//! Servers with fewer copies in sync than they should have get another one: a copy that lacks
//! writes is filled again, one whose node stays away is replaced elsewhere. And owners that do not
//! know yet what is committed about their disks are told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use undine_api::node::JoinMethod;
use undine_failover::membership;
use undine_model::lifecycle::{NodeState, OperationState, ServerState};
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_store::{
    Db, PageRequest, Removal, RemovalFilter, Replica, ReplicaFilter, ReplicaState, Server,
    ServerFilter, Tx,
};

use crate::app::server_create::{apart, candidate, copy_needs, replica};
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::copies;
use crate::memory::is_doubted;
use crate::operations::{NewOperation, start, wake};
use crate::placement::choose;
use crate::policy::Policy;
use crate::refusal::Result;
use crate::slots;

/// After a failure a copy is left alone for so long.
const PAUSE_MS: i64 = 10_000;

/// Looks at every server that runs.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let filter = ServerFilter {
        state: Some(ServerState::Running),
        ..ServerFilter::default()
    };
    let mut load = Load::read(control).await?;
    let policy = Policy::of(&control.store).await?;
    for server in control.store.servers().all(&filter).await? {
        if is_doubted(&control.store, server.id).await? {
            continue;
        }
        let all = copies::of(&control.store, server.id).await?;
        let told = copies::told(&all, server.node);
        let lacks = copies::in_sync(&all, None).len() < wanted(&server);
        let is_due = lacks || surplus(&server, &all).is_some();
        if lacks && !control.slots.knows(server.id, server.epoch, &told) {
            let control = control.clone();
            tokio::spawn(async move { tell(&control, server.id).await });
        }
        if is_due && server.operation.is_none() {
            look(control, &server, &policy, &mut load).await?;
        }
    }
    Ok(())
}

/// What waited for the owner's word is looked at as soon as it has said it.
async fn tell(control: &Control, id: ServerId) {
    if slots::tell(control, id).await {
        control.copies_due.notify_one();
    }
}

/// As many copies as fit into the slots that it runs with.
fn wanted(server: &Server) -> usize {
    server.slots.min(server.replica_count) as usize
}

/// A copy that is one too many: it is not in sync, and those that are are enough.
fn surplus(server: &Server, copies: &[Replica]) -> Option<ReplicaId> {
    let is_enough = copies::in_sync(copies, None).len() >= wanted(server)
        && copies.len() > server.replica_count as usize;
    let is_idle =
        |copy: &&Replica| !matches!(copy.state, ReplicaState::InSync | ReplicaState::Syncing);
    let idle = copies.iter().find(is_idle).filter(|_| is_enough);
    idle.map(|copy| copy.id)
}

/// How many copies are being filled on, or from, each node.
struct Load(BTreeMap<NodeId, u32>);

impl Load {
    async fn read(control: &Control) -> Result<Self> {
        let filter = ReplicaFilter {
            state: Some(ReplicaState::Syncing),
            ..ReplicaFilter::default()
        };
        let mut load = Self(BTreeMap::new());
        for copy in control.store.replicas().all(&filter).await? {
            let server = control.store.servers().find(copy.server).await?;
            load.add(copy.node, server.and_then(|server| server.node));
        }
        Ok(load)
    }

    fn add(&mut self, target: NodeId, owner: Option<NodeId>) {
        for node in std::iter::once(target).chain(owner) {
            *self.0.entry(node).or_default() += 1;
        }
    }

    fn is_full(&self, node: NodeId, policy: &Policy) -> bool {
        self.0.get(&node).copied().unwrap_or_default() >= policy.joins_per_node
    }
}

/// What is to be done about a server's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing now.
    Wait,
    /// One is being filled: see that somebody works on it.
    Watch(ReplicaId),
    /// Fill this one.
    Fill(ReplicaId, JoinMethod),
    /// Make another one.
    Add,
    /// Give this one up for another.
    Replace(ReplicaId),
    /// Give this one up: there are enough.
    Remove(ReplicaId),
}

fn next(
    server: &Server,
    copies: &[Replica],
    live: &BTreeSet<NodeId>,
    policy: &Policy,
    now: i64,
) -> Next {
    let with = |state| copies.iter().find(|copy| copy.state == state);
    if let Some(copy) = with(ReplicaState::Syncing) {
        return Next::Watch(copy.id);
    }
    if copies::in_sync(copies, None).len() >= wanted(server) {
        return surplus(server, copies).map_or(Next::Wait, Next::Remove);
    }
    let lacking = |copy: &&Replica| copy.state != ReplicaState::InSync;
    if let Some(copy) = copies
        .iter()
        .filter(lacking)
        .find(|copy| live.contains(&copy.node))
    {
        let known = copy.left_epoch == Some(server.epoch);
        let method = if known && copy.state == ReplicaState::Stale {
            JoinMethod::Bitmap
        } else {
            JoinMethod::Full
        };
        return Next::Fill(copy.id, method);
    }
    if copies.len() < server.replica_count as usize {
        return Next::Add;
    }
    let long = i64::try_from(policy.replace_after_ms).unwrap_or(i64::MAX);
    let away = |copy: &&Replica| now - copy.left_at.unwrap_or(copy.created_at) >= long;
    match copies.iter().filter(lacking).find(away) {
        Some(copy) => Next::Replace(copy.id),
        None => Next::Wait,
    }
}

async fn look(control: &Control, server: &Server, policy: &Policy, load: &mut Load) -> Result<()> {
    let tx = control.store.begin().await?;
    let server = tx.servers().lock(server.id).await?;
    let is_free = server.state == ServerState::Running && server.operation.is_none();
    if !is_free || is_doubted(&tx, server.id).await? {
        return Ok(());
    }
    let all = copies::of(&tx, server.id).await?;
    let nodes = copies::live_nodes(&tx).await?;
    let live: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
    let now = now_ms();
    let (copy, method) = match next(&server, &all, &live, policy, now) {
        Next::Wait => return Ok(()),
        Next::Watch(id) => return watch(tx, &server, id).await,
        // An owner that has not heard that this copy left has it in its slot yet, failed: that would
        // be taken for a failure of the filling.
        Next::Fill(..) if !is_told(control, &server, &all) => return Ok(()),
        Next::Fill(id, method) => {
            let found = all.iter().find(|copy| copy.id == id).cloned();
            let Some(copy) = found else { return Ok(()) };
            (copy, method)
        }
        Next::Add => match new_copy(control, &tx, &server, &all).await? {
            Some(copy) => (copy, JoinMethod::Full),
            None => return Ok(()),
        },
        Next::Replace(id) => match new_copy(control, &tx, &server, &all).await? {
            Some(copy) => {
                let why = "the copy was replaced while its node was away";
                give_up(&tx, &server, &all, id, why).await?;
                (copy, JoinMethod::Full)
            }
            None => return Ok(()),
        },
        Next::Remove(id) => {
            give_up(&tx, &server, &all, id, "the server keeps fewer copies").await?;
            return Ok(tx.commit().await?);
        }
    };
    let busy = load.is_full(copy.node, policy)
        || server.node.is_some_and(|node| load.is_full(node, policy));
    if busy || failed_lately(&tx, server.id, now).await? {
        return Ok(());
    }
    load.add(copy.node, server.node);
    fill(control, tx, &server, copy, method).await
}

/// Has the owner confirmed what is committed?
fn is_told(control: &Control, server: &Server, copies: &[Replica]) -> bool {
    let told = copies::told(copies, server.node);
    control.slots.knows(server.id, server.epoch, &told)
}

/// The copy is being filled, and the operation that does it is made.
async fn fill(
    control: &Control,
    tx: Tx,
    server: &Server,
    copy: Replica,
    method: JoinMethod,
) -> Result<()> {
    let mut all = copies::of(&tx, server.id).await?;
    let mut record = copies::record(server, &all);
    if !all.iter().any(|it| it.id == copy.id) {
        let Ok(next) = membership::add(&record, server.epoch, copy.id, copy.node) else {
            return Ok(());
        };
        tx.replicas().insert(&copy).await?;
        (record, all) = (next, copies::of(&tx, server.id).await?);
    }
    let next = match membership::begin_sync(&record, server.epoch, copy.id) {
        Ok(next) => next,
        Err(refusal) => {
            tracing::info!(server = %server.name, %refusal, "a copy is not filled");
            return Ok(());
        }
    };
    copies::follow(&tx, &all, &next, None).await?;
    tx.servers().update(server, now_ms()).await?;
    let reason = match method {
        JoinMethod::Bitmap => "a copy of its disk lacks the newest writes",
        JoinMethod::Full => "its disk has fewer copies than it should",
    };
    start(
        &tx,
        NewOperation {
            kind: "server.replicate",
            subjects: vec![server.id.uuid()],
            account: None,
            params: json!({
                "server": server.id, "replica": copy.id, "epoch": server.epoch, "method": method,
            }),
            reason: reason.to_owned(),
        },
    )
    .await?;
    tx.commit().await?;
    tracing::info!(server = %server.name, node = %copy.node, ?method, "filling a copy");
    wake(control);
    Ok(())
}

/// A copy that is being filled by no operation, as after one that failed without a trace, is not.
async fn watch(tx: Tx, server: &Server, id: ReplicaId) -> Result<()> {
    let past = past(&tx, server.id).await?;
    let works = |it: &undine_store::Operation| {
        matches!(it.state, OperationState::Pending | OperationState::Running)
    };
    if past.iter().any(works) {
        return Ok(());
    }
    copies::leave(&tx, server, &[id], "nobody was filling it").await?;
    tx.commit().await?;
    Ok(())
}

/// The newest operations that filled copies of a server.
async fn past(tx: &Tx, server: ServerId) -> Result<Vec<undine_store::Operation>> {
    let page = PageRequest::newest(20);
    let mut past = tx.operations().of(server.uuid(), page).await?.items;
    past.retain(|it| it.kind == "server.replicate");
    Ok(past)
}

async fn failed_lately(tx: &Tx, server: ServerId, now: i64) -> Result<bool> {
    let past = past(tx, server).await?;
    Ok(past.first().is_some_and(|it| match it.state {
        OperationState::Failed => now - it.updated_at < PAUSE_MS,
        OperationState::Pending | OperationState::Running => true,
        OperationState::Succeeded => false,
    }))
}

/// A copy on a node that has room, holds none, must remove none, and shares no rack with another.
async fn new_copy(
    control: &Control,
    tx: &Tx,
    server: &Server,
    all: &[Replica],
) -> Result<Option<Replica>> {
    let mut nodes = copies::live_nodes(tx).await?;
    let filter = RemovalFilter {
        server: Some(server.id),
        ..RemovalFilter::default()
    };
    let removals = tx.removals().all(&filter).await?;
    let taken: Vec<NodeId> = all
        .iter()
        .map(|copy| copy.node)
        .chain(removals.iter().map(|it| it.node))
        .collect();
    let mut candidates = Vec::new();
    for node in &nodes {
        if node.state == NodeState::Ready {
            candidates.extend(candidate(&control.cluster, tx, node, &server.profile).await?);
        }
    }
    // Racks of dead nodes count as well while their copies do.
    nodes.extend(tx.nodes().all(&undine_store::NodeFilter::default()).await?);
    let free = apart(&nodes, &candidates, &taken);
    let choice = choose(&free, &copy_needs(server));
    Ok(choice.ok().map(|choice| replica(server, choice.node)))
}

/// The copy is given up; its node removes it, when it is back if it is away.
async fn give_up(
    tx: &Tx,
    server: &Server,
    all: &[Replica],
    id: ReplicaId,
    why: &str,
) -> Result<()> {
    let Some(copy) = all.iter().find(|copy| copy.id == id) else {
        return Ok(());
    };
    if let Err(refusal) = membership::remove(&copies::record(server, all), id) {
        tracing::info!(server = %server.name, %refusal, "a copy is not given up");
        return Ok(());
    }
    let now = now_ms();
    tx.replicas().delete(copy.id, Some(copy.version)).await?;
    let removal = Removal {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        server: server.id,
        node: copy.node,
        epoch: server.epoch,
        reason: why.to_owned(),
    };
    tx.removals().insert(&removal).await?;
    Ok(())
}
