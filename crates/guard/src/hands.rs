//! Pausing and continuing servers by the monitor that each QEMU has for the guard alone: whether
//! the agent lives plays no part. Each server is seen to by itself, so that one whose QEMU does not
//! answer holds up no other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use undine_model::ServerId;

use crate::ledger::Entry;
use crate::qmp::{Monitor, RunState};
use crate::served::Served;
use crate::shared::{Shared, boottime_ms};

/// A QEMU that has not answered by then is asked anew, on a new connection.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// What does it.
#[derive(Debug, Clone)]
pub struct Hands {
    shared: Arc<Shared>,
    busy: Arc<Mutex<HashSet<ServerId>>>,
}

/// Frees its server for the next try, however this one ends.
struct Busy {
    all: Arc<Mutex<HashSet<ServerId>>>,
    server: ServerId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.server);
    }
}

fn lock(all: &Mutex<HashSet<ServerId>>) -> std::sync::MutexGuard<'_, HashSet<ServerId>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hands {
    /// Acts for this brain.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            busy: Arc::default(),
        }
    }

    /// Sees to it that a server does not run; nothing when that is being done already.
    pub fn pause(&self, served: Served) {
        self.act(served, None);
    }

    /// Continues a server that the guard has paused.
    pub fn go_on(&self, served: Served, entry: Entry) {
        self.act(served, Some(entry));
    }

    fn act(&self, served: Served, entry: Option<Entry>) {
        let server = served.server;
        if !lock(&self.busy).insert(server) {
            return;
        }
        let busy = Busy {
            all: self.busy.clone(),
            server,
        };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let _busy = busy;
            let acting = async {
                match entry {
                    None => pause(&shared, &served).await,
                    Some(entry) => go_on(&shared, &served, &entry).await,
                }
            };
            match tokio::time::timeout(DEADLINE, acting).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%server, %error, "its QEMU could not be asked"),
                Err(_) => tracing::warn!(%server, "its QEMU does not answer; it is asked again"),
            }
        });
    }
}

/// Only what runs is stopped: what stands still by another's word is not the guard's to continue.
async fn pause(shared: &Shared, served: &Served) -> std::io::Result<()> {
    let mut monitor = Monitor::open(&served.guard_socket).await?;
    if monitor.state().await? != RunState::Running {
        return Ok(());
    }
    let process = monitor.process();
    if !shared.brain().pausing(served, process, boottime_ms()) {
        return Ok(());
    }
    // First the file: a guard that dies right here finds a running server in it, and lets it run.
    shared.keep_ledger();
    monitor.stop().await?;
    tracing::warn!(server = %served.server, epoch = served.epoch, "paused: this node is cut off");
    Ok(())
}

async fn go_on(shared: &Shared, served: &Served, entry: &Entry) -> std::io::Result<()> {
    let server = served.server;
    let mut monitor = Monitor::open(&served.guard_socket).await?;
    let state = monitor.state().await?;
    if monitor.process() != entry.process {
        tracing::info!(%server, "is another process than the one that was paused");
    } else if state == RunState::Paused {
        let may = shared
            .brain()
            .may_continue(server, entry.process, boottime_ms());
        if !may {
            return Ok(());
        }
        monitor.go_on().await?;
        tracing::info!(%server, epoch = entry.epoch, "continued: control has confirmed it");
    } else if let RunState::Other(state) = state {
        // Its disk failed meanwhile, for example: its agent and control have to say when it may.
        tracing::warn!(%server, state, "is not paused any more and left to its agent");
    }
    shared.brain().settled(server);
    shared.keep_ledger();
    Ok(())
}
