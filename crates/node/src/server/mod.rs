//! Servers: one task owns one VM. Whoever wants something of a server sends its task a command;
//! the task alone starts and ends QEMU and decides the phase (see [`phase`] for the diagram).
//!
//! Starting and stopping take long, so each runs as a job of its own that tells the task how it
//! goes on; a stop ends a start that is still under way. A job's messages carry its number, so
//! that a late word of an ended one counts for nothing. The VM outlives the agent: a new agent
//! finds it by its run folder and takes it over without touching it.

pub mod actor;
pub mod disk;
pub mod phase;
pub mod record;
pub mod start;
pub mod stop;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use undine_api::Problem;
use undine_api::node::{
    JoinSpec, JoinStatus, Phase, ScrubSpec, ScrubStatus, ServerStatus, SlotStatus, SlotsSpec,
    StartSpec, StopSpec,
};
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_qemu::vm::Vm;

use crate::cgroup::Cgroup;
use crate::guard_file::GuardFile;
use crate::guest::Guest;
use crate::host::Host;
use crate::images::Images;
use crate::net::Network;
use crate::problems;
use crate::replicas::Replicas;
use crate::report::Changed;
use crate::spares::Spares;
use crate::templates::Templates;
use crate::terms::Terms;
use crate::uids::Uids;

/// What servers stand on.
pub struct Ground {
    /// This node.
    pub node: NodeId,
    /// Its address.
    pub address: SocketAddr,
    /// The edges' addresses in the servers' network.
    pub edges: Vec<IpAddr>,
    /// Everything lasting.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// The node's control group.
    pub cgroup: Cgroup,
    /// QEMU and how guests run.
    pub host: Host,
    /// Users of VMs.
    pub uids: Arc<Uids>,
    /// Images.
    pub images: Arc<Images>,
    /// Replicas.
    pub replicas: Arc<Replicas>,
    /// Templates.
    pub templates: Templates,
    /// VMs that are ready to become servers.
    pub spares: Spares,
    /// The server network; none where it was switched off.
    pub network: Option<Network>,
    /// What the guard must know.
    pub guarded: GuardFile,
    /// Which life of control's store was heard of.
    pub terms: Terms,
    /// Tells control at once.
    pub changed: Changed,
}

/// What a server's task can be told.
#[derive(Debug)]
pub enum Command {
    /// Run this, or tell how far it is.
    Start(
        Box<StartSpec>,
        oneshot::Sender<Result<ServerStatus, Problem>>,
    ),
    /// End it, or tell how far that is.
    Stop(StopSpec, oneshot::Sender<Result<ServerStatus, Problem>>),
    /// Forget it; only when nothing of it runs.
    Forget(u64, oneshot::Sender<Result<(), Problem>>),
    /// Something of its disk.
    Disk(disk::Wish),
    /// What the sampler heard of its health.
    Health(undine_api::guest::Health),
}

/// A server, for whoever wants something of it.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ServerStatus>,
    vm: watch::Receiver<Option<Vm>>,
    guest: Arc<Mutex<Guest>>,
    slots: watch::Receiver<Vec<SlotStatus>>,
}

impl Handle {
    /// How it stands.
    pub fn status(&self) -> ServerStatus {
        ServerStatus {
            slots: self.slots.borrow().clone(),
            ..self.status.borrow().clone()
        }
    }

    /// Its VM, if one runs.
    pub fn vm(&self) -> Option<Vm> {
        self.vm.borrow().clone()
    }

    /// The agent inside, when it may be asked under this epoch: questions wait for one another.
    ///
    /// # Errors
    /// It does not run, or under another epoch.
    pub fn guest(&self, epoch: u64) -> Result<Arc<Mutex<Guest>>, Problem> {
        let status = self.status.borrow();
        if status.epoch != epoch {
            return Err(problems::other_epoch(epoch, status.epoch));
        }
        if status.phase != Phase::Running {
            return Err(Problem::new(
                409,
                "server-not-running",
                "The server does not run",
                format!("it is {}", words(status.phase)),
            )
            .remedy("wait until it runs, or start it"));
        }
        Ok(self.guest.clone())
    }

    /// Starts it, or tells how far it is.
    ///
    /// # Errors
    /// The epoch is over, or something that it needs is missing.
    pub async fn start(&self, spec: StartSpec) -> Result<ServerStatus, Problem> {
        self.tell(|reply| Command::Start(Box::new(spec), reply))
            .await
    }

    /// Stops it, or tells how far that is.
    ///
    /// # Errors
    /// The epoch is over.
    pub async fn stop(&self, spec: StopSpec) -> Result<ServerStatus, Problem> {
        self.tell(|reply| Command::Stop(spec, reply)).await
    }

    /// Lets failed replicas leave that control has committed not to be in sync.
    ///
    /// # Errors
    /// It does not run, or the request is old.
    pub async fn slots(&self, spec: SlotsSpec) -> Result<ServerStatus, Problem> {
        self.tell(|reply| Command::Disk(disk::Wish::Slots(spec, reply)))
            .await?;
        Ok(self.status())
    }

    /// Lets a replica join, or tells how far that is.
    ///
    /// # Errors
    /// It does not run, or the replica cannot join.
    pub async fn join(&self, spec: JoinSpec) -> Result<JoinStatus, Problem> {
        self.tell(|reply| Command::Disk(disk::Wish::Join(Box::new(spec), reply)))
            .await
    }

    /// Ends a join; none is success.
    ///
    /// # Errors
    /// The epoch is over, or it is too late.
    pub async fn cancel_join(&self, epoch: u64, replica: ReplicaId) -> Result<(), Problem> {
        self.tell(|reply| Command::Disk(disk::Wish::Cancel(epoch, replica, reply)))
            .await
    }

    /// Compares a replica with the own one, or tells how far that is.
    ///
    /// # Errors
    /// It does not run, or the replica is in no slot.
    pub async fn scrub(&self, replica: ReplicaId, spec: ScrubSpec) -> Result<ScrubStatus, Problem> {
        self.tell(|reply| Command::Disk(disk::Wish::Scrub(replica, spec, reply)))
            .await
    }

    /// Ends a comparison; none is success.
    ///
    /// # Errors
    /// The epoch is over.
    pub async fn end_scrub(&self, epoch: u64, replica: ReplicaId) -> Result<(), Problem> {
        self.tell(|reply| Command::Disk(disk::Wish::EndScrub(epoch, replica, reply)))
            .await
    }

    /// Forgets it.
    ///
    /// # Errors
    /// It runs, or the epoch is over.
    pub async fn forget(&self, epoch: u64) -> Result<(), Problem> {
        self.tell(|reply| Command::Forget(epoch, reply)).await
    }

    /// Tells what the sampler heard of its health; dropped when its task is busy.
    pub fn heard(&self, health: undine_api::guest::Health) {
        let _ = self.commands.try_send(Command::Health(health));
    }

    /// The agent inside, when nobody else is talking to it.
    pub fn idle_guest(&self) -> Option<tokio::sync::OwnedMutexGuard<Guest>> {
        (self.status.borrow().phase == Phase::Running)
            .then(|| self.guest.clone().try_lock_owned().ok())?
    }

    async fn tell<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> Command,
    ) -> Result<T, Problem> {
        let gone = || problems::internal("the server's task ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A phase in words.
pub fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Absent => "not here",
        Phase::Booting => "booting",
        Phase::Configuring => "being configured",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    }
}

/// The task of a server.
pub fn spawn(ground: Arc<Ground>, server: ServerId) -> Handle {
    actor::spawn(ground, server)
}
