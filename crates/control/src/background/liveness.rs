//! Nodes that are not heard: `silent` for whoever looks, and dead when they have been silent for
//! long enough, a witness cannot reach them either, and the brake does not hold.
//!
//! A node is heard of by its guard's renewals; one whose guard was never heard is never declared
//! dead by itself. What is decided here is committed by `fencing`.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;
use undine_failover::{Judgement, Known};
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, Node, NodeFilter, StoreError};

use crate::asking::{ask_instances, ask_witnesses};
use crate::clock::now_ms;
use crate::control::Control;
use crate::fencing::fence;
use crate::operations::event_of;
use crate::policy::Policy;
use crate::refusal::Result;

/// Silent after this long.
const SILENT_MS: i64 = 15_000;

/// The instance runs: a stall of its own is noticed by this not being called.
pub(super) async fn pulse(control: &Control) -> Result<()> {
    control.heard.pulse(Instant::now());
    Ok(())
}

/// Learns at its start which nodes have guards, from what was written down before.
pub(super) async fn remember(control: &Control) -> Result<()> {
    let leases = control.store.leases().all().await?;
    control
        .heard
        .remember(leases.iter().map(|lease| lease.node));
    Ok(())
}

/// Looks at every node that may be dead.
pub(super) async fn deaths(control: &Control) -> Result<()> {
    let nodes = know(control).await?;
    let judged = control.heard.judge(Instant::now());
    let named = |id: &NodeId| nodes.iter().find(|node| node.id == *id);
    let asks = judged.iter().filter_map(|(id, it)| match it {
        Judgement::Suspect { witnesses, .. } => {
            let witnesses: Vec<&Node> = witnesses.iter().filter_map(named).collect();
            Some(ask_witnesses(control, named(id)?, witnesses))
        }
        _ => None,
    });
    join_all(asks).await;
    let is_asked = |it: &Judgement| matches!(it, Judgement::Suspect { .. });
    if judged.values().any(is_asked) {
        // Last, so that nothing is newer than what they say.
        ask_instances(control).await?;
    }
    control.heard.pulse(Instant::now());
    for (id, judgement) in control.heard.judge(Instant::now()) {
        match (judgement, named(&id)) {
            (Judgement::Dead(why), Some(node)) => declare(control, node, &why).await?,
            (Judgement::Braked(why), Some(node)) => call_operator(control, node, &why).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads the nodes, and what was confirmed to them.
pub(crate) async fn know(control: &Control) -> Result<Vec<Node>> {
    let policy = Policy::of(&control.store).await?;
    let nodes = control.store.nodes().all(&NodeFilter::default()).await?;
    let now = Instant::now();
    control.heard.pulse(now);
    let known = nodes.iter().filter_map(|node| known(node, &policy));
    control.heard.know(known.collect(), policy.rules(), now);
    Ok(nodes)
}

fn known(node: &Node, policy: &Policy) -> Option<Known> {
    (node.state != NodeState::Removed).then(|| Known {
        node: node.id,
        is_fenced: node.state == NodeState::Fenced,
        silence_ms: policy.silence_ms(&node.accelerator),
        // Each confirmation changes the record, and little else does.
        confirmed: node.version.unsigned_abs(),
    })
}

async fn declare(control: &Control, node: &Node, why: &str) -> Result<()> {
    // Servers that the store may have forgotten something of wait: see `fencing::take_over`.
    fence(control, node, why).await?;
    Ok(())
}

/// The brake holds: said once for each node's silence, as an event and in the log.
async fn call_operator(control: &Control, node: &Node, why: &str) -> Result<()> {
    if !control.heard.call_once(node.id) {
        return Ok(());
    }
    let why = format!(
        "{why}; `undine node fence {} --confirm {}` does that",
        node.name, node.name
    );
    tracing::error!(node = %node.name, why, "the brake holds");
    let data = json!({"name": node.name, "reason": why});
    let event = event_of("node.brake", node.id.uuid(), None, data);
    control.store.events().announce(vec![event]).await?;
    Ok(())
}

/// Says of every node whether it is heard: for whoever looks.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let now = now_ms();
    // An instance that has just started, or was stalled, first listens for a while.
    if now - control.started_at < SILENT_MS {
        return Ok(());
    }
    let leases = control.store.leases().all().await?;
    for node in control.store.nodes().all(&NodeFilter::default()).await? {
        let lease = leases
            .iter()
            .find(|lease| lease.node == node.id)
            .map(|lease| lease.renewed_at);
        let heard = lease
            .into_iter()
            .chain(node.last_report_at)
            .max()
            .unwrap_or(node.created_at);
        let silent = now - heard > SILENT_MS;
        let next = match (node.state, silent) {
            (NodeState::Ready, true) => NodeState::Silent,
            (NodeState::Silent, false) => NodeState::Ready,
            _ => continue,
        };
        show(control, &node, next, now).await?;
    }
    Ok(())
}

async fn show(control: &Control, node: &Node, next: NodeState, now: i64) -> Result<()> {
    let tx = control.store.begin().await?;
    let mut changed = node.clone();
    changed.state = next;
    match tx.nodes().update(&changed, now).await {
        // Another instance saw it too.
        Err(StoreError::Stale { .. } | StoreError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    let event = event_of(
        &format!("node.{next}"),
        node.id.uuid(),
        None,
        json!({"name": node.name}),
    );
    tx.events().announce(vec![event]).await?;
    tx.commit().await?;
    tracing::info!(node = %node.name, state = %next, "a node changed");
    Ok(())
}
