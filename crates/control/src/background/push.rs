//! Servers that run an older version of what they should are sent what changed: after a plan was
//! changed, an account suspended, or a push that did not get through.

use undine_model::lifecycle::ServerState;
use undine_store::{Db, Server, ServerFilter};

use crate::clock::now_ms;
use crate::control::Control;
use crate::manifests::push;
use crate::refusal::Result;

/// Operations push by themselves; this comes after them.
const AFTER_MS: i64 = 3_000;

/// Looks at every server that is up.
pub(super) async fn turn(control: &Control) -> Result<()> {
    let filter = ServerFilter {
        state: Some(ServerState::Running),
        ..ServerFilter::default()
    };
    let behind = |server: &Server| {
        server.manifest_applied < server.manifest_version && now_ms() - server.updated_at > AFTER_MS
    };
    for server in control
        .store
        .servers()
        .all(&filter)
        .await?
        .into_iter()
        .filter(behind)
    {
        if let Err(trouble) = push(control, server.id, server.manifest_version).await {
            tracing::info!(server = %server.name, %trouble, "a push waits for its next turn");
        }
    }
    Ok(())
}
