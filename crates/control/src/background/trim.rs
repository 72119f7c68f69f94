//! What is too old is forgotten, so that the store stays bounded.

use undine_store::{Db, ServerFilter};

use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

const DAY_MS: i64 = 24 * 3_600_000;
const EVENTS_MS: i64 = 7 * DAY_MS;
const OPERATIONS_MS: i64 = 30 * DAY_MS;
/// Edges and servers that are further behind get everything.
const ROUTE_VERSIONS: u64 = 20_000;
const MANIFEST_VERSIONS: u64 = 2_000;

/// Forgets.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let now = now_ms();
    let store = &control.store;
    store.events().trim(now - EVENTS_MS).await?;
    store.operations().trim(now - OPERATIONS_MS).await?;
    store.idempotency().trim(now).await?;
    store.sessions().trim(now).await?;
    store.links().trim(now).await?;
    store.failures().trim(now - DAY_MS).await?;
    store.metrics().trim(now).await?;
    store.routes().trim(ROUTE_VERSIONS).await?;
    for server in store.servers().all(&ServerFilter::default()).await? {
        store.manifests().trim(server.id, MANIFEST_VERSIONS).await?;
    }
    Ok(())
}
