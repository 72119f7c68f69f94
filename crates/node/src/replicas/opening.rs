//! Opening a replica: made when there is none, by a fresh daemon or the one that runs, under an
//! epoch that is recorded before anything is served.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use undine_api::Problem;
use undine_api::node::{Committed, ReplicaKey, ReplicaSpec, ReplicaStatus};
use undine_failover::holder::{self, Copy, HolderRefusal, Opening};
use undine_model::ServerId;
use undine_qemu::files::Owner;
use undine_qemu::process::Program;
use undine_qemu::psk::{self, Psk};
use undine_qemu::sidecar::{self, ReplicaState as Worth, SidecarError};
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
        let here = match self.record(server)? {
            Some(record) => Some((self.seen(server, &record, &slot).await?, record)),
            None => None,
        };
        let sidecar = here.as_ref().map(|(sidecar, _)| sidecar);
        let is_new = here.is_none();
        let is_served = sidecar.is_some_and(|it| slot.serves(it.epoch));
        let opening = holder::open(sidecar, is_served, asked(spec));
        if opening.is_ok() && !is_new {
            self.note(server, spec.committed.as_ref()).await?;
        }
        let record = match (opening, here) {
            (Ok(holder::Open::Same), Some((sidecar, record))) => {
                if sidecar.copy == Copy::Filling {
                    // Control has committed that it is in sync.
                    self.set_worth(server, spec.epoch, Worth::InSync).await?;
                    self.ground.changed.tell();
                }
                record
            }
            (Ok(_), here) => {
                let record = match here {
                    Some((_, record)) => record,
                    None => {
                        let made = self.create(server, spec).await?;
                        self.note(server, spec.committed.as_ref()).await?;
                        made
                    }
                };
                self.fresh(server, spec, record, &mut slot).await?
            }
            // As it stands: its state says what it may lack.
            (Err(HolderRefusal::MayLackWrites(_)), Some((_, record))) => record,
            (Err(HolderRefusal::Lost(_)), _) => return Ok(lost(server, spec)),
            (Err(refusal), _) => return Err(refused(&refusal)),
        };
        let mut status = self.status_of(server, &record, &slot);
        let key = slot.open.as_ref().and_then(|open| open.key.as_ref());
        status.key = key.and_then(|key| ReplicaKey::read(key.digits()));
        Ok(status)
    }

    /// Writes control's word about the server's copies beside this one, before anything is done
    /// that it allows. Where none is held here there is nothing to write it beside.
    ///
    /// # Errors
    /// The disk says no, or the word is of an epoch that is over.
    pub async fn note(&self, server: ServerId, said: Option<&Committed>) -> Result<(), Problem> {
        let Some(said) = said else { return Ok(()) };
        let word = sidecar::Committed {
            epoch: said.epoch,
            version: said.version,
            in_sync: said.in_sync.iter().map(undine_model::Id::uuid).collect(),
        };
        match self.sidecar(server).note(word).await {
            Ok(()) | Err(SidecarError::Missing { .. }) => Ok(()),
            Err(error) => Err(sidecar_problem(error)),
        }
    }

    /// The copy as the rules see it.
    async fn seen(
        &self,
        server: ServerId,
        record: &Record,
        slot: &Slot,
    ) -> Result<holder::Sidecar, Problem> {
        let worth = self.sidecar(server).read().await.map_err(sidecar_problem)?;
        let copy = match (worth.state, slot.serves(worth.epoch)) {
            (Worth::InSync, true) => Copy::Open,
            // One whose daemon ended by itself was marked. A daemon that still serves an earlier
            // epoch was on its way to this one when that broke off: nobody wrote under it yet.
            (Worth::InSync, false) => Copy::Closed,
            (Worth::Syncing, true) => Copy::Filling,
            (Worth::Syncing, false) => Copy::Half,
            (Worth::Stale, _) => Copy::Stale,
        };
        Ok(holder::Sidecar {
            replica: record.replica,
            epoch: worth.epoch,
            copy,
        })
    }

    /// Opened anew: to be filled, by the daemon that runs, or by a fresh one.
    async fn fresh(
        self: &Arc<Self>,
        server: ServerId,
        spec: &ReplicaSpec,
        record: Record,
        slot: &mut Slot,
    ) -> Result<Record, Problem> {
        if spec.resync {
            return self.resync(server, spec, record, slot).await;
        }
        match &mut slot.open {
            Some(open) => self.raise(server, spec, record, open).await,
            None => self.start(server, spec, record, Worth::InSync, slot).await,
        }
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

fn asked(spec: &ReplicaSpec) -> Opening {
    Opening {
        replica: spec.replica,
        epoch: spec.epoch,
        create: spec.create,
        resync: spec.resync,
        accept_stale: spec.accept_stale,
    }
}

fn refused(refusal: &HolderRefusal) -> Problem {
    match refusal {
        HolderRefusal::LowerEpoch { asked, seen } => problems::stale_epoch(*asked, *seen),
        other => Problem::new(
            409,
            "other-replica",
            "Another replica of this server is here",
            other.to_string(),
        ),
    }
}
