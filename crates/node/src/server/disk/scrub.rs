//! Comparing a replica in a slot with the server's own one, while the server writes.
//!
//! | step | when the agent dies here |
//! |---|---|
//! | a relay to the replica is started, which cannot write | the next agent ends it; begun anew |
//! | both sides are read and compared (see `undine_qemu::scrub`) | the same; export and bitmap go |
//! | a difference is written down in the slot, which counts as failed | the next agent tells control |
//!
//! Nothing is paused and nothing is written. What differs goes on taking writes until control has
//! committed that it is not in sync: then it leaves its slot as any failed replica does.

use std::path::PathBuf;
use std::sync::Arc;

use undine_api::node::ReplicaTarget;
use undine_model::ServerId;
use undine_qemu::copy::Progress;
use undine_qemu::files::RunDir;
use undine_qemu::process::Program;
use undine_qemu::relay::{Access, Relay};
use undine_qemu::scrub::{Found, compare};
use undine_qemu::storage::StorageDaemon;
use undine_qemu::vm::Vm;

use crate::host::STORAGE_DAEMON;
use crate::problems::chain;
use crate::server::Ground;
use crate::settings::scrub_run_folder;

/// One comparison.
pub struct Scrub {
    /// What servers stand on.
    pub ground: Arc<Ground>,
    /// Whose disk.
    pub server: ServerId,
    /// Its VM.
    pub vm: Vm,
    /// The daemon of its own replica.
    pub daemon: StorageDaemon,
    /// What is compared.
    pub target: ReplicaTarget,
    /// At most so many bytes a second; 0 for no limit.
    pub limit_bytes_s: u64,
    /// Read by whoever asks how far it is.
    pub progress: Arc<Progress>,
}

impl Scrub {
    /// Runs all of it; afterwards everything is as it was before.
    ///
    /// # Errors
    /// In words.
    pub async fn run(self) -> Result<Found, String> {
        let compared = self.compared().await;
        clean(&self.ground, self.server, &self.daemon).await;
        compared
    }

    async fn compared(&self) -> Result<Found, String> {
        let child = crate::server::start::child(&self.ground, self.server, &self.target).await?;
        let owner = self.ground.replicas.daemon_user(self.server);
        let program = Program {
            owner: Some(owner.map_err(|problem| problem.detail)?),
            ..Program::new(STORAGE_DAEMON)
        };
        let folder = relay_dir(&self.ground, self.server);
        let relay = Relay::start(&program, &folder, &child, Access::Read).await;
        let relay = relay.map_err(|error| chain(&error))?;
        let pid = relay.process().id().pid;
        self.ground.replicas.add_to_group(self.server, pid);
        let (limit, progress) = (self.limit_bytes_s, self.progress.clone());
        let found = compare(&self.daemon, &self.vm, &relay, limit, progress).await;
        found.map_err(|error| chain(&error))
    }
}

/// Clears away what a comparison needed, also one whose agent died.
pub async fn clean(ground: &Ground, server: ServerId, daemon: &StorageDaemon) {
    let relay = relay_dir(ground, server);
    if let Err(error) = Relay::end_left_over(&relay).await {
        tracing::warn!(%server, error = chain(&error), "a relay does not end");
    }
    let _ = std::fs::remove_dir_all(relay.path());
    if let Err(error) = daemon.end_scrub().await {
        tracing::warn!(%server, error = chain(&error), "a bitmap of a scrub stays");
    }
}

fn relay_dir(ground: &Ground, server: ServerId) -> RunDir {
    let folder: PathBuf = scrub_run_folder(&ground.run_dir, server);
    RunDir::new(folder)
}
