//! The disk's own task: it begins when the disk is plugged in, and ends with the VM.

use undine_api::Problem;

use super::Actor;
use crate::server::disk::record::DiskRecord;
use crate::server::disk::{self, Shared};
use crate::server::words;

impl Actor {
    pub(super) fn no_disk(&self) -> Problem {
        Problem::new(
            409,
            "server-not-running",
            "The server does not run",
            format!("it is {}", words(self.phase())),
        )
        .remedy("start it with the replicas that are in sync")
    }

    /// Keeps the VM's disk from now on.
    pub(super) fn keep_disk(&mut self, record: DiskRecord, adopted: bool) {
        let Some(vm) = self.vm.borrow().clone() else {
            return;
        };
        self.disk = Some(disk::keep(disk::Start {
            ground: self.ground.clone(),
            server: self.server,
            vm,
            record,
            told: self.slots.clone(),
            rotate_every: disk::ROTATE_EVERY,
            adopted,
        }));
    }

    pub(super) fn drop_disk(&mut self) {
        self.disk = None;
        self.slots.send_replace(Vec::new());
    }

    /// What is in its slots was written down; without that it is as it started.
    pub(super) fn adopt_disk(&mut self) {
        let epoch = self.status.borrow().epoch;
        let left = Shared::left(&self.ground, self.server).filter(|left| left.epoch == epoch);
        let record = left.or_else(|| {
            let spec = self.record.spec().ok().flatten()?;
            Some(DiskRecord::fresh(&spec))
        });
        if let Some(record) = record {
            self.keep_disk(record, true);
        }
    }
}
