//! Bringing a replica back into a slot, while the server runs.
//!
//! | step | when the agent dies here |
//! |---|---|
//! | a relay to the target is started; writes are recorded | the next agent ends both; begun anew |
//! | passes, until little is left | the same |
//! | the replica is connected, not in a slot | the same, and it is disconnected |
//! | `holding` is written down, the VM stops | the next agent lets it go on |
//! | last pass, flush, swap | the same; the disk itself tells whether the swap was done |
//! | the VM goes on, the slot is written down | it joined |
//!
//! The server's own writes never wait for the target. It goes on before control has committed
//! that the replica is in sync: one that receives writes without counting breaks no rule.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};
use undine_api::node::{JoinMethod, JoinSpec};
use undine_model::ServerId;
use undine_qemu::copy::{Copy, Progress};
use undine_qemu::files::RunDir;
use undine_qemu::process::Program;
use undine_qemu::relay::{Access, Relay};
use undine_qemu::storage::{Base, StorageDaemon};
use undine_qemu::vm::{NbdChild, RunState, Vm};

use super::record::Joining;
use super::shared::Shared;
use crate::host::STORAGE_DAEMON;
use crate::problems::chain;
use crate::server::Ground;
use crate::settings::relay_run_folder;

/// So much may be left for the last pass: some milliseconds.
const LITTLE: u64 = 1 << 20;
/// After so many passes the server evidently writes faster than the target takes it.
const PASSES: u32 = 30;
/// The last pass may be this large when it gets no smaller.
const BEARABLE: u64 = 64 << 20;
/// The server stands still for no longer than this, whatever the target does.
const HOLD: Duration = Duration::from_secs(3);

/// One join.
pub struct Join {
    /// What servers stand on.
    pub ground: Arc<Ground>,
    /// Whose disk.
    pub server: ServerId,
    /// Its VM.
    pub vm: Vm,
    /// The daemon of its own replica.
    pub daemon: StorageDaemon,
    /// The record.
    pub shared: Shared,
    /// What control wants.
    pub spec: JoinSpec,
    /// The slot.
    pub slot: usize,
    /// Read by whoever asks how far it is.
    pub progress: Arc<Progress>,
    /// Set while the VM stands still for it: it cannot be cancelled then.
    pub holding: Arc<AtomicBool>,
}

impl Join {
    /// Runs all of it; tells how long the server stood still. After an error everything is as it
    /// was before.
    ///
    /// # Errors
    /// In words.
    pub async fn run(self) -> Result<Duration, String> {
        let child =
            crate::server::start::child(&self.ground, self.server, &self.spec.target).await?;
        let joined = self.copied_and_swapped(&child).await;
        clean(&self.ground, self.server, &self.vm, &self.daemon, self.slot).await;
        joined
    }

    async fn copied_and_swapped(&self, child: &NbdChild) -> Result<Duration, String> {
        let relay = self.relay(child).await?;
        let base = match self.spec.method {
            JoinMethod::Bitmap => Base::Always,
            JoinMethod::Full => Base::Everything,
        };
        let limit = self.spec.limit_bytes_s;
        let copy = Copy::begin(&self.daemon, &relay, base, limit, self.progress.clone());
        let mut copy = copy.await.map_err(|error| chain(&error))?;
        self.passes(&mut copy).await?;
        let prepared = self.vm.prepare_in(self.slot, child).await;
        prepared.map_err(|error| chain(&error))?;
        self.hold_and_swap(&mut copy).await
    }

    async fn relay(&self, child: &NbdChild) -> Result<Relay, String> {
        let owner = self.ground.replicas.daemon_user(self.server);
        let program = Program {
            owner: Some(owner.map_err(|problem| problem.detail)?),
            ..Program::new(STORAGE_DAEMON)
        };
        let relay = Relay::start(
            &program,
            &relay_dir(&self.ground, self.server),
            child,
            Access::Write,
        )
        .await;
        let relay = relay.map_err(|error| chain(&error))?;
        let pid = relay.process().id().pid;
        self.ground.replicas.add_to_group(self.server, pid);
        Ok(relay)
    }

