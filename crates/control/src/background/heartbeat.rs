//! This instance says that it lives, and writes down the leases that it has renewed.

use undine_store::{Db, StoreError};

use crate::clock::now_ms;
use crate::control::{Control, PROGRAM};
use crate::refusal::Result;

/// Lives.
pub(super) async fn turn(control: &Control) -> Result<()> {
    match control
        .store
        .instances()
        .heartbeat(control.id, now_ms())
        .await
    {
        Err(StoreError::NotFound { .. }) => {
            tracing::error!("this instance was removed from the store; join again");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Writes down when it started, and that the edges may send it visitors of the panel.
pub async fn announce(control: &Control) -> Result<()> {
    let host = control.cluster.panel_host();
    let tx = control.store.begin().await?;
    let mut instance = tx.instances().lock(control.id).await?;
    instance.started_at = control.started_at;
    instance.program = PROGRAM.to_owned();
    tx.instances().update(&instance, now_ms()).await?;
    tx.instances().heartbeat(control.id, now_ms()).await?;
    tx.routes().changed([host]).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes down renewals.
pub(super) async fn leases(control: &Control) -> Result<()> {
    Ok(control.leases.write(&control.store).await?)
}
