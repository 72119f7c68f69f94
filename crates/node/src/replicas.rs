//! The replicas that this node holds: a file, a sidecar with its epoch, and a daemon that owns both.
//!
//! ```text
//! replicas/<server>/replica.json   the sidecar: id, epoch, worth (crate qemu keeps it)
//! replicas/<server>/daemon.json    does a daemon have it open? written before it starts
//! replicas/<server>/disk.qcow2     the disk, its daemon's user's
//! ```
//!
//! A daemon that ended while `daemon.json` says `open` may have lost writes: the replica is stale
//! until control raises the epoch, resyncs it or accepts it as the last copy. Daemons outlive the
//! agent; only creation makes files, so a missing one is lost and never an empty disk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use undine_api::Problem;
use undine_api::node::{ReplicaSpec, ReplicaStatus};
use undine_model::{Bytes, ReplicaId, ServerId};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::process::Program;
use undine_qemu::sidecar::{self, SidecarFile};
use undine_qemu::storage::{DaemonConfig, ExportName, NbdAddress, StorageDaemon, create_image};

mod refusal;
mod status;

use refusal::{sidecar_problem, storage};
use status::lost;

use crate::cgroup::{Cgroup, Limits};
use crate::files;
use crate::problems;
use crate::report::Changed;
use crate::settings::{daemon_run_folder, replica_folder};
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