    async fn passes(&self, copy: &mut Copy) -> Result<(), String> {
        let pass = async {
            copy.pass().await?;
            for _ in 1..PASSES {
                if copy.left().await? <= LITTLE {
                    return Ok(true);
                }
                copy.pass().await?;
            }
            Ok(copy.left().await? <= BEARABLE)
        };
        match pass.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(
                "the server writes faster than the replica takes it: raise the limit".to_owned(),
            ),
            Err::<_, undine_qemu::storage::StorageError>(error) => Err(chain(&error)),
        }
    }

    /// The last pass, with the server held still.
    async fn hold_and_swap(&self, copy: &mut Copy) -> Result<Duration, String> {
        let state = self.vm.state().await.map_err(|error| chain(&error))?;
        if !matches!(state, RunState::Running | RunState::Paused) {
            return Err("the server stands still for another reason".to_owned());
        }
        self.holding.store(true, Ordering::SeqCst);
        self.shared
            .change(|record| record.holding = state.is_running());
        let (begin, since_us) = (Instant::now(), unix_us());
        let swapped = self.swap(copy).await;
        if swapped.is_ok() {
            let joining = Joining {
                slot: self.slot,
                target: self.spec.target.clone(),
            };
            // Known before it goes on, written down after: the disk itself tells it meanwhile.
            self.shared
                .change_quickly(|record| record.joined(joining, since_us));
        } else if let Err(error) = self.vm.back_out(self.slot).await {
            tracing::error!(server = %self.server, error = chain(&error), "a slot is not as it was");
        }
        let gone_on = if state.is_running() {
            self.vm.cont().await.map_err(|error| chain(&error))
        } else {
            Ok(())
        };
        let pause = begin.elapsed();
        self.shared.change(|record| record.holding = false);
        self.holding.store(false, Ordering::SeqCst);
        swapped.and(gone_on).map(|()| pause)
    }

    async fn swap(&self, copy: &mut Copy) -> Result<(), String> {
        let work = async {
            self.vm.stop().await.map_err(|error| chain(&error))?;
            copy.last().await.map_err(|error| chain(&error))?;
            let swapped = self.vm.swap_in(self.slot).await;
            swapped.map_err(|error| chain(&error))?;
            // Somebody else, such as the guard, may have let it run meanwhile.
            match copy.left().await {
                Ok(0) => Ok(()),
                Ok(_) => Err("the server was let run during the last pass".to_owned()),
                Err(error) => Err(chain(&error)),
            }
        };
        match timeout(HOLD, work).await {
            Ok(result) => result,
            Err(_) => Err("the replica was too slow at the last moment".to_owned()),
        }
    }
}

/// Clears away what a join needed, also one whose agent died. A replica that took its slot stays.
pub async fn clean(
    ground: &Ground,
    server: ServerId,
    vm: &Vm,
    daemon: &StorageDaemon,
    slot: usize,
) {
    let relay = relay_dir(ground, server);
    if let Err(error) = Relay::end_left_over(&relay).await {
        tracing::warn!(%server, error = chain(&error), "a relay does not end");
    }
    let _ = std::fs::remove_dir_all(relay.path());
    if let Err(error) = daemon.end_passes().await {
        tracing::warn!(%server, error = chain(&error), "bitmaps of a copy stay");
    }
    if let Err(error) = vm.forget_unslotted(slot).await {
        tracing::warn!(%server, error = chain(&error), "a replica stays connected");
    }
}

fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_micros()).unwrap_or(i64::MAX))
}

fn relay_dir(ground: &Ground, server: ServerId) -> RunDir {
    let folder: PathBuf = relay_run_folder(&ground.run_dir, server);
    RunDir::new(folder)
}
