//! How the replicas of this node stand, for reports and answers.

use std::os::unix::fs::MetadataExt as _;

use serde::Deserialize;
use undine_api::node::{Committed, ReplicaSpec, ReplicaState, ReplicaStatus};
use undine_model::{Bytes, ReplicaId, ServerId};
use undine_qemu::sidecar::{self, SidecarFile};
use undine_qemu::storage::NbdAddress;

use super::{Record, Replicas, Slot};
use crate::files;

impl Replicas {
    /// How every replica stands.
    pub async fn statuses(&self) -> Vec<ReplicaStatus> {
        let folder = self.ground.state_dir.join("replicas");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let servers: Vec<ServerId> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let mut statuses = Vec::with_capacity(servers.len());
        for server in servers {
            let slot = self.slot(server);
            let slot = slot.lock().await;
            if let Ok(Some(record)) = self.record(server) {
                statuses.push(self.status_of(server, &record, &slot));
            }
        }
        statuses
    }

    /// The process of an open replica's daemon.
    pub async fn pid(&self, server: ServerId) -> Option<u32> {
        let slot = self.slot(server);
        let slot = slot.lock().await;
        slot.open
            .as_ref()
            .map(|open| open.daemon.process().id().pid)
    }

    pub(super) fn status_of(
        &self,
        server: ServerId,
        record: &Record,
        slot: &Slot,
    ) -> ReplicaStatus {
        let image = std::fs::metadata(self.image(server));
        let worth = sidecar_now(&self.sidecar(server));
        let state = match (&slot.open, &image, worth.as_ref().map(|it| it.state)) {
            (_, Err(_), _) | (_, _, None) => ReplicaState::Lost,
            (Some(_), _, Some(sidecar::ReplicaState::Syncing)) => ReplicaState::Syncing,
            (Some(_), ..) => ReplicaState::Open,
            (None, _, Some(worth)) if worth != sidecar::ReplicaState::InSync || record.open => {
                ReplicaState::Stale
            }
            _ => ReplicaState::Closed,
        };
        let open = slot.open.as_ref();
        ReplicaStatus {
            server,
            replica: record.replica,
            epoch: worth.as_ref().map_or(0, |it| it.epoch),
            state,
            export: open.map(|open| open.export.to_string()),
            address: open.and_then(|open| match open.listen {
                NbdAddress::Inet(address) => Some(address),
                NbdAddress::Unix(_) => None,
            }),
            key: None,
            size: record.size,
            used: Bytes(image.map_or(0, |meta| meta.blocks() * 512)),
            committed: worth.and_then(|it| it.committed).map(heard),
        }
    }
}

/// The answer for a replica of which nothing is here.
pub(super) fn lost(server: ServerId, spec: &ReplicaSpec) -> ReplicaStatus {
    ReplicaStatus {
        server,
        replica: spec.replica,
        epoch: 0,
        state: ReplicaState::Lost,
        export: None,
        address: None,
        key: None,
        size: spec.size,
        used: Bytes(0),
        committed: None,
    }
}

fn heard(word: sidecar::Committed) -> Committed {
    Committed {
        epoch: word.epoch,
        version: word.version,
        in_sync: word.in_sync.into_iter().map(ReplicaId::from_uuid).collect(),
    }
}

/// What a status needs of a sidecar.
#[derive(Deserialize)]
struct Worth {
    epoch: u64,
    state: sidecar::ReplicaState,
    #[serde(default)]
    committed: Option<sidecar::Committed>,
}

/// Read in place: statuses are asked for often and the file is tiny.
fn sidecar_now(file: &SidecarFile) -> Option<Worth> {
    files::read_json(file.path()).ok().flatten()
}
