//! How the replicas of this node stand, for reports and answers.

use std::os::unix::fs::MetadataExt as _;

use serde::Deserialize;
use undine_api::node::{ReplicaSpec, ReplicaState, ReplicaStatus};
use undine_model::{Bytes, ServerId};
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
        let state = match (&slot.open, &image, &worth) {
            (_, Err(_), _) | (_, _, None) => ReplicaState::Lost,
            (Some(_), _, Some((_, sidecar::ReplicaState::Syncing))) => ReplicaState::Syncing,
            (Some(_), ..) => ReplicaState::Open,
            (None, _, Some((_, worth)))
                if *worth != sidecar::ReplicaState::InSync || record.open =>
            {
                ReplicaState::Stale
            }
            _ => ReplicaState::Closed,
        };
        let open = slot.open.as_ref();
        ReplicaStatus {
            server,
            replica: record.replica,
            epoch: worth.map_or(0, |(epoch, _)| epoch),
            state,
            export: open.map(|open| open.export.to_string()),
            address: open.and_then(|open| match open.listen {
                NbdAddress::Inet(address) => Some(address),
                NbdAddress::Unix(_) => None,
            }),
            key: None,
            size: record.size,
            used: Bytes(image.map_or(0, |meta| meta.blocks() * 512)),
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
    }
}

/// Epoch and worth, read in place: statuses are asked for often and the file is tiny.
fn sidecar_now(file: &SidecarFile) -> Option<(u64, sidecar::ReplicaState)> {
    #[derive(Deserialize)]
    struct Worth {
        epoch: u64,
        state: sidecar::ReplicaState,
    }
    let worth: Worth = files::read_json(file.path()).ok().flatten()?;
    Some((worth.epoch, worth.state))
}
