//! Waits for an operation and shows its progress.

use std::time::Duration;

use anyhow::{Result, bail};
use undine_api::public::{Operation, OperationStepState};
use undine_client::{Client, ClientError};
use undine_model::OperationId;
use undine_model::lifecycle::OperationState;

const EVERY: Duration = Duration::from_millis(150);

/// Waits until the operation is done; steps are told on standard error as they end. An instance
/// of control that dies meanwhile is no end: another one goes on with the work.
pub async fn wait(client: &Client, id: OperationId) -> Result<Operation> {
    let mut told = 0;
    let mut silence = 0;
    loop {
        let operation = match client.get_operation(id).await {
            Ok(operation) => operation,
            Err(ClientError::Unreachable { .. }) if silence < 200 => {
                silence += 1;
                tokio::time::sleep(EVERY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        silence = 0;
        told = tell(&operation, told);
        match operation.state {
            OperationState::Succeeded => return Ok(operation),
            OperationState::Failed => bail!(failure(&operation)),
            OperationState::Pending | OperationState::Running => tokio::time::sleep(EVERY).await,
        }
    }
}

/// Tells the steps that ended since the last time.
fn tell(operation: &Operation, told: usize) -> usize {
    let ended = operation
        .steps
        .iter()
        .take_while(|step| {
            !matches!(
                step.state,
                OperationStepState::Pending | OperationStepState::Running
            )
        })
        .count();
    for step in operation.steps.iter().take(ended).skip(told) {
        let seconds = match (step.started_at, step.ended_at) {
            (Some(started), Some(ended)) => (ended - started) as f64 / 1000.0,
            _ => 0.0,
        };
        let words = step.progress.as_deref().unwrap_or("");
        eprintln!("  {:24} {seconds:6.1} s  {words}", step.name);
    }
    ended.max(told)
}

fn failure(operation: &Operation) -> String {
    let mut text = format!("{} failed", operation.kind);
    if let Some(error) = &operation.error {
        text += &format!(": {}", error.detail);
        if let Some(remedy) = &error.remedy {
            text += &format!("\n  what to do: {remedy}");
        }
    }
    text + &format!("\n  operation: {}", operation.id)
}
