//! This instance says that it lives, and writes down the leases that it has renewed.

use undine_model::lifecycle::OperationState;
use undine_store::{Db, NodeFilter, OperationFilter, StoreError};

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

/// Writes down when it started, and that the edges may send it visitors of the panel. What its
/// process before had begun is free at once.
pub async fn announce(control: &Control) -> Result<()> {
    let own = OperationFilter {
        owner: Some(control.id),
        state: Some(OperationState::Running),
        ..OperationFilter::default()
    };
    for operation in control.store.operations().all(&own).await? {
        match control
            .store
            .operations()
            .renew_lease(operation.id, control.id, now_ms(), 0)
            .await
        {
            Err(StoreError::LostLease(_)) => {}
            other => other?,
        }
    }
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

/// Writes down renewals, and looks which nodes the guards are to be told of.
pub(super) async fn leases(control: &Control) -> Result<()> {
    let nodes = control.store.nodes().all(&NodeFilter::default()).await?;
    control.leases.know(&nodes);
    Ok(control.leases.write(&control.store).await?)
}
