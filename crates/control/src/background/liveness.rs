//! Nodes that are not heard: `silent` for whoever looks, and dead when they have been silent for
//! long enough, a witness cannot reach them either, and the brake does not hold.
//!
//! A node is heard of by its guard's renewals; one whose guard was never heard is never declared
//! dead by itself. What is decided here is committed by `fencing`.

use std::time::{Duration, Instant};

use serde_json::json;
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, Node, NodeFilter, StoreError};

use crate::asking::{ask_instances, ask_witnesses};
use crate::clock::now_ms;
use crate::control::Control;
use crate::fencing::fence;
use crate::heard::brake_holds;
use crate::operations::event_of;
use crate::policy::Policy;
use crate::refusal::Result;

/// Silent after this long.
const SILENT_MS: i64 = 15_000;
/// Witnesses are asked so much before a node may be dead: they take as long to be sure.
const AHEAD: Duration = Duration::from_millis(1_000);

/// The instance runs: a stall of its own is noticed by this not being called.
pub(super) async fn pulse(control: &Control) -> Result<()> {
    control.heard.pulse(Instant::now());
    Ok(())
}

/// Learns at its start which nodes have guards, from what was written down before.
pub(super) async fn remember(control: &Control) -> Result<()> {
    let now = Instant::now();
    for lease in control.store.leases().all().await? {
        let age = (now_ms() - lease.renewed_at).max(0).unsigned_abs();
        control
            .heard
            .told(lease.node, Duration::from_millis(age), now);
    }
    Ok(())
}

/// Looks at every node that may be dead.
pub(super) async fn deaths(control: &Control) -> Result<()> {
    control.heard.pulse(Instant::now());
    let nodes = control.store.nodes().all(&NodeFilter::default()).await?;
    let may_die = |node: &&Node| !matches!(node.state, NodeState::Fenced | NodeState::Removed);
    let counted: Vec<&Node> = nodes.iter().filter(may_die).collect();
    let suspect = |node: &Node| control.heard.is_suspect(node.id, Instant::now());
    if counted.iter().any(|node| suspect(node)) {
        // They may hear what this instance does not.
        ask_instances(control).await?;
    }
    let policy = Policy::of(&control.store).await?;
    let window = Duration::from_millis(policy.brake_window_ms);
    let limits: Vec<(NodeId, Duration)> = counted
        .iter()
        .map(|node| (node.id, limit(&policy, node)))
        .collect();
    control.heard.note(&limits, window, Instant::now());
    let silent: Vec<&Node> = counted
        .iter()
        .copied()
        .filter(|node| silent_for(control, node.id) + AHEAD >= limit(&policy, node))
        .collect();
    let looks = silent
        .iter()
        .map(|node| look(control, node, &nodes, counted.len(), &policy));
    for outcome in futures_util::future::join_all(looks).await {
        outcome?;
    }
    Ok(())
}

fn limit(policy: &Policy, node: &Node) -> Duration {
    Duration::from_millis(policy.silence_ms(&node.accelerator))
}

fn silent_for(control: &Control, node: NodeId) -> Duration {
    let now = Instant::now();
    control.heard.silence(node, now).unwrap_or_default()
}

/// A node that is silent, or nearly long enough: asks, waits for the rest of the time, decides.
async fn look(
    control: &Control,
    node: &Node,
    all: &[Node],
    count: usize,
    policy: &Policy,
) -> Result<()> {
    let window = Duration::from_millis(policy.brake_window_ms);
    let witnesses = ask_witnesses(control, node, all).await;
    if !witnesses.confirm_death() {
        return Ok(());
    }
    let limit = limit(policy, node);
    let rest = limit.saturating_sub(silent_for(control, node.id));
    if rest > AHEAD {
        return Ok(());
    }
    tokio::time::sleep(rest).await;
    control.heard.pulse(Instant::now());
    ask_instances(control).await?;
    let silence = silent_for(control, node.id);
    if silence < limit {
        return Ok(());
    }
    let together = control.heard.together(node.id, window);
    if brake_holds(together, count, policy.brake_percent) {
        return call_operator(control, node, together, count).await;
    }
    if super::restored::is_waiting(control).await? {
        return Ok(());
    }
    let reason = format!(
        "silent for {:.1} s, and {} of the nodes asked cannot reach it",
        silence.as_secs_f64(),
        witnesses.miss
    );
    fence(control, node.id, &reason).await?;
    Ok(())
}

/// The brake holds: said once for each node's silence, as an event and in the log.
async fn call_operator(
    control: &Control,
    node: &Node,
    together: usize,
    count: usize,
) -> Result<()> {
    if !control.heard.call_once(node.id) {
        return Ok(());
    }
    let why = format!(
        "{together} of {count} nodes fell silent together: nothing is fenced, for the fault may be \
         in the network; `undine node fence {} --confirm {}` overrides",
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
