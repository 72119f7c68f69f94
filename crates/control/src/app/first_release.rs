//! A site that was never deployed gets an empty release when a file is put into it: "I upload a
//! file and it is on my site" holds from the first one.
//!
//! The release's id follows from the site's. Whoever does this at the same time, or again after an
//! instance died over it, makes the same release and not a second one that hides the first.

use std::time::Duration;

use serde_json::json;
use undine_api::guest::{Activate, Ask};
use undine_model::lifecycle::OperationState;
use undine_model::{OperationId, ReleaseId};
use undine_store::{Db, ReleaseState, Server, Site, StoreError};
use uuid::Uuid;

use super::caller::Caller;
use crate::clock::now_ms;
use crate::control::Control;
use crate::nodes::NodeClient;
use crate::operations::{NewOperation, start, wake};
use crate::refusal::{Refusal, Result};

/// How long whoever sends the first file waits.
const PATIENCE: Duration = Duration::from_secs(45);

fn id_of(site: &Site) -> ReleaseId {
    ReleaseId::from_uuid(Uuid::from_u128(site.id.uuid().as_u128() ^ 1))
}

/// Makes it live, unless a release is.
pub async fn ensure(
    control: &Control,
    caller: &Caller,
    site: &Site,
    server: &Server,
    client: &NodeClient,
) -> Result<()> {
    let release = id_of(site);
    record(control, site, release).await?;
    let ask = Ask::Blank(Activate {
        site: site.id,
        release,
    });
    client.guest(server.id, server.epoch, ask).await?;
    match deploy(control, caller, site, release).await? {
        Some(operation) => ended(control, operation).await,
        None => Ok(()),
    }
}

async fn record(control: &Control, site: &Site, release: ReleaseId) -> Result<()> {
    let now = now_ms();
    let record = undine_store::Release {
        id: release,
        version: 1,
        created_at: now,
        updated_at: now,
        site: site.id,
        sha256: String::new(),
        size: undine_model::Bytes(0),
        state: ReleaseState::Ready,
        previous: None,
        error: None,
    };
    match control.store.releases().insert(&record).await {
        Ok(()) | Err(StoreError::Taken { .. }) => Ok(()),
        // Another store may say otherwise that it is there.
        Err(error) => match control.store.releases().find(release).await? {
            Some(_) => Ok(()),
            None => Err(error.into()),
        },
    }
}

async fn deploy(
    control: &Control,
    caller: &Caller,
    site: &Site,
    release: ReleaseId,
) -> Result<Option<OperationId>> {
    let tx = control.store.begin().await?;
    let site = tx.sites().lock(site.id).await?;
    if site.current_release.is_some() {
        return Ok(None);
    }
    let operation = start(
        &tx,
        NewOperation {
            kind: "release.deploy",
            subjects: vec![release.uuid(), site.id.uuid()],
            account: Some(site.account),
            params: json!({"site": site.id, "server": site.server, "release": release}),
            reason: format!("the first file, put there by {}", caller.who()),
        },
    )
    .await?;
    let data = json!({"domain": site.domain});
    let subject = format!("release/{release}");
    caller
        .did(&tx, "release.begin", subject, Some(site.account), data)
        .await?;
    tx.commit().await?;
    wake(control);
    Ok(Some(operation.id))
}

async fn ended(control: &Control, id: OperationId) -> Result<()> {
    let wait = async {
        loop {
            let operation = control.store.operations().get(id).await?;
            match operation.state {
                OperationState::Succeeded => return Ok(()),
                OperationState::Failed => {
                    return Err(Refusal::unavailable(
                        "The site's first release could not be made live; its operation says why.",
                    ));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| {
            Err(Refusal::unavailable(
                "The site's first release is being made live, and that takes its time.",
            ))
        })
}
