//! What goes on by itself: each task looks at the records, does what is due, and says what it did.
//! A task that fails waits for its next turn. Instances run all of them side by side; the records
//! decide who does what.

mod certificates;
pub mod doubts;
mod gone;
pub mod heartbeat;
mod liveness;
mod mail;
pub mod prometheus;
mod push;
pub mod reconcile;
mod replicas;
pub mod returned;
mod runner;
pub mod scrub;
mod templates;
mod trim;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::control::Control;
use crate::refusal::{Refusal, chain};

pub(crate) use liveness::know;
pub use runner::run as run_operations;

/// Starts everything; dropping the set ends it.
pub fn start(control: &Control) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(until_halted(control.clone(), runner::run(control.clone())));
    tasks.spawn(until_halted(control.clone(), remember(control.clone())));
    tasks.spawn(until_halted(control.clone(), copies(control.clone())));
    tasks.spawn(until_halted(control.clone(), mail::run(control.clone())));
    macro_rules! every {
        ($($name:literal, $millis:literal, $task:path;)*) => {$(
            let this = control.clone();
            let turns = repeat($name, Duration::from_millis($millis), this.clone(), |control| Box::pin($task(control)));
            tasks.spawn(until_halted(this, turns));
        )*};
    }
    every! {
        "heartbeat", 5_000, heartbeat::turn;
        "leases", 1_000, heartbeat::leases;
        "pulse", 100, liveness::pulse;
        "deaths", 200, liveness::deaths;
        "liveness", 2_000, liveness::turn;
        "doubts", 1_000, doubts::turn;
        "life", 1_000, life;
        "returned", 500, returned::turn;
        "reconcile", 2_000, reconcile::turn;
        "push", 2_000, push::turn;
        "gone", 30_000, gone::turn;
        "templates", 10_000, templates::turn;
        "certificates", 600_000, certificates::turn;
        "scrub", 60_000, scrub::turn;
        "trim", 300_000, trim::turn;
    }
    tasks
}

/// Looks after copies every second, and at once when one left.
async fn copies(control: Control) {
    loop {
        if let Err(error) = replicas::turn(&control).await {
            tracing::warn!(error = %chain(&error), "copies wait for the next turn");
        }
        let due = control.copies_due.notified();
        let _ = tokio::time::timeout(Duration::from_secs(1), due).await;
    }
}

/// Until it has worked once: before that no death is noticed by this instance.
async fn remember(control: Control) {
    while let Err(error) = liveness::remember(&control).await {
        tracing::warn!(error = %chain(&error), "leases could not be read");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// When another life of the store has begun, this instance ends: see `memory`.
async fn life(control: &Control) -> Result<(), Refusal> {
    if !control.outlived.is_cancelled() && crate::memory::is_over(control).await? {
        tracing::warn!("a new life of the store has begun: ending, to be started again in it");
        control.outlived.cancel();
    }
    Ok(())
}

type Turn = for<'a> fn(&'a Control) -> futures_util::future::BoxFuture<'a, Result<(), Refusal>>;

async fn repeat(name: &'static str, every: Duration, control: Control, turn: Turn) {
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if let Err(error) = turn(&control).await {
            tracing::warn!(task = name, error = %chain(&error), "waits for its next turn");
        }
    }
}

/// A failpoint that halts an instance halts all of it.
async fn until_halted(control: Control, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = control.failpoints.halted() => {}
    }
}
