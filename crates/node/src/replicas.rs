//! The replicas that this node holds: a file, a sidecar with its epoch, and a daemon that owns both.
//!
//! ```text
//! replicas/<server>/replica.json   the sidecar: id, epoch, worth (crate qemu keeps it)
//! replicas/<server>/daemon.json    does a daemon have it open? written before it starts
//! replicas/<server>/disk.qcow2     the disk, its daemon's user's
//! ```
//!
//! A replica that is the target of a resync is `syncing` until control opens it without that wish.
//! A daemon that ended while `daemon.json` says `open` may have lost writes: the replica is stale
//! until control raises the epoch, resyncs it or accepts it as the last copy. Daemons outlive the
//! agent; only creation makes files, so a missing one is lost and never an empty disk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use undine_api::Problem;
use undine_model::{Bytes, ReplicaId, ServerId};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::psk::{self, Psk};
use undine_qemu::sidecar::{self, SidecarFile};
use undine_qemu::storage::{ExportName, NbdAddress, StorageDaemon};
use undine_qemu::vm::NbdChild;

mod opening;
mod refusal;
mod status;

use refusal::storage;

use crate::cgroup::Cgroup;
use crate::files;
use crate::problems;
use crate::report::Changed;
use crate::settings::{daemon_run_folder, replica_folder, server_folder};
use crate::uids::Uids;

/// What the replicas stand on.
pub struct Ground {
    /// The node's state folder.
    pub state_dir: PathBuf,
    /// The folder of sockets.
    pub run_dir: PathBuf,
    /// Users of daemons.
    pub uids: Arc<Uids>,
    /// The node's control group.
    pub cgroup: Cgroup,
    /// The node's address, for replicas of servers that run elsewhere.
    pub address: SocketAddr,
    /// First port of exports to other nodes.
    pub first_port: u16,
    /// Tells control at once.
    pub changed: Changed,
    /// The program that serves a replica.
    pub storage_daemon: PathBuf,
}

/// The replicas of a node.
pub struct Replicas {
    ground: Ground,
    slots: std::sync::Mutex<HashMap<ServerId, Arc<Mutex<Slot>>>>,
}

/// One server's replica here. Locked for as long as something is done to it.
#[derive(Default)]
struct Slot {
    open: Option<Open>,
}

impl Slot {
    /// Does a daemon serve it under this epoch?
    fn serves(&self, epoch: u64) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.export.epoch() == epoch)
    }
}

struct Open {
    daemon: StorageDaemon,
    export: ExportName,
    listen: NbdAddress,
    key: Option<Psk>,
}

/// What lies beside the sidecar.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    replica: ReplicaId,
    size: Bytes,
    /// A daemon has, or had, the image open.
    open: bool,
    listen: Option<NbdAddress>,
}