struct Open {
    daemon: StorageDaemon,
    export: ExportName,
    listen: NbdAddress,
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

const TASKS: u32 = 64;

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
        match (daemon, record.open, record.listen) {
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
                        });
                    }
                    // The agent died before it opened an epoch: nobody wrote anything.
                    None => daemon.stop().await.map_err(storage)?,
                }
            }
            (None, true, _) => self.went_stale(server).await,
            _ => {}
        }
        Ok(())
    }

    /// Creates or opens a replica, or tells how it stands.
    ///
    /// # Errors
    /// The epoch is over, or the disk says no.
    pub async fn put(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
    ) -> Result<ReplicaStatus, Problem> {
        let slot = self.slot(server);
        let mut slot = slot.lock().await;
        let record = match self.record(server)? {
            Some(record) => self.known(record, spec)?,
            None if spec.create => self.create(server, spec).await?,
            None => return Ok(lost(server, spec)),
        };
        let worth = self.sidecar(server).read().await.map_err(sidecar_problem)?;
        if spec.epoch < worth.epoch {
            return Err(problems::stale_epoch(spec.epoch, worth.epoch));
        }
        if let Some(open) = &mut slot.open {
            if open.export.epoch() == spec.epoch {
                return Ok(self.status_of(server, &record, &slot));
            }
            let incarnation = open.export.incarnation().to_owned();
            let export = export_name(server, spec.epoch, &incarnation)?;
            self.open_epoch(server, &open.daemon, &export).await?;
            open.export = export;
            return Ok(self.status_of(server, &record, &slot));
        }
        let stale = worth.state != sidecar::ReplicaState::InSync;
        if stale && spec.epoch == worth.epoch && !spec.accept_stale {
            return Ok(self.status_of(server, &record, &slot));
        }
        let record = self.start(server, spec, record, &mut slot).await?;
        self.ground.changed.tell();
        Ok(self.status_of(server, &record, &slot))
    }

    fn known(&self, record: Record, spec: &ReplicaSpec) -> Result<Record, Problem> {
        if record.replica == spec.replica {
            return Ok(record);
        }
        Err(Problem::new(
            409,
            "other-replica",
            "Another replica of this server is here",
            format!(
                "this node holds the replica {} of that server",
                record.replica
            ),
        ))
    }

    async fn create(&self, server: ServerId, spec: &ReplicaSpec) -> Result<Record, Problem> {
        let folder = replica_folder(&self.ground.state_dir, server);
        files::make_folder(&folder).map_err(problems::files)?;
        // The daemon's user passes through, and sees only its own file.
        let _ = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711));
        let owner = self.owner(server)?;
        create_image(
            Path::new("qemu-img"),
            &self.image(server),
            spec.size.0,
            Some(owner),
        )
        .await
        .map_err(storage)?;
        // No other server's processes may read it, even if they know its name.
        std::fs::set_permissions(self.image(server), std::fs::Permissions::from_mode(0o600))
            .map_err(|error| storage(error.into()))?;
        let replica = spec.replica.uuid();
        self.sidecar(server)
            .create(replica, spec.epoch, sidecar::ReplicaState::InSync)
            .await
            .map_err(sidecar_problem)?;
        let record = Record {
            replica: spec.replica,
            size: spec.size,
            open: false,
            listen: None,
        };
        self.keep(server, &record)?;
        tracing::info!(%server, replica = %spec.replica, size = %spec.size, "replica made");
        Ok(record)
    }

    async fn start(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
        mut record: Record,
        slot: &mut Slot,
    ) -> Result<Record, Problem> {
        let owner = self.owner(server)?;
        let listen = self.listen(server, spec.remote, owner)?;
        record.open = true;
        record.listen = Some(listen.clone());
        self.keep(server, &record)?;
        let group = self.cgroup(server);
        group
            .make(Limits {
                cpu: None,
                reserved: None,
                memory: None,
                tasks: TASKS,
            })
            .map_err(problems::cgroup)?;
        let config = DaemonConfig {
            program: Program {
                owner: Some(owner),
                ..Program::new("qemu-storage-daemon")
            },
            run_dir: self.daemon_dir(server),
            image: self.image(server),
            listen: listen.clone(),
        };
        let daemon = StorageDaemon::start(&config).await.map_err(storage)?;
        group
            .add(daemon.process().id().pid)
            .map_err(problems::cgroup)?;
        let export = export_name(server, spec.epoch, &hex::encode(rand::random::<[u8; 6]>()))?;
        self.open_epoch(server, &daemon, &export).await?;
        self.watch(server, &daemon);
        tracing::info!(%server, %export, "replica opened");
        slot.open = Some(Open {
            daemon,
            export,
            listen,
        });
        Ok(record)
    }

    async fn open_epoch(
        &self,
        server: ServerId,
        daemon: &StorageDaemon,
        export: &ExportName,
    ) -> Result<(), Problem> {
        daemon
            .open_epoch(&self.sidecar(server), export, sidecar::ReplicaState::InSync)
            .await
            .map_err(storage)
    }

    /// Where the local export of this name is.
    ///
    /// # Errors
    /// The replica is not open under this name.
    pub async fn export(
        &self,
        server: ServerId,
        export: &str,
    ) -> Result<(NbdAddress, ExportName), Problem> {
        let slot = self.slot(server);
        let slot = slot.lock().await;
        let open = slot
            .open
            .as_ref()
            .filter(|open| open.export.to_string() == export);
        let open = open.ok_or_else(|| {
            Problem::new(
                409,
                "replica-not-open",
                "The replica is not open under this name",
                format!("this node does not export {export} now"),
            )
            .remedy("open the replica again and start the server with the name that it answers")
        })?;
        Ok((open.listen.clone(), open.export.clone()))
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
            self.ground
                .uids
                .give_back(&holder(server))
                .map_err(problems::uids)?;
        }
        self.lock().remove(&server);
        self.ground.changed.tell();
        Ok(())
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

    fn listen(&self, server: ServerId, remote: bool, owner: Owner) -> Result<NbdAddress, Problem> {
        if remote {
            let index = owner.uid.saturating_sub(self.ground.uids.first());
            let port = u32::from(self.ground.first_port) + index;
            let port = u16::try_from(port).map_err(|_| {
                problems::internal("no port is left for another replica".to_owned())
            })?;
            return Ok(NbdAddress::Inet(SocketAddr::new(
                self.ground.address.ip(),
                port,
            )));
        }
        Ok(NbdAddress::Unix(self.daemon_dir(server).nbd()))
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

fn export_name(server: ServerId, epoch: u64, incarnation: &str) -> Result<ExportName, Problem> {
    ExportName::new(&server.to_string(), epoch, incarnation)
        .map_err(|error| problems::internal(error.to_string()))
}
