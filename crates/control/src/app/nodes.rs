//! Hardware nodes: looking at them, taking them out of use, removing them.

use std::time::Duration;

use serde_json::json;
use undine_api::internal::NodeUsage;
use undine_api::public::{
    Committed, FenceNode, List, Node, NodeUse, Operation, SetBmc, UpdateNode,
};
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, NodeId, Slug};
use undine_store::{Db, NodeFilter, Resolution, ServerFilter};

use super::caller::{Caller, Expected};
use super::operations;
use super::paging::PageWish;
use crate::clock::now_ms;
use crate::control::Control;
use crate::fencing::{after, fence_in};
use crate::leases::LEASE_MS;
use crate::operations::{NewOperation, start, wake};
use crate::power::{self, Switch};
use crate::refusal::{Refusal, Result};

/// One that was heard so lately may still act on what it was told.
const LEASE: Duration = Duration::from_millis(LEASE_MS);

async fn show(control: &Control, node: undine_store::Node) -> Result<Node> {
    let store = &control.store;
    let filter = ServerFilter {
        node: Some(node.id),
        ..ServerFilter::default()
    };
    let mut committed = Committed {
        servers: 0,
        memory: Bytes(0),
        cpu: Default::default(),
        disk: Bytes(0),
    };
    for server in store.servers().all(&filter).await? {
        let needs = super::server_create::needs(&server);
        committed.servers += 1;
        committed.memory.0 += needs.memory.0;
        committed.cpu.0 += needs.cpu.0;
        committed.disk.0 += needs.disk.0;
    }
    let leases = store.leases().all().await?;
    Ok(Node {
        id: node.id,
        name: node.name,
        state: node.state,
        address: std::net::SocketAddr::new(node.address, node.port).to_string(),
        inventory: serde_json::from_value(node.inventory).ok(),
        committed,
        usage: usage(control, node.id).await?,
        last_report_at: node.last_report_at,
        lease_renewed_at: leases
            .iter()
            .find(|lease| lease.node == node.id)
            .map(|l| l.renewed_at),
        certificate_expires_at: node.certificate_expires_at,
        bmc: node.bmc.as_ref().and_then(power::agent_of),
        created_at: node.created_at,
        version: node.version,
    })
}

/// What it used when it last said so, within a minute.
async fn usage(control: &Control, node: NodeId) -> Result<Option<NodeUsage>> {
    let now = now_ms();
    let series = control
        .store
        .metrics()
        .read(node.uuid(), &[], now - 60_000, now + 1, Resolution::Fine)
        .await?;
    let last = |name: &str| {
        series
            .iter()
            .find(|s| s.name == name)
            .and_then(|s| s.points.last())
            .map(|point| point.value)
    };
    Ok(last("cpu").map(|cpu| NodeUsage {
        cpu,
        memory: Bytes(last("memory_bytes").unwrap_or_default() as u64),
        disk: Bytes(last("disk_bytes").unwrap_or_default() as u64),
        cpu_pressure: last("cpu_pressure").unwrap_or_default(),
        memory_pressure: last("memory_pressure").unwrap_or_default(),
        io_pressure: last("io_pressure").unwrap_or_default(),
    }))
}

/// One page of the nodes.
pub async fn all(control: &Control, wish: &PageWish, name: Option<Slug>) -> Result<List<Node>> {
    let filter = NodeFilter {
        name,
        ..NodeFilter::default()
    };
    let page = control
        .store
        .nodes()
        .list(&filter, wish.request(false)?)
        .await?;
    let mut items = Vec::with_capacity(page.items.len());
    for node in page.items {
        items.push(show(control, node).await?);
    }
    Ok(List {
        items,
        next: page.next.map(|id| id.to_string()),
    })
}

/// One node.
pub async fn get(control: &Control, id: NodeId) -> Result<Node> {
    show(control, control.store.nodes().get(id).await?).await
}

/// The node with this id or name.
pub async fn named(control: &Control, text: &str) -> Result<undine_store::Node> {
    let found = match text.parse::<NodeId>() {
        Ok(id) => control.store.nodes().find(id).await?,
        Err(_) => match text.parse() {
            Ok(name) => {
                let filter = NodeFilter {
                    name: Some(name),
                    ..NodeFilter::default()
                };
                control.store.nodes().find_by(&filter).await?
            }
            Err(_) => None,
        },
    };
    found.ok_or_else(|| Refusal::invalid("node", format!("There is no node `{text:.60}`.")))
}

