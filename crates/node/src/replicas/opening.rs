//! Opening a replica: made when there is none, by a fresh daemon or the one that runs, under an
//! epoch that is recorded before anything is served.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use undine_api::Problem;
use undine_api::node::{ReplicaKey, ReplicaSpec, ReplicaStatus};
use undine_model::ServerId;
use undine_qemu::files::Owner;
use undine_qemu::process::Program;
use undine_qemu::psk::{self, Psk};
use undine_qemu::sidecar::{ReplicaState as Worth, Sidecar};
use undine_qemu::storage::{DaemonConfig, NbdAddress, StorageDaemon, create_image};

use super::refusal::{sidecar_problem, storage};
use super::status::lost;
use super::{Open, Record, Replicas, Slot, export_name};
use crate::cgroup::Limits;
use crate::files;
use crate::problems;
use crate::settings::replica_folder;

const TASKS: u32 = 64;

impl Replicas {
    /// Creates or opens a replica, or tells how it stands. The key of an encrypted one is in this
    /// answer and in no other.
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
            Some(record) => {
                known(&record, spec)?;
                record
            }
            None if spec.create => self.create(server, spec).await?,
            None => return Ok(lost(server, spec)),
        };
        let worth = self.sidecar(server).read().await.map_err(sidecar_problem)?;
        if spec.epoch < worth.epoch {
            return Err(problems::stale_epoch(spec.epoch, worth.epoch));
        }
        let record = if spec.resync {
            self.resync(server, spec, record, &mut slot).await?
        } else {
            self.open_as_is(server, spec, record, &worth, &mut slot)
                .await?
        };
        let mut status = self.status_of(server, &record, &slot);
        let key = slot.open.as_ref().and_then(|open| open.key.as_ref());
        status.key = key.and_then(|key| ReplicaKey::read(key.digits()));
        Ok(status)
    }

    /// What is here counts: control has committed that, or there is nothing better.
    async fn open_as_is(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
        record: Record,
        worth: &Sidecar,
        slot: &mut Slot,
    ) -> Result<Record, Problem> {
        if let Some(open) = &mut slot.open {
            if open.export.epoch() == spec.epoch {
                if worth.state != Worth::InSync {
                    self.set_worth(server, spec.epoch, Worth::InSync).await?;
                    self.ground.changed.tell();
                }
                return Ok(record);
            }
            return self.raise(server, spec, record, open).await;
        }
        let stale = worth.state != Worth::InSync;
        if stale && spec.epoch == worth.epoch && !spec.accept_stale {
            return Ok(record);
        }
        self.start(server, spec, record, Worth::InSync, slot).await
    }

    /// A fresh daemon, and what is here counts for nothing. The old daemon is gone before: no
    /// late write of it lands on what is copied.
    async fn resync(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
        record: Record,
        slot: &mut Slot,
    ) -> Result<Record, Problem> {
        self.set_worth(server, spec.epoch, Worth::Syncing).await?;
        // Taken out first, so that the watch does not take this end for a crash.
        if let Some(open) = slot.open.take() {
            open.daemon.kill().await.map_err(storage)?;
        }
        if spec.create {
            self.make_image(server, spec).await?;
        }
        self.start(server, spec, record, Worth::Syncing, slot).await
    }

    async fn create(&self, server: ServerId, spec: &ReplicaSpec) -> Result<Record, Problem> {
        let folder = replica_folder(&self.ground.state_dir, server);
        files::make_folder(&folder).map_err(problems::files)?;
        // The daemon's user passes through, and sees only its own file.
        let _ = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711));
        self.make_image(server, spec).await?;
        let worth = if spec.resync {
            Worth::Syncing
        } else {
            Worth::InSync
        };
        self.sidecar(server)
            .create(spec.replica.uuid(), spec.epoch, worth)
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

    /// Makes the image unless it is there.
    async fn make_image(&self, server: ServerId, spec: &ReplicaSpec) -> Result<(), Problem> {
        let owner = self.owner(server)?;
        let image = self.image(server);
        create_image(Path::new("qemu-img"), &image, spec.size.0, Some(owner))
            .await
            .map_err(storage)?;
        // No other server's processes may read it, even if they know its name.
        std::fs::set_permissions(image, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| storage(error.into()))
    }

    async fn start(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
        record: Record,
        worth: Worth,
        slot: &mut Slot,
    ) -> Result<Record, Problem> {
        let owner = self.owner(server)?;
        let listen = self.listen(server, spec.remote, owner)?;
        let record = self.will_listen(server, record, &listen)?;
        let key = self.fresh_key(server, spec, owner)?;
        let group = self.cgroup(server);
        group
            .make(Limits {
                cpu: None,
                reserved: None,
                memory: None,
                tasks: TASKS,
            })
            .map_err(problems::cgroup)?;
        let run_dir = self.daemon_dir(server);
        let config = DaemonConfig {
            program: Program {
                owner: Some(owner),
                ..Program::new(&self.ground.storage_daemon)
            },
            psk: key.as_ref().map(|_| run_dir.psk()),
            run_dir,
            image: self.image(server),
            listen: listen.clone(),
        };
        let daemon = StorageDaemon::start(&config).await.map_err(storage)?;
        group
            .add(daemon.process().id().pid)
            .map_err(problems::cgroup)?;
        let export = export_name(server, spec.epoch, &hex::encode(rand::random::<[u8; 6]>()))?;
        daemon
            .open_epoch(&self.sidecar(server), &export, worth)
            .await
            .map_err(storage)?;
        self.watch(server, &daemon);
        tracing::info!(%server, %export, ?worth, "replica opened");
        slot.open = Some(Open {
            daemon,
            export,
            listen,
            key,
        });
        self.ground.changed.tell();
        Ok(record)
    }

    /// The running daemon goes over to a higher epoch, and to where its new owner reaches it:
    /// the epoch is on disk before the old owner is cut off, and that before the new one is let in.
    async fn raise(
        &self,
        server: ServerId,
        spec: &ReplicaSpec,
        record: Record,
        open: &mut Open,
    ) -> Result<Record, Problem> {
        self.set_worth(server, spec.epoch, Worth::InSync).await?;
        let owner = self.owner(server)?;
        let listen = self.listen(server, spec.remote, owner)?;
        let record = self.will_listen(server, record, &listen)?;
        if listen != open.listen || open.key.is_some() || spec.tls {
            // Nothing is served while the key changes.
            open.daemon.close_all().await.map_err(storage)?;
            let key = self.fresh_key(server, spec, owner)?;
            let folder = key.as_ref().map(|_| self.daemon_dir(server).psk());
            open.daemon
                .listen_elsewhere(&listen, folder.as_deref())
                .await
                .map_err(storage)?;
            open.listen = listen;
            open.key = key;
        }
        let export = export_name(server, spec.epoch, open.export.incarnation())?;
        open.daemon
            .open_epoch(&self.sidecar(server), &export, Worth::InSync)
            .await
            .map_err(storage)?;
        tracing::info!(%server, %export, "replica opened under a higher epoch");
        open.export = export;
        self.ground.changed.tell();
        Ok(record)
    }

    async fn set_worth(&self, server: ServerId, epoch: u64, worth: Worth) -> Result<(), Problem> {
        self.sidecar(server)
            .advance(epoch, worth)
            .await
            .map(drop)
            .map_err(sidecar_problem)
    }

    /// Writes down that a daemon has the image open, and where it serves it.
    fn will_listen(
        &self,
        server: ServerId,
        mut record: Record,
        listen: &NbdAddress,
    ) -> Result<Record, Problem> {
        record.open = true;
        record.listen = Some(listen.clone());
        self.keep(server, &record)?;
        Ok(record)
    }

    /// A new key where one is wanted: only other nodes need any.
    fn fresh_key(
        &self,
        server: ServerId,
        spec: &ReplicaSpec,
        owner: Owner,
    ) -> Result<Option<Psk>, Problem> {
        let folder = self.daemon_dir(server).psk();
        if !(spec.remote && spec.tls) {
            let _ = std::fs::remove_dir_all(folder);
            return Ok(None);
        }
        let digits = hex::encode(rand::random::<[u8; 32]>());
        let key = Psk::new(&digits)
            .ok_or_else(|| problems::internal("a key could not be made".to_owned()))?;
        psk::write(&folder, &key, Some(owner)).map_err(|error| storage(error.into()))?;
        Ok(Some(key))
    }

    fn listen(&self, server: ServerId, remote: bool, owner: Owner) -> Result<NbdAddress, Problem> {
        if !remote {
            return Ok(NbdAddress::Unix(self.daemon_dir(server).nbd()));
        }
        let index = owner.uid.saturating_sub(self.ground.uids.first());
        let port = u32::from(self.ground.first_port) + index;
        let port = u16::try_from(port)
            .map_err(|_| problems::internal("no port is left for another replica".to_owned()))?;
        Ok(NbdAddress::Inet(SocketAddr::new(
            self.ground.address.ip(),
            port,
        )))
    }
}

fn known(record: &Record, spec: &ReplicaSpec) -> Result<(), Problem> {
    if record.replica == spec.replica {
        return Ok(());
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
