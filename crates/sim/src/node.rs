//! A hardware node: its processes, the replicas it holds, the virtual machines it runs.

use std::collections::BTreeMap;

use undine_failover::holder::Sidecar;
use undine_failover::machine::Phase;
use undine_failover::memory::Term;
use undine_failover::slots::{Slot, Slots};
use undine_guard::brain::Brain;
use undine_guard::lease::Lease;
use undine_guard::ledger::Ledger;
use undine_model::ReplicaId;

use crate::disk::{Content, Disk};
use crate::msg::{NODES, Target};

/// A process that can die and stand still.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Rises with every start.
    pub life: u64,
    /// It runs.
    pub is_up: bool,
    /// It stands still until then.
    pub frozen_until: u64,
}

/// A replica's storage daemon.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Never used before on this node.
    pub incarnation: u64,
    /// Blocks written, as bits: the running bitmap and the frozen one.
    pub active: u8,
    /// The frozen one.
    pub frozen: u8,
    /// It stands still until then.
    pub frozen_until: u64,
}

/// What a node holds of a server.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    /// The file.
    pub disk: Option<Disk>,
    /// Its sidecar.
    pub sidecar: Option<Sidecar>,
    /// Its daemon.
    pub daemon: Option<Daemon>,
}

/// A request of the guest that is under way.
#[derive(Debug, Clone)]
pub struct Io {
    /// Its number.
    pub seq: u64,
    /// A block and its value; none for a flush.
    pub write: Option<(usize, u64)>,
    /// The replicas that have not answered.
    pub waiting: Vec<ReplicaId>,
    /// A replica had it before any higher epoch was opened anywhere.
    pub is_in_time: bool,
}

/// A replica that is being copied to.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// Which replica.
    pub replica: ReplicaId,
    /// Its daemon.
    pub target: Target,
    /// Blocks to copy, as bits.
    pub dirty: u8,
}

/// A virtual machine.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its number.
    pub id: u64,
    /// How it stands.
    pub phase: Phase,
    /// Its slots.
    pub slots: Slots,
    /// The daemons of the replicas in them.
    pub targets: BTreeMap<ReplicaId, Target>,
    /// The guard has stopped it.
    pub is_paused: bool,
    /// The request that is under way.
    pub io: Option<Io>,
    /// Writes that are done and not flushed.
    pub lazy: Content,
    /// What it has acknowledged, or read at its start.
    pub view: Content,
    /// A copy that is under way.
    pub job: Option<Job>,
    /// For each replica that failed, the one on this node, and its daemon's incarnation then.
    pub left: BTreeMap<ReplicaId, (ReplicaId, u64)>,
}

impl Vm {
    /// The replica on this node, if it is live, and its daemon.
    pub fn source(&self, node: usize) -> Option<(ReplicaId, u64)> {
        let live = self.slots.live();
        let here = self
            .targets
            .iter()
            .filter(|(id, it)| it.0 == node && live.contains(id));
        here.map(|(id, it)| (*id, it.1)).next()
    }

    /// Its guest may work.
    pub fn runs(&self) -> bool {
        !self.is_paused && self.phase == Phase::Answers && self.slots.may_continue()
    }

    /// All its replicas are here.
    pub fn is_local_only(&self, node: usize) -> bool {
        let replicas = self.slots.slots.iter().filter_map(|slot| match slot {
            Slot::Live(id) | Slot::Failed(id) => Some(id),
            Slot::Empty => None,
        });
        replicas
            .into_iter()
            .all(|id| self.targets.get(id).is_some_and(|it| it.0 == node))
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// It has power.
    pub is_up: bool,
    /// Everything on it stands still until then.
    pub frozen_until: u64,
    /// Its agent.
    pub agent: Process,
    /// Its guard.
    pub guard: Process,
    /// What the guard knows; a file keeps it while the machine runs.
    pub mind: Brain,
    /// Which instance it asks.
    pub asks: usize,
    /// Nodes that a witness asked about, and when: not answered yet.
    pub witnessing: [Option<u64>; NODES],
    /// For each server, what it holds.
    pub holders: Vec<Holder>,
    /// For each server, its virtual machine.
    pub vms: Vec<Option<Vm>>,
    /// For each server, the highest epoch that was started here; kept on disk.
    pub started: Vec<u64>,
    /// The store's life that was heard of; kept on disk.
    pub term: Term,
    /// For each server, the slots as written down; kept on disk.
    pub written: Vec<Option<Slots>>,
}

impl Node {
    /// A node with nothing on it.
    pub fn new(servers: usize) -> Self {
        let process = Process {
            is_up: true,
            ..Process::default()
        };
        Self {
            is_up: true,
            frozen_until: 0,
            agent: process.clone(),
            guard: process,
            mind: Brain::new(0, Lease::default(), Vec::new(), Ledger::default()),
            asks: 0,
            witnessing: [None; NODES],
            holders: vec![Holder::default(); servers],
            vms: vec![None; servers],
            started: vec![0; servers],
            term: Term::default(),
            written: vec![None; servers],
        }
    }
}
