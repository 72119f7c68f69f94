//! Declaring a node dead: in one transaction its record says so, its servers get new owners and
//! their operations, and its copies are in sync no more. Compare-and-set makes it happen once,
//! whichever instance is first.

use std::collections::BTreeSet;

use serde_json::json;
use undine_failover::membership::succeed;
use undine_model::NodeId;
use undine_model::lifecycle::{NodeState, OperationState, ServerEvent, ServerState};
use undine_store::{
    Db, Node, Operation, Replica, ReplicaFilter, ReplicaState, Server, ServerFilter, Tx, Wanted,
};

use crate::app::server_create::{candidate, needs};
use crate::clock::now_ms;
use crate::control::{Cluster, Control};
use crate::copies::{self, Heir, heir};
use crate::memory::is_doubted;
use crate::operations::{NewOperation, event_of, start, start_urgent, wake};
use crate::placement::Candidate;
use crate::refusal::Result;
use crate::routes::server_changed;
use crate::slots;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fenced {
    /// Servers that move or wait for a copy.
    pub moved: usize,
    /// Servers elsewhere that lost a copy.
    pub degraded: Vec<undine_model::ServerId>,
}

/// Declares a node dead as it was read, within a transaction. None: somebody else did, it was
/// removed, or its record has changed since: it may have been confirmed what it owns, and is
/// judged anew.
pub async fn fence_in(
    control: &Control,
    tx: &Tx,
    read: &Node,
    reason: &str,
) -> Result<Option<Fenced>> {
    let id = read.id;
    let mut node = tx.nodes().lock(id).await?;
    let is_over = matches!(node.state, NodeState::Fenced | NodeState::Removed);
    if is_over || node.version != read.version {
        return Ok(None);
    }
    let now = now_ms();
    node.state = NodeState::Fenced;
    node.fenced_at = Some(now);
    let node = tx.nodes().update(&node, now).await?;
    let mut fenced = Fenced::default();
    let mut heirs = Heirs::read(control, tx).await?;
    for server in own_servers(tx, id).await? {
        let server = tx.servers().lock(server.id).await?;
        if server.wanted == Wanted::Running && server.state != ServerState::Deleting {
            let why = format!("{} is dead: {reason}", node.name);
            fail_over(tx, &mut heirs, server, why).await?;
            fenced.moved += 1;
        }
    }
    for copy in own_copies(tx, id).await? {
        let server = tx.servers().lock(copy.server).await?;
        if server.node == Some(id) {
            continue;
        }
        let why = format!("{} is dead", node.name);
        if !copies::leave(tx, &server, &[copy.id], &why)
            .await?
            .is_empty()
        {
            fenced.degraded.push(server.id);
        }
    }
    if node.bmc.is_some() {
        power_off(tx, id, reason).await?;
    }
    let data = json!({
        "name": node.name, "reason": reason, "servers": fenced.moved,
        "degraded": fenced.degraded.len(),
    });
    let event = event_of("node.fenced", id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    Ok(Some(fenced))
}

/// Somebody said how its power is cut: that follows, beside the fail-over.
async fn power_off(tx: &Tx, id: NodeId, reason: &str) -> Result<()> {
    let wish = NewOperation {
        kind: "node.power_off",
        subjects: vec![id.uuid()],
        account: None,
        params: json!({"node": id}),
        reason: reason.to_owned(),
    };
    start(tx, wish).await?;
    Ok(())
}

/// Declares a node dead as it was read.
pub async fn fence(control: &Control, node: &Node, reason: &str) -> Result<bool> {
    let tx = control.store.begin().await?;
    let Some(fenced) = fence_in(control, &tx, node, reason).await? else {
        return Ok(false);
    };
    tx.commit().await?;
    after(control, node.id, reason, fenced);
    Ok(true)
}

/// What follows the commit: owners are told of the copies that left, the work begins.
pub fn after(control: &Control, id: NodeId, reason: &str, fenced: Fenced) {
    tracing::warn!(
        node = %id, reason, servers = fenced.moved, degraded = fenced.degraded.len(),
        "a node was declared dead"
    );
    wake(control);
    for server in fenced.degraded {
        let control = control.clone();
        tokio::spawn(async move { slots::tell(&control, server).await });
    }
    control.copies_due.notify_one();
}

/// Its servers, the most important first.
async fn own_servers(tx: &Tx, node: NodeId) -> Result<Vec<Server>> {
    let filter = ServerFilter {
        node: Some(node),
        ..ServerFilter::default()
    };
    let mut servers = tx.servers().all(&filter).await?;
    servers.sort_by_key(|server| (std::cmp::Reverse(server.importance), server.id));
    Ok(servers)
}

/// Its copies that are, or may be, in a slot.
async fn own_copies(tx: &Tx, node: NodeId) -> Result<Vec<Replica>> {
    let filter = ReplicaFilter {
        node: Some(node),
        ..ReplicaFilter::default()
    };
    let mut copies = tx.replicas().all(&filter).await?;
    copies.retain(|it| matches!(it.state, ReplicaState::InSync | ReplicaState::Syncing));
    Ok(copies)
}

/// The nodes that may take servers over, and what is left on them as they do.
pub struct Heirs {
    live: BTreeSet<NodeId>,
    candidates: Vec<Candidate>,
}

impl Heirs {
    /// As recorded, without those that this instance has not heard lately.
    pub async fn read(control: &Control, db: &impl Db) -> Result<Self> {
        let now = std::time::Instant::now();
        let suspect = |node: NodeId| control.heard.is_suspect(node, now);
        Self::without(&control.cluster, db, suspect).await
    }

    /// As recorded.
    pub async fn recorded(cluster: &Cluster, db: &impl Db) -> Result<Self> {
        Self::without(cluster, db, |_| false).await
    }

    async fn without(
        cluster: &Cluster,
        db: &impl Db,
        suspect: impl Fn(NodeId) -> bool,
    ) -> Result<Self> {
        let mut nodes = copies::live_nodes(db).await?;
        nodes.retain(|node| !suspect(node.id));
        let mut candidates = Vec::new();
        for node in &nodes {
            if node.state == NodeState::Ready || node.cordoned {
                candidates.extend(candidate(cluster, db, node, &node.name).await?);
            }
        }
        Ok(Self {
            live: nodes.iter().map(|node| node.id).collect(),
            candidates,
        })
    }

    /// The nodes of a server that cannot be reckoned with.
    fn missing(&self, server: &Server, copies: &[Replica]) -> BTreeSet<NodeId> {
        let all = copies.iter().map(|copy| copy.node).chain(server.node);
        all.filter(|node| !self.live.contains(node)).collect()
    }

    fn choose(&mut self, server: &Server, copies: &[Replica]) -> Result<Option<Heir>, String> {
        let needs = needs(server);
        let found = heir(&needs, copies, &self.live, &self.candidates)?;
        if let Some(heir) = &found
            && let Some(it) = self.candidates.iter_mut().find(|it| it.id == heir.node)
        {
            it.promise(&needs);
        }
        Ok(found)
    }
}

/// Within a transaction that has locked the server: it gets a new owner, if a copy in sync is
/// within reach, and the operation that brings it up there; otherwise the operation waits.
pub async fn fail_over(
    tx: &Tx,
    heirs: &mut Heirs,
    server: Server,
    why: String,
) -> Result<(Server, Operation)> {
    supersede(tx, &server, &why).await?;
    let operation = start_urgent(
        tx,
        NewOperation {
            kind: "server.failover",
            subjects: vec![server.id.uuid()],
            account: None,
            params: json!({"server": server.id}),
            reason: why.clone(),
        },
        server.importance,
    )
    .await?;
    let mut server = server;
    server.operation = Some(operation.id);
    let server = match take_over(tx, heirs, server.clone(), &why).await? {
        Taken::Over(server) => *server,
        Taken::Waits(waits) => wait(tx, server, &waits).await?,
    };
    Ok((server, operation))
}

/// What came of a try to find a new owner.
pub enum Taken {
    /// It has one: this is the record as committed.
    Over(Box<Server>),
    /// It waits, for this reason.
    Waits(String),
}

/// Within a transaction that has locked the server: epoch, owner and copies in sync change
/// together, the route leaves the old owner.
pub async fn take_over(tx: &Tx, heirs: &mut Heirs, server: Server, why: &str) -> Result<Taken> {
    if is_doubted(tx, server.id).await? {
        let waits = "the store may have forgotten something of it: its nodes are asked first";
        return Ok(Taken::Waits(waits.to_owned()));
    }
    let copies = copies::of(tx, server.id).await?;
    let heir = match heirs.choose(&server, &copies) {
        Ok(Some(heir)) => heir,
        Ok(None) => return Ok(Taken::Waits(waiting_for(tx, &copies).await?)),
        Err(full) => return Ok(Taken::Waits(format!("no node has room for it: {full}"))),
    };
    let Ok((state, _)) = server.state.on(ServerEvent::FailOver) else {
        return Ok(Taken::Waits(format!("it is {}", server.state)));
    };
    let dead = heirs.missing(&server, &copies);
    let record = match succeed(&copies::record(&server, &copies), &dead, heir.node) {
        Ok(record) => record,
        Err(refusal) => return Ok(Taken::Waits(refusal.to_string())),
    };
    let mut next = server;
    (next.epoch, next.node) = (record.epoch, record.owner);
    next.state = state;
    next.error = None;
    next.slots = next.replica_count;
    next.reason = format!("{why}; {}", heir.reason);
    copies::follow(tx, &copies, &record, Some(why)).await?;
    let next = tx.servers().update(&next, now_ms()).await?;
    server_changed(tx, next.id).await?;
    let data = json!({
        "name": next.name, "node": heir.node, "epoch": next.epoch, "reason": next.reason,
    });
    let event = event_of("server.failover", next.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    Ok(Taken::Over(Box::new(next)))
}

/// Where the copies in sync are, in words.
async fn waiting_for(tx: &Tx, copies: &[Replica]) -> Result<String> {
    let mut names = Vec::new();
    for copy in copies::in_sync(copies, None) {
        let node = tx.nodes().find(copy.node).await?;
        names.extend(node.map(|node| node.name.to_string()));
    }
    Ok(if names.is_empty() {
        "waiting for a replica: no copy in sync is left; an operator may accept the loss of the \
         newest writes"
            .to_owned()
    } else {
        format!(
            "waiting for a replica: the copies in sync are on {}",
            names.join(", ")
        )
    })
}

async fn wait(tx: &Tx, mut server: Server, waits: &str) -> Result<Server> {
    server.state = ServerState::Failed;
    server.error = Some(waits.to_owned());
    let server = tx.servers().update(&server, now_ms()).await?;
    server_changed(tx, server.id).await?;
    let data = json!({"name": server.name, "error": waits});
    let event = event_of("server.waiting", server.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    Ok(server)
}

/// Within a transaction that has locked the server: what worked on it is over.
pub async fn supersede(tx: &Tx, server: &Server, why: &str) -> Result<()> {
    let Some(id) = server.operation else {
        return Ok(());
    };
    let Some(mut operation) = tx.operations().find(id).await? else {
        return Ok(());
    };
    if matches!(
        operation.state,
        OperationState::Succeeded | OperationState::Failed
    ) {
        return Ok(());
    }
    operation.state = OperationState::Failed;
    let detail = format!("Given up: {why}.");
    operation.error = Some(json!({"detail": detail, "remedy": ""}).to_string());
    operation.owner = None;
    operation.lease_until = 0;
    tx.operations().update(&operation, now_ms()).await?;
    Ok(())
}