impl Replicas {
    /// The replicas in the state folder, with the daemons that still run.
    ///
    /// # Errors
    /// A folder or a record cannot be read.
    pub async fn open(ground: Ground) -> Result<Arc<Self>, files::FileError> {
        let folder = ground.state_dir.join("replicas");
        files::make_folder(&folder)?;
        let this = Arc::new(Self {
            ground,
            slots: std::sync::Mutex::default(),
        });
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for server in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Err(problem) = this.adopt(server).await {
                tracing::error!(%server, %problem, "a replica cannot be taken over");
            }
        }
        Ok(this)
    }

    async fn adopt(self: &Arc<Self>, server: ServerId) -> Result<(), Problem> {
        let slot = self.slot(server);
        let mut slot = slot.lock().await;
        let Some(record) = self.record(server)? else {
            return Ok(());
        };
        let daemon = StorageDaemon::adopt(&self.daemon_dir(server))
            .await
            .map_err(storage)?;
        match (daemon, record.open, record.listen.clone()) {
            (Some(daemon), _, Some(listen)) => {
                let exports = daemon.exports().await.map_err(storage)?;
                match exports.into_iter().max_by_key(ExportName::epoch) {
                    Some(export) => {
                        tracing::info!(%server, %export, "storage daemon taken over");
                        self.watch(server, &daemon);
                        slot.open = Some(Open {
                            daemon,
                            export,
                            listen,
                            key: psk::read(&self.daemon_dir(server).psk()),
                        });
                    }
                    // The agent died before it opened an epoch: nobody wrote anything.
                    None => {
                        daemon.stop().await.map_err(storage)?;
                        let closed = Record {
                            open: false,
                            listen: None,
                            ..record
                        };
                        self.keep(server, &closed)?;
                    }
                }
            }
            (None, true, _) => self.went_stale(server).await,
            _ => {}
        }
        Ok(())
    }

    /// The local export of this name, as the server's VM reaches it.
    ///
    /// # Errors
    /// The replica is not open under this name.
    pub async fn export(&self, server: ServerId, export: &str) -> Result<NbdChild, Problem> {
        let slot = self.slot(server);
        let slot = slot.lock().await;
        let open = slot
            .open
            .as_ref()
            .filter(|open| open.export.to_string() == export);
        let open = open.ok_or_else(|| not_open(export))?;
        Ok(NbdChild {
            address: open.listen.clone(),
            export: open.export.clone(),
            key: open.key.clone(),
        })
    }

    /// The daemon of the replica that is open under this name.
    ///
    /// # Errors
    /// The replica is not open under this name.
    pub async fn daemon(&self, server: ServerId, export: &str) -> Result<StorageDaemon, Problem> {
        let slot = self.slot(server);
        let slot = slot.lock().await;
        let open = slot.open.as_ref();
        let open = open.filter(|open| open.export.to_string() == export);
        open.map(|open| open.daemon.clone())
            .ok_or_else(|| not_open(export))
    }

    /// The user of a replica's daemon.
    ///
    /// # Errors
    /// No user id is left.
    pub fn daemon_user(&self, server: ServerId) -> Result<Owner, Problem> {
        self.owner(server)
    }

    /// Puts a helper of a replica's daemon into that one's control group.
    pub fn add_to_group(&self, server: ServerId, pid: u32) {
        if let Err(error) = self.cgroup(server).add(pid) {
            let error = problems::chain(&error);
            tracing::warn!(%server, error, "a helper runs outside of its control group");
        }
    }

    /// Closes a replica properly: its daemon ends in order.
    pub async fn close(&self, server: ServerId) {
        let slot = self.slot(server);
        let mut slot = slot.lock().await;
        if let Some(open) = slot.open.take() {
            // Said first, so that the watch does not take this end for a crash.
            if let Ok(Some(mut record)) = self.record(server) {
                match open.daemon.stop().await {
                    Ok(()) => {
                        record.open = false;
                        let _ = self.keep(server, &record);
                    }
                    Err(error) => tracing::warn!(%server, %error, "a replica did not close well"),
                }
            }
        }
        self.cgroup(server).remove();
    }

    /// Removes a replica with its file.
    ///
    /// # Errors
    /// The epoch is over.
    pub async fn delete(&self, server: ServerId, epoch: u64) -> Result<(), Problem> {
        {
            let slot = self.slot(server);
            let mut slot = slot.lock().await;
            match self.sidecar(server).read().await {
                Ok(worth) if epoch < worth.epoch => {
                    return Err(problems::stale_epoch(epoch, worth.epoch));
                }
                // A damaged record must not make a disk undeletable.
                _ => {}
            }
            if let Some(open) = slot.open.take() {
                open.daemon.kill().await.map_err(storage)?;
            }
            self.cgroup(server).remove();
            for folder in [
                replica_folder(&self.ground.state_dir, server),
                daemon_run_folder(&self.ground.run_dir, server),
            ] {
                match std::fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(storage(error.into()));
                    }
                    _ => {}
                }
            }
            let uids = &self.ground.uids;
            uids.give_back(&holder(server)).map_err(problems::uids)?;
            if !server_folder(&self.ground.state_dir, server).exists() {
                uids.give_back(&vm_holder(server)).map_err(problems::uids)?;
            }
        }
        self.lock().remove(&server);
        self.ground.changed.tell();
        Ok(())
    }

    /// A server's VM is forgotten. Its user goes as well, unless a copy of the disk stays: whoever
    /// opens that lets this very user in, and a start that follows needs the same one.
    pub fn vm_left(&self, server: ServerId) {
        let stays = replica_folder(&self.ground.state_dir, server).exists();
        if !stays && let Err(error) = self.ground.uids.give_back(&vm_holder(server)) {
            tracing::warn!(%server, %error, "a user id could not be given back");
        }
    }

    /// Notices the end of a daemon: the replica may lack writes from then on.
    fn watch(self: &Arc<Self>, server: ServerId, daemon: &StorageDaemon) {
        let (this, process) = (self.clone(), daemon.process().clone());
        tokio::spawn(async move {
            process.wait().await;
            let slot = this.slot(server);
            let mut slot = slot.lock().await;
            // `close` and `delete` take the daemon out before they end it.
            let own = |open: &Open| open.daemon.process().id() == process.id();
            if slot.open.as_ref().is_some_and(own) {
                slot.open = None;
                this.went_stale(server).await;
            }
        });
    }

    async fn went_stale(&self, server: ServerId) {
        tracing::error!(%server, "the storage daemon ended by itself; its replica is stale");
        let sidecar = self.sidecar(server);
        let marked = match sidecar.read().await {
            Ok(worth) => sidecar
                .advance(worth.epoch, sidecar::ReplicaState::Stale)
                .await
                .map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = marked {
            tracing::error!(%server, %error, "a replica could not be marked stale");
        }
        self.ground.changed.tell();
    }

    fn daemon_dir(&self, server: ServerId) -> RunDir {
        RunDir::new(daemon_run_folder(&self.ground.run_dir, server))
    }

    fn image(&self, server: ServerId) -> PathBuf {
        replica_folder(&self.ground.state_dir, server).join("disk.qcow2")
    }

    fn sidecar(&self, server: ServerId) -> SidecarFile {
        SidecarFile::new(replica_folder(&self.ground.state_dir, server).join("replica.json"))
    }

    fn cgroup(&self, server: ServerId) -> Cgroup {
        self.ground.cgroup.child(&format!("disk-{server}"))
    }

    fn owner(&self, server: ServerId) -> Result<Owner, Problem> {
        let uid = self
            .ground
            .uids
            .take(&holder(server))
            .map_err(problems::uids)?;
        // The group of the server's VM, which the export's socket is open to.
        let gid = self
            .ground
            .uids
            .take(&vm_holder(server))
            .map_err(problems::uids)?;
        Ok(Owner { uid, gid })
    }

    /// The server's VM is another user's from now on: its own replica lets that one in.
    ///
    /// # Errors
    /// The socket's group cannot be changed.
    pub fn let_in(&self, server: ServerId, vm: Owner) -> std::io::Result<()> {
        let run_dir = RunDir::new(daemon_run_folder(&self.ground.run_dir, server));
        let sockets = [run_dir.path().to_owned(), run_dir.nbd()];
        // A server whose copies are all elsewhere has none here.
        for path in sockets.iter().filter(|path| path.exists()) {
            std::os::unix::fs::chown(path, None, Some(vm.gid))?;
        }
        Ok(())
    }

    fn record(&self, server: ServerId) -> Result<Option<Record>, Problem> {
        let folder = replica_folder(&self.ground.state_dir, server);
        files::read_json(&folder.join("daemon.json")).map_err(problems::files)
    }

    fn keep(&self, server: ServerId, record: &Record) -> Result<(), Problem> {
        let folder = replica_folder(&self.ground.state_dir, server);
        files::write_json(&folder.join("daemon.json"), record).map_err(problems::files)
    }

    fn slot(&self, server: ServerId) -> Arc<Mutex<Slot>> {
        self.lock().entry(server).or_default().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerId, Arc<Mutex<Slot>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holder(server: ServerId) -> String {
    format!("disk-{server}")
}

/// Under this name a server's VM has its user.
pub fn vm_holder(server: ServerId) -> String {
    format!("vm-{server}")
}

fn not_open(export: &str) -> Problem {
    Problem::new(
        409,
        "replica-not-open",
        "The replica is not open under this name",
        format!("this node does not export {export} now"),
    )
    .remedy("open the replica again and start the server with the name that it answers")
}

fn export_name(server: ServerId, epoch: u64, incarnation: &str) -> Result<ExportName, Problem> {
    ExportName::new(&server.to_string(), epoch, incarnation)
        .map_err(|error| problems::internal(error.to_string()))
}
