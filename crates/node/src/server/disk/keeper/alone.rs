//! What a disk's task does by itself: it looks at remote replicas, and lets the bitmap forget.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use undine_qemu::nbd;
use undine_qemu::storage::{NbdAddress, StorageDaemon};
use undine_qemu::vm::Vm;

use super::{Aborting, Disk, Word};
use crate::problems::chain;
use crate::server::disk::Shared;
use crate::server::disk::record::DiskRecord;

/// How often each remote replica is looked at.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long one may take to greet: a frozen daemon, or a host that is gone, does not.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

impl Disk {
    /// A probe for each remote replica that lives, and for no other.
    pub(super) fn look_after_probes(&mut self) {
        let wanted: BTreeMap<usize, (String, SocketAddr)> = self.shared.look(|record| {
            let slots = record.slots.iter().enumerate();
            slots
                .filter(|(_, slot)| slot.failed.is_none() || slot.accused)
                .filter_map(|(index, slot)| {
                    let target = slot.target.as_ref()?;
                    let remote = target.node != self.ground.node;
                    let address = target.address.filter(|_| remote)?;
                    Some((index, (target.export.clone(), address)))
                })
                .collect()
        });
        self.probes.retain(|slot, (export, _)| {
            wanted.get(slot).is_some_and(|(wanted, _)| wanted == export)
        });
        for (slot, (export, address)) in wanted {
            let words = self.words.clone();
            self.probes.entry(slot).or_insert_with(|| {
                let task = tokio::spawn(probe(slot, export.clone(), address, words));
                (export, Aborting(task))
            });
        }
    }

    /// Lets the bitmap forget what every replica has flushed. After any error it simply holds more.
    pub(super) async fn rotate(&mut self) {
        if self.job.is_some() || !self.shared.look(DiskRecord::is_complete) {
            return;
        }
        let Ok(daemon) = self.own_daemon().await else {
            return;
        };
        let (vm, shared, server) = (self.vm.clone(), self.shared.clone(), self.server);
        // Not waited for: a frozen replica holds it up until its probe has it released.
        tokio::spawn(async move {
            if let Err(error) = rotated(&daemon, &vm, &shared).await {
                tracing::warn!(%server, error, "the bitmap keeps what it has");
            }
        });
    }
}

/// Looks at a remote replica until it is silent.
async fn probe(slot: usize, export: String, address: SocketAddr, words: mpsc::Sender<Word>) {
    let at = NbdAddress::Inet(address);
    let reason = loop {
        match nbd::greets(&at, PROBE_DEADLINE).await {
            Ok(()) => sleep(PROBE_EVERY).await,
            Err(error) => break format!("{address} does not answer: {error}"),
        }
    };
    let _ = words.send(Word::Silent(slot, export, reason)).await;
}

/// Records a second time, sees that everything from before is flushed everywhere, forgets it.
async fn rotated(daemon: &StorageDaemon, vm: &Vm, shared: &Shared) -> Result<(), String> {
    let exports = shared.look(DiskRecord::exports);
    daemon.rotate_begin().await.map_err(|error| chain(&error))?;
    vm.settle().await.map_err(|error| chain(&error))?;
    // One that failed or left meanwhile may lack what is about to be forgotten.
    if !shared.look(|record| record.is_complete() && record.exports() == exports) {
        return Err("a replica failed meanwhile".to_owned());
    }
    // Written down first: dying in between, the bitmap holds more than is promised, never less.
    shared.change(|record| {
        let live = record.slots.iter().filter_map(|slot| slot.target.as_ref());
        record.covered = live.map(|target| target.replica).collect();
    });
    daemon.rotate_end().await.map_err(|error| chain(&error))
}