/// Takes a node out of use for new servers, or back into it.
pub async fn update(
    control: &Control,
    caller: &Caller,
    id: NodeId,
    expected: Expected,
    wish: UpdateNode,
) -> Result<Node> {
    let tx = control.store.begin().await?;
    let mut node = tx.nodes().lock(id).await?;
    expected.check("node", node.version)?;
    if node.state != NodeState::Removed {
        node.cordoned = wish.state == NodeUse::Cordoned;
    }
    node.state = match (node.state, wish.state) {
        (NodeState::Removed, _) => {
            return Err(Refusal::conflict(
                "removed",
                "The node was removed",
                "The node is on its way out.",
            ));
        }
        // It becomes ready, or cordoned, by itself when it is back and clean.
        (NodeState::Fenced, _) => NodeState::Fenced,
        // It becomes ready by itself when it is heard of.
        (NodeState::Silent, NodeUse::Ready) => NodeState::Silent,
        (_, NodeUse::Ready) => NodeState::Ready,
        (_, NodeUse::Cordoned) => NodeState::Cordoned,
    };
    let node = tx.nodes().update(&node, now_ms()).await?;
    caller
        .did(
            &tx,
            "node.update",
            format!("node/{id}"),
            None,
            json!({"state": node.state}),
        )
        .await?;
    tx.commit().await?;
    show(control, node).await
}

/// Says how a node's power is cut when it is dead; none: nobody cuts it.
pub async fn set_bmc(
    control: &Control,
    caller: &Caller,
    id: NodeId,
    expected: Expected,
    wish: Option<SetBmc>,
) -> Result<Node> {
    let agent = wish.as_ref().map(|wish| wish.agent.clone());
    let bmc = match wish {
        None => None,
        Some(SetBmc { agent, options }) => {
            let switch = Switch { agent, options };
            switch.check()?;
            if switch.program(&control.fence_agents).is_none() {
                let why = format!("{} has no {}.", control.name, switch.agent);
                return Err(Refusal::invalid("agent", why)
                    .remedy("Install Debian's fence-agents on each of control's machines."));
            }
            Some(switch.seal(&control.secrets, id)?)
        }
    };
    let tx = control.store.begin().await?;
    let mut node = tx.nodes().lock(id).await?;
    expected.check("node", node.version)?;
    node.bmc = bmc;
    let node = tx.nodes().update(&node, now_ms()).await?;
    caller
        .did(
            &tx,
            "node.bmc",
            format!("node/{id}"),
            None,
            json!({"agent": agent}),
        )
        .await?;
    tx.commit().await?;
    show(control, node).await
}

/// Removes a node that holds nothing any more.
pub async fn remove(
    control: &Control,
    caller: &Caller,
    id: NodeId,
    expected: Expected,
) -> Result<Operation> {
    let tx = control.store.begin().await?;
    let node = tx.nodes().lock(id).await?;
    expected.check("node", node.version)?;
    let servers = tx
        .servers()
        .count(&ServerFilter {
            node: Some(id),
            ..ServerFilter::default()
        })
        .await?;
    if servers > 0 {
        return Err(Refusal::conflict(
            "in-use",
            "The node holds servers",
            format!("{} holds {servers} servers.", node.name),
        )
        .remedy("Delete or move them first."));
    }
    let operation = start(
        &tx,
        NewOperation {
            kind: "node.remove",
            subjects: vec![id.uuid()],
            account: None,
            params: json!({"node": id}),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await?;
    caller
        .did(
            &tx,
            "node.remove",
            format!("node/{id}"),
            None,
            json!({"name": node.name}),
        )
        .await?;
    let shown = operations::show(&tx, operation).await?;
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

/// Declares a node dead on the operator's word: neither witnesses nor the brake are asked. One
/// that is heard now is not dead.
pub async fn fence(
    control: &Control,
    caller: &Caller,
    id: NodeId,
    wish: FenceNode,
) -> Result<Node> {
    let node = control.store.nodes().get(id).await?;
    if wish.confirm != node.name.as_str() {
        return Err(Refusal::invalid(
            "confirm",
            format!(
                "Fencing a node takes its name, {}, as confirmation.",
                node.name
            ),
        )
        .remedy("Make sure that it is this node that is dead, then send its name."));
    }
    // Read before the others are asked: what is confirmed to it meanwhile changes it.
    let read = crate::background::know(control).await?;
    let node = read.into_iter().find(|it| it.id == id).unwrap_or(node);
    crate::asking::ask_instances(control).await?;
    let silence = control.heard.silence(id, std::time::Instant::now());
    if silence.is_some_and(|it| it < LEASE) {
        return Err(Refusal::conflict(
            "alive",
            "The node is alive",
            format!("{} was heard just now.", node.name),
        )
        .remedy("Cordon it and move its servers, or cut its power first."));
    }
    let reason = format!("{} says so", caller.who());
    let tx = control.store.begin().await?;
    let Some(fenced) = fence_in(control, &tx, &node, &reason).await? else {
        return Err(Refusal::conflict(
            "fenced",
            "The node is fenced already",
            format!(
                "{} was declared dead before, was removed, or has changed just now.",
                node.name
            ),
        )
        .remedy("Look at it again; if it is still silent, say it once more."));
    };
    let data = json!({"name": node.name, "servers": fenced.moved});
    caller
        .did(&tx, "node.fence", format!("node/{id}"), None, data)
        .await?;
    tx.commit().await?;
    after(control, id, &reason, fenced);
    get(control, id).await
}
