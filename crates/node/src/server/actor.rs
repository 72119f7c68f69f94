//! The task that owns one server's VM: commands in, one job at a time, the phase out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use undine_api::Problem;
use undine_api::node::{Phase, ServerStatus, SlotStatus, StartSpec, StopSpec};
use undine_model::ServerId;
use undine_qemu::files::RunDir;
use undine_qemu::qmp;
use undine_qemu::vm::Vm;

use super::phase::{self, Event};
use super::record::{Record, State};
use super::start::{Progress, Start, Started};
use super::{Command, Ground, Handle, disk, stop, words};
use crate::guest::Guest;
use crate::problems::{self, chain};
use crate::settings::vm_run_folder;

mod events;
mod keeping;
mod takeover;

const QUEUE: usize = 32;

/// What a job tells the task.
enum Word {
    Progress(Progress),
    Started(Box<Result<Started, String>>),
    Ended(Result<(), String>),
}

struct Job {
    number: u64,
    task: JoinHandle<()>,
}

struct Actor {
    server: ServerId,
    ground: Arc<Ground>,
    record: Record,
    status: watch::Sender<ServerStatus>,
    vm: watch::Sender<Option<Vm>>,
    events: Option<broadcast::Receiver<qmp::Event>>,
    guest: Arc<Mutex<Guest>>,
    disk: Option<disk::Keeper>,
    slots: watch::Sender<Vec<SlotStatus>>,
    job: Option<Job>,
    jobs: u64,
    words: mpsc::Sender<(u64, Word)>,
    /// The last reason that QEMU gave for ending.
    last_words: Option<String>,
}

/// Starts the task of a server; it takes over what already runs.
pub fn spawn(ground: Arc<Ground>, server: ServerId) -> Handle {
    let run_dir = RunDir::new(vm_run_folder(&ground.run_dir, server));
    let guest = Arc::new(Mutex::new(Guest::new(run_dir.agent())));
    let record = Record::new(&ground.state_dir, server);
    let (status, status_seen) = watch::channel(recorded(&record, server));
    let (vm, vm_seen) = watch::channel(None);
    let (slots, slots_seen) = watch::channel(Vec::new());
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (words, heard) = mpsc::channel(QUEUE);
    let handle = Handle {
        commands,
        status: status_seen,
        vm: vm_seen,
        guest: guest.clone(),
        slots: slots_seen,
    };
    let actor = Actor {
        server,
        ground,
        record,
        status,
        vm,
        events: None,
        guest,
        disk: None,
        slots,
        job: None,
        jobs: 0,
        words,
        last_words: None,
    };
    tokio::spawn(actor.run(inbox, heard));
    handle
}

fn absent(server: ServerId) -> ServerStatus {
    ServerStatus {
        server,
        epoch: 0,
        phase: Phase::Absent,
        error: None,
        start: None,
        health: None,
        applied: None,
        slots: Vec::new(),
    }
}

