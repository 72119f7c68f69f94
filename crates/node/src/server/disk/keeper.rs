//! The task that keeps one disk: events and probes in, control's wishes in, slots out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use undine_api::Problem;
use undine_api::node::{JoinSpec, JoinState, JoinStatus, SlotStatus, SlotsSpec};
use undine_model::{Bytes, ReplicaId, ServerId};
use undine_qemu::copy::Progress;
use undine_qemu::nbd;
use undine_qemu::qmp;
use undine_qemu::storage::{NbdAddress, StorageDaemon};
use undine_qemu::vm::{RunState, Vm, VmEvent, slot_of};

use super::Wish;
use super::join::{self, Join};
use super::record::{DiskRecord, Joining};
use super::shared::Shared;
use crate::problems::{self, chain};
use crate::server::Ground;

/// How often each remote replica is looked at.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long one may take to greet: a frozen daemon, or a host that is gone, does not.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How often the bitmap forgets what every replica has flushed.
const ROTATE_EVERY: Duration = Duration::from_secs(300);
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
    /// An earlier agent kept it before: what that one left half done is cleared away.
    pub adopted: bool,
}

/// Keeps a disk from now on.
pub fn keep(start: Start) -> Keeper {
    let (wishes, inbox) = mpsc::channel(QUEUE);
    let (words, heard) = mpsc::channel(QUEUE);
    let events = start.vm.events();
    let adopted = start.adopted;
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
    };
    let task = tokio::spawn(disk.run(inbox, heard, events, adopted));
    Keeper { wishes, task }
}

/// What the task's helpers tell it.
enum Word {
    /// A probe's finding about what is in a slot.
    Silent(usize, String, String),
    /// A join ended.
    Ended(ReplicaId, Result<Duration, String>),
}

/// A join under way.
struct Job {
    spec: JoinSpec,
    slot: usize,
    progress: Arc<Progress>,
    holding: Arc<AtomicBool>,
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
}

