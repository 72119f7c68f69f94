//! Reports to control: every ten seconds, and at once when something changed; what control could
//! not take is said again soon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use undine_api::internal::NodeReport;
use undine_link::{CallError, ControlClient, Method};

use crate::agent::Agent;

/// How often at least.
pub const EVERY: Duration = Duration::from_secs(10);
/// Changes in quick succession go out together.
const GATHER: Duration = Duration::from_millis(100);
/// After a report that nobody took, as another instance of control was quicker or none answered.
const AGAIN: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// Tells the reporter that something changed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<Notify>);

impl Changed {
    /// Something changed that control should know soon.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits for a change.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// Reports for ever. The log tells when control goes out of reach and when it is back, not every
/// report in between.
pub async fn run(agent: Arc<Agent>, control: ControlClient) {
    let (mut silent, mut owed) = (false, false);
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let regular = tokio::select! {
            _ = tick.tick() => true,
            () = agent.changed().wait() => {
                tokio::time::sleep(GATHER).await;
                false
            }
            () = tokio::time::sleep(AGAIN), if owed => false,
        };
        let report = agent.report(regular).await;
        let sent = send(&control, &report).await;
        owed = sent.as_ref().is_err_and(CallError::is_transient);
        match sent {
            Ok(()) if silent => {
                silent = false;
                tracing::info!("control takes reports again");
            }
            Err(error) if !silent => {
                silent = true;
                let error = crate::problems::chain(&error);
                tracing::warn!(error, "control takes no reports; servers go on");
            }
            _ => {}
        }
    }
}

async fn send(control: &ControlClient, report: &NodeReport) -> Result<(), CallError> {
    control
        .call::<serde_json::Value>(
            Method::POST,
            "/internal/v1/nodes/report",
            Some(report),
            DEADLINE,
        )
        .await
        .map(drop)
}
