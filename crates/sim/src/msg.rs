//! What is said between the parts, and what happens to them.

use undine_failover::holder::Opening;
use undine_failover::machine::{Opened, Vm};
use undine_failover::membership::Record;
use undine_failover::memory::{Sighting, Term};
use undine_failover::resync::Method;
use undine_failover::slots::{Committed, Slots};
use undine_model::{NodeId, ReplicaId, ServerId};

/// Nodes at most.
pub const NODES: usize = 5;
/// Instances of control at most.
pub const INSTANCES: usize = 3;
/// Machines: nodes, instances, the store, the edge.
pub const MACHINES: usize = NODES + INSTANCES + 2;

/// A process that messages go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A node's agent.
    Agent(usize),
    /// A node's guard.
    Guard(usize),
    /// An instance of control.
    Instance(usize),
    /// The store.
    Store,
    /// The edge.
    Edge,
}

impl Place {
    /// The machine that it runs on.
    pub fn machine(self) -> usize {
        match self {
            Self::Agent(node) | Self::Guard(node) => node,
            Self::Instance(instance) => NODES + instance,
            Self::Store => NODES + INSTANCES,
            Self::Edge => NODES + INSTANCES + 1,
        }
    }
}

/// A storage daemon as it is named: its node, and its incarnation there.
pub type Target = (usize, u64);

/// What an owner's node says about a server.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its virtual machine.
    pub vm: Option<Vm>,
    /// Its slots.
    pub slots: Option<Slots>,
    /// The replica that is being copied to.
    pub copying: Option<ReplicaId>,
    /// The replicas whose missing writes are known for certain.
    pub kept: Vec<ReplicaId>,
}

/// A message. `token` pairs an answer with its question.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Msg {
    Order {
        term: Term,
        order: Box<Msg>,
    },
    Renew {
        node: usize,
        number: u64,
        echo: u64,
        confirm: bool,
    },
    Lease {
        number: u64,
        owns: Option<Vec<(ServerId, u64)>>,
        peers: Vec<usize>,
    },
    Probe {
        from: usize,
        asked: u64,
    },
    ProbeOk {
        node: usize,
        asked: u64,
    },
    Reach {
        instance: usize,
        about: usize,
    },
    Ping {
        from: usize,
        instance: usize,
    },
    Pong {
        node: usize,
        instance: usize,
    },
    Reached {
        about: usize,
        by: usize,
        is_reachable: bool,
    },
    Ask {
        instance: usize,
        server: usize,
        token: u64,
    },
    Status {
        server: usize,
        token: u64,
        status: Box<Status>,
    },
    Open {
        instance: usize,
        server: usize,
        token: u64,
        opening: Opening,
    },
    OpenSaid {
        server: usize,
        token: u64,
        replica: ReplicaId,
        said: Opened,
        target: Target,
        other: Option<ReplicaId>,
    },
    Remove {
        server: usize,
        replica: ReplicaId,
        epoch: u64,
    },
    Start {
        instance: usize,
        server: usize,
        token: u64,
        start: Box<Start>,
    },
    Slots {
        instance: usize,
        server: usize,
        token: u64,
        committed: Box<Committed>,
    },
    Join {
        instance: usize,
        server: usize,
        token: u64,
        join: Join,
    },
    Commit {
        instance: usize,
        server: usize,
        token: u64,
        change: Box<Change>,
    },
    Route {
        instance: usize,
        server: usize,
        token: u64,
        generation: u64,
        epoch: u64,
    },
    Done {
        server: usize,
        token: u64,
    },
    See {
        instance: usize,
        generation: u64,
    },
    Saw {
        node: usize,
        generation: u64,
        said: Vec<Option<Sighting>>,
    },
    Clean {
        instance: usize,
        listed: Vec<(Option<NodeId>, u64)>,
    },
    Cleaned {
        node: usize,
    },
}

/// A start.
#[derive(Debug, Clone)]
pub struct Start {
    /// Under this epoch.
    pub epoch: u64,
    /// The record's version.
    pub version: u64,
    /// Slots.
    pub slots: usize,
    /// The replicas in the first slots, and their daemons.
    pub replicas: Vec<(ReplicaId, Target)>,
}

/// A copy that ends in a slot.
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// Under this epoch.
    pub epoch: u64,
    /// The replica.
    pub replica: ReplicaId,
    /// Its daemon.
    pub target: Target,
    /// What is copied.
    pub method: Method,
}

/// A commit.
#[derive(Debug, Clone)]
pub struct Change {
    /// The store's generation when the record was read.
    pub generation: u64,
    /// The version that was read.
    pub base: u64,
    /// The node that must still be declared dead.
    pub while_dead: Option<usize>,
    /// The record.
    pub record: Record,
}

/// A virtual machine's request to one of its replicas.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The owner.
    pub node: usize,
    /// Which server.
    pub server: usize,
    /// The virtual machine's number.
    pub vm: u64,
    /// The request's number.
    pub seq: u64,
    /// The replica.
    pub replica: ReplicaId,
    /// Its daemon.
    pub target: Target,
    /// A block and its value; none for a flush.
    pub write: Option<(usize, u64)>,
}

/// Something that happens.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Event {
    Deliver {
        to: Place,
        msg: Msg,
    },
    GuardTick {
        node: usize,
        life: u64,
    },
    InstanceTick {
        instance: usize,
        life: u64,
    },
    ProbeTimeout {
        node: usize,
        peer: usize,
        asked: u64,
    },
    WitnessTimeout {
        by: usize,
        about: usize,
        instance: usize,
        asked: u64,
    },
    Writer {
        node: usize,
        server: usize,
        vm: u64,
    },
    GuestUp {
        node: usize,
        server: usize,
        vm: u64,
    },
    Child(Request),
    ChildSaid {
        request: Request,
        is_done: bool,
    },
    IoTimeout {
        node: usize,
        server: usize,
        vm: u64,
        seq: u64,
    },
    CopyStep {
        node: usize,
        server: usize,
        vm: u64,
        job: u64,
    },
    Boot {
        node: usize,
    },
    AgentUp {
        node: usize,
    },
    GuardUp {
        node: usize,
    },
    InstanceUp {
        instance: usize,
    },
    StoreUp {
        goes_back: usize,
    },
    Uncut {
        from: usize,
        to: usize,
    },
    EdgeReads,
    Fault,
    Heal,
    Operator,
}
