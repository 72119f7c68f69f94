//! Takes operations and runs them: at once when one is made here, soon when another instance made
//! it or fell silent over it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use undine_store::Db;

use crate::clock::now_ms;
use crate::control::Control;
use crate::operations::{LEASE_MS, run_claimed};

/// So many operations at once.
const AT_ONCE: usize = 48;
/// How often to look when nothing wakes.
const LOOK: Duration = Duration::from_millis(500);

/// Takes and runs, for ever.
pub async fn run(control: Control) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        while running.try_join_next().is_some() {}
        match control
            .store
            .operations()
            .claim(control.id, now_ms(), LEASE_MS)
            .await
        {
            Ok(Some(operation)) => {
                let control = control.clone();
                running.spawn(async move {
                    run_claimed(&control, operation).await;
                    drop(slot);
                });
            }
            Ok(None) => {
                drop(slot);
                let _ = tokio::time::timeout(LOOK, control.work.notified()).await;
            }
            Err(error) => {
                drop(slot);
                tracing::warn!(%error, "no operation could be taken");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
