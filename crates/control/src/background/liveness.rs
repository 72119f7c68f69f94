//! Nodes that have not been heard of are `silent`, and `ready` again when they are.
//!
//! A node is heard of by its guard's renewals or its agent's reports. Nothing is fenced or moved
//! here: sites of a silent node may well be answering.

use serde_json::json;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, NodeFilter, StoreError};

use crate::clock::now_ms;
use crate::control::Control;
use crate::operations::event_of;
use crate::refusal::Result;

/// Silent after this long.
const SILENT_MS: i64 = 15_000;

/// Looks at every node.
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
        let tx = control.store.begin().await?;
        let mut changed = node.clone();
        changed.state = next;
        match tx.nodes().update(&changed, now).await {
            // Another instance saw it too.
            Err(StoreError::Stale { .. } | StoreError::NotFound { .. }) => continue,
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
    }
    Ok(())
}
