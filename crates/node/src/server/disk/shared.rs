//! The record of a disk, changed by its keeper and by a join, written down and told at once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use undine_api::node::SlotStatus;
use undine_model::ServerId;
use undine_qemu::files::RunDir;

use super::record::DiskRecord;
use crate::files;
use crate::guard_file::Guarded;
use crate::problems::chain;
use crate::server::Ground;
use crate::settings::{server_folder, vm_run_folder};

/// The record, for whoever works on the disk. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    ground: Arc<Ground>,
    server: ServerId,
    path: PathBuf,
    record: Mutex<DiskRecord>,
    told: watch::Sender<Vec<SlotStatus>>,
}

impl Shared {
    /// Keeps this record from now on.
    pub fn new(
        ground: Arc<Ground>,
        server: ServerId,
        record: DiskRecord,
        told: watch::Sender<Vec<SlotStatus>>,
    ) -> Self {
        let path = server_folder(&ground.state_dir, server).join("disk.json");
        let this = Self(Arc::new(Inner {
            ground,
            server,
            path,
            record: Mutex::new(record),
            told,
        }));
        this.change(|_| ());
        this
    }

    /// What an earlier agent wrote down.
    pub fn left(ground: &Ground, server: ServerId) -> Option<DiskRecord> {
        let path = server_folder(&ground.state_dir, server).join("disk.json");
        files::read_json(&path).unwrap_or_else(|error| {
            tracing::error!(%server, error = chain(&error), "a disk's record");
            None
        })
    }

    /// Looks at it.
    pub fn look<T>(&self, look: impl FnOnce(&DiskRecord) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it without a moment for the disk; [`change`](Self::change) follows soon and writes
    /// it down.
    pub fn change_quickly(&self, change: impl FnOnce(&mut DiskRecord)) {
        let mut record = self.lock();
        change(&mut record);
        self.0.told.send_replace(record.statuses());
    }

    /// Changes it; on return it is written down, and the guard and control are told.
    pub fn change<T>(&self, change: impl FnOnce(&mut DiskRecord) -> T) -> T {
        let mut record = self.lock();
        let result = change(&mut record);
        let Inner {
            ground,
            server,
            path,
            told,
            ..
        } = &*self.0;
        if let Err(error) = files::write_json(path, &*record) {
            tracing::error!(%server, error = chain(&error), "a disk's record was not kept");
        }
        ground.guarded.put(Guarded {
            server: *server,
            epoch: record.epoch,
            guard_socket: RunDir::new(vm_run_folder(&ground.run_dir, *server)).guard_qmp(),
            local_only: record.is_local_only(),
        });
        told.send_replace(record.statuses());
        ground.changed.tell();
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DiskRecord> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
