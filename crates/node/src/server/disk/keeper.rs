//! The task that keeps one disk: events and probes in, control's wishes in, slots out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::interval;
use undine_api::Problem;
use undine_api::node::{JoinSpec, JoinStatus, ScrubSpec, ScrubStatus, SlotStatus, SlotsSpec};
use undine_model::{OperationId, ReplicaId, ServerId};
use undine_qemu::copy::Progress;
use undine_qemu::qmp;
use undine_qemu::scrub::Found;
use undine_qemu::storage::StorageDaemon;
use undine_qemu::vm::{RunState, Vm, VmEvent, slot_of};

use super::Wish;
use super::join;
use super::record::DiskRecord;
use super::shared::Shared;
use crate::problems::{self, chain};
use crate::server::Ground;

mod alone;
mod joins;
mod scrubs;

/// How often the bitmap forgets what every replica has flushed, in earnest.
pub const ROTATE_EVERY: Duration = Duration::from_secs(300);
const QUEUE: usize = 32;

/// A disk's task; it ends with this handle.
#[derive(Debug)]
pub struct Keeper {
    wishes: mpsc::Sender<Wish>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Passes a wish on.
    pub fn tell(&self, wish: Wish) {
        if let Err(error) = self.wishes.try_send(wish) {
            let wish = match error {
                mpsc::error::TrySendError::Full(wish) | mpsc::error::TrySendError::Closed(wish) => {
                    wish
                }
            };
            wish.refuse(busy());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whose disk is to be kept.
pub struct Start {
    /// What servers stand on.
    pub ground: Arc<Ground>,
    /// Which server.
    pub server: ServerId,
    /// Its VM, with its disk attached.
    pub vm: Vm,
    /// What is in the slots.
    pub record: DiskRecord,
    /// Where the slots are told.
    pub told: watch::Sender<Vec<SlotStatus>>,
    /// How often the bitmap forgets what every replica has flushed.
    pub rotate_every: Duration,
    /// An earlier agent kept it before: what that one left half done is cleared away.
    pub adopted: bool,
}

/// Keeps a disk from now on.
pub fn keep(start: Start) -> Keeper {
    let (wishes, inbox) = mpsc::channel(QUEUE);
    let (words, heard) = mpsc::channel(QUEUE);
    let events = start.vm.events();
    let (rotate_every, adopted) = (start.rotate_every, start.adopted);
    let shared = Shared::new(start.ground.clone(), start.server, start.record, start.told);
    let disk = Disk {
        ground: start.ground,
        server: start.server,
        vm: start.vm,
        shared,
        words,
        probes: BTreeMap::new(),
        job: None,
        joins: BTreeMap::new(),
        scrub: None,
        scrubs: BTreeMap::new(),
    };
    let task = tokio::spawn(disk.run(inbox, heard, events, rotate_every, adopted));
    Keeper { wishes, task }
}

/// What the task's helpers tell it.
enum Word {
    /// A probe's finding about what is in a slot.
    Silent(usize, String, String),
    /// A join ended.
    Ended(ReplicaId, Result<Duration, String>),
    /// A comparison ended.
    Compared(OperationId, ReplicaId, Result<Found, String>),
}

/// A join under way.
struct Job {
    spec: JoinSpec,
    slot: usize,
    progress: Arc<Progress>,
    holding: Arc<AtomicBool>,
    task: Aborting,
}

/// A comparison under way.
struct ScrubJob {
    spec: ScrubSpec,
    replica: ReplicaId,
    slot: usize,
    export: String,
    progress: Arc<Progress>,
    task: Aborting,
}

/// A helper that ends with its handle.
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Disk {
    ground: Arc<Ground>,
    server: ServerId,
    vm: Vm,
    shared: Shared,
    words: mpsc::Sender<Word>,
    /// By slot: the export that is looked at, and who does.
    probes: BTreeMap<usize, (String, Aborting)>,
    job: Option<Job>,
    /// How the last join of each replica ended, and of which opening it was.
    joins: BTreeMap<ReplicaId, (String, JoinStatus)>,
    scrub: Option<ScrubJob>,
    /// How the last comparison of each replica ended.
    scrubs: BTreeMap<ReplicaId, ScrubStatus>,
}

impl Disk {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Wish>,
        mut heard: mpsc::Receiver<Word>,
        mut events: broadcast::Receiver<qmp::Event>,
        rotate_every: Duration,
        adopted: bool,
    ) {
        if adopted {
            self.take_over().await;
            self.clear_scrub().await;
        }
        let mut rotate = interval(rotate_every);
        rotate.reset();
        loop {
            self.look_after_probes();
            tokio::select! {
                wish = inbox.recv() => match wish {
                    Some(wish) => self.wish(wish).await,
                    None => return,
                },
                Some(word) = heard.recv() => self.word(word).await,
                event = events.recv() => match event {
                    Ok(event) => self.event(&event).await,
                    // States tell what was missed.
                    Err(broadcast::error::RecvError::Lagged(_)) => self.diagnose().await,
                    // The VM is gone or going; its end is the server's task's matter.
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = rotate.tick() => self.rotate().await,
            }
        }
    }

    /// Ends what an earlier agent left half done, and sees what is in the slots.
    async fn take_over(&mut self) {
        let contents = match self.vm.slots().await {
            Ok(contents) => contents,
            Err(error) => {
                tracing::error!(server = %self.server, error = chain(&error), "a disk's slots");
                return;
            }
        };
        let (held, joining) = self
            .shared
            .look(|record| (record.holding, record.joining.clone()));
        self.shared.change(|record| record.seen(&contents));
        if let Some(joining) = joining {
            match self.own_daemon().await {
                Ok(daemon) => {
                    let slot = joining.slot;
                    join::clean(&self.ground, self.server, &self.vm, &daemon, slot).await;
                }
                Err(problem) => {
                    tracing::error!(server = %self.server, %problem, "a join is not cleared away");
                }
            }
        }
        if held {
            // It was stopped for a moment, by an agent that did not live to let it go on.
            if self
                .vm
                .state()
                .await
                .is_ok_and(|state| state == RunState::Paused)
                && let Err(error) = self.vm.cont().await
            {
                tracing::error!(server = %self.server, error = chain(&error), "it stays paused");
                return;
            }
            self.shared.change(|record| record.holding = false);
        }
        self.diagnose().await;
    }

    /// When the server stands still and nobody knows for which replica: a flush makes the broken
    /// one known by its event. Nothing goes on by it.
    async fn diagnose(&mut self) {
        if self.stands_still().await && !self.shared.look(DiskRecord::has_failed) {
            let vm = self.vm.clone();
            // Not waited for: a frozen replica holds it up until its probe has it released.
            tokio::spawn(async move { vm.settle().await });
        }
    }

    async fn event(&mut self, event: &qmp::Event) {
        if let Some(VmEvent::ReplicaFailed { node, reason }) = VmEvent::read(event)
            && let Some(slot) = slot_of(&node)
            && !self.is_bygone(slot, event).await
        {
            self.failed(slot, &reason).await;
        }
    }

    /// A failure of the replica that was in this slot before: QEMU tells the last of many up to a
    /// second later, when another one may have taken its place under the same name. By clocks alone
    /// nothing is passed over: while the server stands still, something failed now.
    async fn is_bygone(&self, slot: usize, event: &qmp::Event) -> bool {
        let at = event.timestamp.unix_us();
        self.shared.look(|record| record.is_bygone(slot, at)) && !self.stands_still().await
    }

    async fn stands_still(&self) -> bool {
        let state = self.vm.state().await;
        state.is_ok_and(|state| state == RunState::IoError)
    }

    async fn word(&mut self, word: Word) {
        match word {
            Word::Silent(slot, export, reason) => {
                let still = self.shared.look(|record| {
                    let target = record.slots.get(slot)?.target.as_ref()?;
                    Some(target.export == export)
                });
                if still == Some(true) {
                    self.failed(slot, &reason).await;
                }
            }
            Word::Ended(replica, result) => self.join_ended(replica, result),
            Word::Compared(scrub, replica, result) => self.compared(scrub, replica, result),
        }
    }

    async fn failed(&mut self, slot: usize, reason: &str) {
        if !self.shared.look(|record| record.clone().fail(slot, reason)) {
            return;
        }
        tracing::error!(server = %self.server, slot, reason, "a replica failed");
        self.shared.change(|record| record.fail(slot, reason));
        // Whatever waits for it fails now: the server stops by itself instead of hanging.
        if let Err(error) = self.vm.yank(slot).await {
            tracing::error!(server = %self.server, slot, error = chain(&error), "no yank");
        }
        self.end_scrub_of(slot, reason).await;
    }

    async fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Slots(spec, reply) => drop(reply.send(self.committed(&spec).await)),
            Wish::Join(spec, reply) => drop(reply.send(self.join(*spec).await)),
            Wish::Cancel(epoch, replica, reply) => {
                let _ = reply.send(self.cancel(epoch, replica).await);
            }
            Wish::Scrub(replica, spec, reply) => {
                let _ = reply.send(self.scrub(replica, spec).await);
            }
            Wish::EndScrub(epoch, replica, reply) => {
                let _ = reply.send(self.end_scrub(epoch, replica).await);
            }
        }
    }

    /// Failed replicas that are not in sync leave; then, if the disk is whole, the server goes on.
    async fn committed(&mut self, spec: &SlotsSpec) -> Result<(), Problem> {
        if self.is_holding() {
            return Err(busy());
        }
        let leaving = self.shared.look(|record| record.leaving(spec))?;
        self.shared.change(|record| record.version = spec.version);
        for slot in leaving {
            self.end_scrub_of(slot, "the copy left its slot").await;
            self.swap_out(slot).await?;
            let gone = self.shared.change(|record| record.left(slot));
            if let Some(target) = gone {
                // That it once joined is no answer any more.
                self.joins.remove(&target.replica);
            }
            tracing::warn!(server = %self.server, slot, "a replica left; a placeholder is in its slot");
        }
        if self.shared.look(DiskRecord::has_failed) {
            return Ok(());
        }
        let failed = |error| problems::internal(chain(&error));
        // Only what its disk stopped goes on: a pause of the guard's is the guard's to end.
        if self.vm.state().await.map_err(failed)? == RunState::IoError {
            self.vm.cont().await.map_err(failed)?;
        }
        Ok(())
    }

    /// The daemon of the owner's own replica, the very one that recorded since the VM's start.
    async fn own_daemon(&self) -> Result<StorageDaemon, Problem> {
        let base = self.shared.look(|record| record.base.clone());
        self.ground.replicas.daemon(self.server, &base).await
    }

    fn is_holding(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.holding.load(Ordering::SeqCst))
    }
}

fn busy() -> Problem {
    Problem::new(
        409,
        "disk-busy",
        "The disk is being changed",
        "a replica is taking its slot at this moment",
    )
    .remedy("try again in a second")
}