/// What is known before the VM itself has been looked at: what an earlier agent wrote down. A
/// report that goes out in that moment must not call a running server absent.
fn recorded(record: &Record, server: ServerId) -> ServerStatus {
    let Ok(Some(state)) = record.state() else {
        return absent(server);
    };
    ServerStatus {
        epoch: state.epoch,
        phase: state.phase,
        error: state.error,
        start: state.start,
        ..absent(server)
    }
}

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut heard: mpsc::Receiver<(u64, Word)>,
    ) {
        self.take_over().await;
        loop {
            let vm = self.vm.borrow().clone();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => {
                        if self.command(command).await {
                            return;
                        }
                    }
                    // Every handle is gone: the agent is going down, the VM stays.
                    None => return,
                },
                Some((number, word)) = heard.recv() => {
                    if self.job.as_ref().is_some_and(|job| job.number == number) {
                        self.word(word).await;
                    }
                }
                () = ended(vm.as_ref()), if self.job.is_none() => self.vm_ended().await,
                event = next(&mut self.events) => self.event(event),
            }
        }
    }

    /// Tells whether the task ends.
    async fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Start(spec, reply) => {
                let _ = reply.send(self.start(*spec).await);
            }
            Command::Stop(spec, reply) => {
                let _ = reply.send(self.stop(&spec));
            }
            Command::Forget(epoch, reply) => {
                let answer = self.may_forget(epoch);
                let gone = answer.is_ok();
                if gone {
                    self.record.forget();
                    self.ground.replicas.vm_left(self.server);
                    let run = vm_run_folder(&self.ground.run_dir, self.server);
                    let _ = std::fs::remove_dir_all(run);
                }
                let _ = reply.send(answer);
                return gone;
            }
            Command::Disk(wish) => match &self.disk {
                Some(keeper) => keeper.tell(wish),
                None => wish.without_disk(self.no_disk()),
            },
            Command::Health(health) => {
                if self.phase() == Phase::Running {
                    self.status
                        .send_modify(|status| status.health = Some(health));
                }
            }
        }
        false
    }

    fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    fn fresh(&self, epoch: u64) -> Result<(), Problem> {
        let seen = self.status.borrow().epoch;
        if epoch < seen {
            Err(problems::stale_epoch(epoch, seen))
        } else {
            Ok(())
        }
    }

    async fn start(&mut self, spec: StartSpec) -> Result<ServerStatus, Problem> {
        self.fresh(spec.epoch)?;
        let (phase, epoch) = (self.phase(), self.status.borrow().epoch);
        if phase::next(phase, Event::Start).is_none() {
            return match phase {
                Phase::Stopping => Err(Problem::new(
                    409,
                    "server-stopping",
                    "The server is stopping",
                    "it is still on its way down",
                )
                .remedy("start it again when it has stopped")),
                _ if epoch == spec.epoch => Ok(self.status.borrow().clone()),
                _ => Err(problems::other_epoch(spec.epoch, epoch)),
            };
        }
        self.check(&spec).await?;
        self.record.keep_spec(&spec).map_err(problems::files)?;
        self.status.send_modify(|status| {
            *status = ServerStatus {
                epoch: spec.epoch,
                phase,
                ..absent(status.server)
            };
        });
        self.apply(Event::Start);
        self.keep();
        self.launch(spec);
        Ok(self.status.borrow().clone())
    }

    /// What can be told at once is told at once.
    async fn check(&self, spec: &StartSpec) -> Result<(), Problem> {
        if self.ground.images.local(&spec.image.hash).is_none() {
            return Err(Problem::new(
                409,
                "image-absent",
                "The image is not here",
                format!("this node does not hold the image {}", spec.image.hash),
            )
            .remedy("fetch the image first")
            .field("image"));
        }
        for target in spec
            .replicas
            .iter()
            .filter(|target| target.node == self.ground.node)
        {
            self.ground
                .replicas
                .export(self.server, &target.export)
                .await?;
        }
        Ok(())
    }

    fn launch(&mut self, spec: StartSpec) {
        let (ground, server) = (self.ground.clone(), self.server);
        let guest = self.guest.clone();
        self.last_words = None;
        self.events = None;
        self.drop_disk();
        self.vm.send_replace(None);
        let earlier = self.job.take();
        self.spawn_job(move |number, words| async move {
            if let Some(earlier) = earlier {
                // It is cleaning up after a failure.
                let _ = earlier.task.await;
            }
            // What an earlier run left behind is ended first: never two VMs for one server.
            let none = Duration::ZERO;
            let result = match stop::end(&ground, server, None, &guest, none).await {
                Ok(()) => {
                    let words = words.clone();
                    let tell = move |progress| {
                        // The queue is longer than a start has steps.
                        let _ = words.try_send((number, Word::Progress(progress)));
                    };
                    Start {
                        ground: &ground,
                        server,
                        spec: &spec,
                        guest,
                        tell,
                    }
                    .run()
                    .await
                }
                Err(reason) => Err(reason),
            };
            let _ = words.send((number, Word::Started(Box::new(result)))).await;
        });
    }

    fn stop(&mut self, spec: &StopSpec) -> Result<ServerStatus, Problem> {
        self.fresh(spec.epoch)?;
        if phase::next(self.phase(), Event::Stop).is_some() {
            tracing::info!(server = %self.server, grace_s = spec.grace_s, "stopping");
            // A guest that is still starting has nothing to lose.
            let grace = if self.phase() == Phase::Running {
                spec.grace_s
            } else {
                0
            };
            self.apply(Event::Stop);
            self.keep();
            self.end_vm(Duration::from_secs(grace.into()), true);
        }
        Ok(self.status.borrow().clone())
    }

    /// Ends the VM in a job; `close` closes the local replica properly as well.
    fn end_vm(&mut self, grace: Duration, close: bool) {
        let (ground, server) = (self.ground.clone(), self.server);
        let (vm, guest) = (self.vm.borrow().clone(), self.guest.clone());
        let earlier = self.job.take();
        self.spawn_job(move |number, words| async move {
            if let Some(earlier) = earlier {
                earlier.task.abort();
                // Gone before anything is undone: it might still be making things.
                let _ = earlier.task.await;
            }
            let result = stop::end(&ground, server, vm, &guest, grace).await;
            if close && result.is_ok() {
                ground.replicas.close(server).await;
            }
            let _ = words.send((number, Word::Ended(result))).await;
        });
    }

    fn spawn_job<F, Fut>(&mut self, work: F)
    where
        F: FnOnce(u64, mpsc::Sender<(u64, Word)>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.jobs += 1;
        let number = self.jobs;
        let task = tokio::spawn(work(number, self.words.clone()));
        self.job = Some(Job { number, task });
    }

    fn may_forget(&self, epoch: u64) -> Result<(), Problem> {
        self.fresh(epoch)?;
        if phase::has_vm(self.phase()) {
            let detail = format!("it is {}", words(self.phase()));
            return Err(
                Problem::new(409, "server-runs", "The server runs here", detail)
                    .remedy("stop it first"),
            );
        }
        Ok(())
    }

    async fn word(&mut self, word: Word) {
        match word {
            Word::Progress(Progress::Vm(vm)) => {
                self.events = Some(vm.events());
                self.vm.send_replace(Some(vm));
            }
            Word::Progress(Progress::Disk(record)) => self.keep_disk(*record, false),
            Word::Progress(Progress::Agent) => self.apply(Event::AgentAnswered),
            Word::Progress(Progress::Step(name, seconds)) => {
                tracing::debug!(server = %self.server, step = name, seconds, "start");
            }
            Word::Started(result) => {
                self.job = None;
                match *result {
                    Ok(started) => self.started(started),
                    Err(reason) => {
                        let why = self.last_words.take();
                        let why = why.map_or(reason.clone(), |why| format!("{reason} ({why})"));
                        self.fail(&why);
                        // Nothing half started is left; the replica stays as it is.
                        self.end_vm(Duration::ZERO, false);
                    }
                }
            }
            Word::Ended(result) => {
                self.job = None;
                self.events = None;
                self.drop_disk();
                self.vm.send_replace(None);
                match result {
                    Ok(()) if self.phase() == Phase::Stopping => self.apply(Event::Ended),
                    Ok(()) => {}
                    Err(reason) => self.fail(&reason),
                }
                self.keep();
            }
        }
    }

    fn started(&mut self, started: Started) {
        let seconds = started
            .report
            .steps_s
            .last()
            .map_or(0.0, |(_, seconds)| *seconds);
        let from_template = started.report.from_template;
        tracing::info!(server = %self.server, seconds, from_template, "server runs");
        self.status.send_modify(|status| {
            status.start = Some(started.report);
            status.health = Some(started.health);
            status.applied = Some(started.applied);
        });
        self.apply(Event::Healthy);
        self.keep();
    }

    /// The VM's process is gone, and nobody here ended it.
    async fn vm_ended(&mut self) {
        // Its last event may still be on its way.
        while let Some(events) = &mut self.events
            && let Ok(event) = events.try_recv()
        {
            self.note(&event);
        }
        self.drop_disk();
        let exit = match self.vm.send_replace(None) {
            Some(vm) => vm.wait().await,
            None => None,
        };
        self.events = None;
        let why = self.last_words.take();
        let status = exit.map(|status| status.to_string());
        let why = why
            .or(status)
            .unwrap_or_else(|| "nobody knows why".to_owned());
        self.fail(&format!("its VM ended unasked: {why}"));
        self.end_vm(Duration::ZERO, false);
    }

    fn fail(&mut self, reason: &str) {
        tracing::error!(server = %self.server, reason, "server failed");
        self.status.send_modify(|status| {
            status.error = Some(reason.to_owned());
            status.health = None;
        });
        self.apply(Event::Broke);
        self.keep();
    }

    /// Moves the phase, and tells control. An event that means nothing now changes nothing.
    fn apply(&mut self, event: Event) {
        let now = self.phase();
        let Some(next) = phase::next(now, event) else {
            return;
        };
        self.status.send_modify(|status| {
            status.phase = next;
            if next == Phase::Stopped {
                status.error = None;
                status.health = None;
            }
        });
        self.ground.changed.tell();
    }

    fn keep(&self) {
        let status = self.status.borrow().clone();
        let state = State {
            epoch: status.epoch,
            phase: status.phase,
            error: status.error,
            start: status.start,
        };
        if let Err(error) = self.record.keep_state(&state) {
            tracing::error!(server = %self.server, error = chain(&error), "a record was not kept");
        }
    }
}

async fn ended(vm: Option<&Vm>) {
    match vm {
        Some(vm) => {
            vm.wait().await;
        }
        None => std::future::pending().await,
    }
}

/// The next event; none when the monitor is closed. Pending while there is no monitor.
async fn next(events: &mut Option<broadcast::Receiver<qmp::Event>>) -> Option<qmp::Event> {
    let Some(receiver) = events else {
        return std::future::pending().await;
    };
    loop {
        match receiver.recv().await {
            Ok(event) => return Some(event),
            // States tell what was missed.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