impl Disk {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Wish>,
        mut heard: mpsc::Receiver<Word>,
        mut events: broadcast::Receiver<qmp::Event>,
        adopted: bool,
    ) {
        if adopted {
            self.take_over().await;
        }
        let mut rotate = interval(ROTATE_EVERY);
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
        let stands = self
            .vm
            .state()
            .await
            .is_ok_and(|state| state == RunState::IoError);
        if stands && !self.shared.look(DiskRecord::has_failed) {
            let vm = self.vm.clone();
            // Not waited for: a frozen replica holds it up until its probe has it released.
            tokio::spawn(async move { vm.settle().await });
        }
    }

    async fn event(&mut self, event: &qmp::Event) {
        if let Some(VmEvent::ReplicaFailed { node, reason }) = VmEvent::read(event)
            && let Some(slot) = slot_of(&node)
        {
            self.failed(slot, &reason).await;
        }
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
    }

    /// A probe for each remote replica that lives, and for no other.
    fn look_after_probes(&mut self) {
        let wanted: BTreeMap<usize, (String, std::net::SocketAddr)> = self.shared.look(|record| {
            let slots = record.slots.iter().enumerate();
            slots
                .filter(|(_, slot)| slot.failed.is_none())
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

    async fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Slots(spec, reply) => drop(reply.send(self.committed(&spec).await)),
            Wish::Join(spec, reply) => drop(reply.send(self.join(*spec).await)),
            Wish::Cancel(epoch, replica, reply) => {
                let _ = reply.send(self.cancel(epoch, replica).await);
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
            let swapped = self.vm.swap_out(slot).await;
            swapped.map_err(|error| problems::internal(chain(&error)))?;
            self.shared.change(|record| record.left(slot));
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

    async fn join(&mut self, spec: JoinSpec) -> Result<JoinStatus, Problem> {
        let (replica, export) = (spec.target.replica, &spec.target.export);
        self.shared.look(|record| record.same_epoch(spec.epoch))?;
        match &self.job {
            Some(job) if job.spec.target.export == *export => return Ok(copying(job)),
            Some(job) if job.spec.target.replica != replica => {
                let other = job.spec.target.replica;
                return Err(Problem::new(
                    409,
                    "another-join",
                    "Another replica is joining",
                    format!("the replica {other} is being copied to"),
                )
                .remedy("wait until that has ended, or cancel it"));
            }
            // Opened anew since: what is copied to the old opening is worth nothing.
            Some(_) => self.cancel(spec.epoch, replica).await?,
            None => {}
        }
        if let Some((ended, status)) = self.joins.get(&replica)
            && ended == export
        {
            return Ok(status.clone());
        }
        if self.is_in_slot(export) {
            return Ok(ended_status(&spec, JoinState::Joined, None));
        }
        if self.shared.look(|record| record.spent.contains(export)) {
            let reason = "an earlier join of this opening did not end: open the replica anew";
            return Ok(ended_status(&spec, JoinState::Failed, Some(reason)));
        }
        self.begin(spec).await
    }

    async fn begin(&mut self, spec: JoinSpec) -> Result<JoinStatus, Problem> {
        let slot = self.shared.look(|record| record.slot_for(&spec))?;
        let daemon = self.own_daemon().await?;
        let joining = Joining {
            slot,
            target: spec.target.clone(),
        };
        self.shared.change(|record| record.begin(joining));
        let progress = Arc::new(Progress::default());
        let holding = Arc::new(AtomicBool::new(false));
        let work = Join {
            ground: self.ground.clone(),
            server: self.server,
            vm: self.vm.clone(),
            daemon,
            shared: self.shared.clone(),
            spec: spec.clone(),
            slot,
            progress: progress.clone(),
            holding: holding.clone(),
        };
        tracing::info!(server = %self.server, replica = %spec.target.replica, slot, method = ?spec.method, "a replica joins");
        let (words, replica) = (self.words.clone(), spec.target.replica);
        let task = tokio::spawn(async move {
            let result = work.run().await;
            let _ = words.send(Word::Ended(replica, result)).await;
        });
        self.joins.remove(&replica);
        let job = Job {
            spec,
            slot,
            progress,
            holding,
            task: Aborting(task),
        };
        let status = copying(&job);
        self.job = Some(job);
        Ok(status)
    }

    fn join_ended(&mut self, replica: ReplicaId, result: Result<Duration, String>) {
        let Some(job) = self.job.take_if(|job| job.spec.target.replica == replica) else {
            return;
        };
        let mut status = copying(&job);
        match result {
            Ok(pause) => {
                tracing::info!(server = %self.server, %replica, ?pause, copied = status.copied.0, "a replica joined");
                status.state = JoinState::Joined;
                status.pause_ms = u64::try_from(pause.as_millis()).ok();
            }
            Err(reason) => {
                tracing::error!(server = %self.server, %replica, reason, "a replica could not join");
                status.state = JoinState::Failed;
                status.error = Some(reason);
                self.shared.change(|record| record.joining = None);
            }
        }
        let export = job.spec.target.export.clone();
        self.joins.insert(replica, (export, status));
    }

    async fn cancel(&mut self, epoch: u64, replica: ReplicaId) -> Result<(), Problem> {
        self.shared.look(|record| record.same_epoch(epoch))?;
        if self.is_holding() {
            return Err(busy());
        }
        let Some(mut job) = self.job.take_if(|job| job.spec.target.replica == replica) else {
            return Ok(());
        };
        job.task.0.abort();
        // Gone before anything is undone: it might still be making things.
        let _ = (&mut job.task.0).await;
        if let Ok(daemon) = self.own_daemon().await {
            join::clean(&self.ground, self.server, &self.vm, &daemon, job.slot).await;
        }
        self.shared.change(|record| record.joining = None);
        tracing::info!(server = %self.server, %replica, "a join was cancelled");
        Ok(())
    }

    /// Lets the bitmap forget what every replica has flushed. After any error it simply holds more.
    async fn rotate(&mut self) {
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

    /// The daemon of the owner's own replica, the very one that recorded since the VM's start.
    async fn own_daemon(&self) -> Result<StorageDaemon, Problem> {
        let base = self.shared.look(|record| record.base.clone());
        self.ground.replicas.daemon(self.server, &base).await
    }

    fn is_in_slot(&self, export: &str) -> bool {
        self.shared.look(|record| {
            let mut targets = record.slots.iter().filter_map(|slot| slot.target.as_ref());
            targets.any(|target| target.export == export)
        })
    }

    fn is_holding(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.holding.load(Ordering::SeqCst))
    }
}

fn copying(job: &Job) -> JoinStatus {
    JoinStatus {
        replica: job.spec.target.replica,
        state: JoinState::Copying,
        copied: Bytes(job.progress.copied()),
        total: Bytes(job.progress.total()),
        pause_ms: None,
        error: None,
        method: job.spec.method,
    }
}

/// A join of which nothing more is known than how it ended.
fn ended_status(spec: &JoinSpec, state: JoinState, error: Option<&str>) -> JoinStatus {
    JoinStatus {
        replica: spec.target.replica,
        state,
        copied: Bytes(0),
        total: Bytes(0),
        pause_ms: None,
        error: error.map(str::to_owned),
        method: spec.method,
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

/// Looks at a remote replica until it is silent.
async fn probe(
    slot: usize,
    export: String,
    address: std::net::SocketAddr,
    words: mpsc::Sender<Word>,
) {
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
    daemon.rotate_end().await.map_err(|error| chain(&error))?;
    shared.change(|record| {
        let live = record.slots.iter().filter_map(|slot| slot.target.as_ref());
        record.covered = live.map(|target| target.replica).collect();
    });
    Ok(())
}
