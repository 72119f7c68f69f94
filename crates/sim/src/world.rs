//! The cluster, its clock and its network, and the loop that lets events happen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use undine_failover::Policy;
use undine_failover::membership::{Record, Replica, Worth};
use undine_failover::memory::Term;

use crate::bug::Bug;
use crate::disk::{BLOCKS, Content, Disk};
use crate::ids;
use crate::instance::Instance;
use crate::msg::{Event, INSTANCES, MACHINES, Msg, NODES, Place};
use crate::node::Node;
use crate::rng::Rng;
use crate::store::{Database, Founding, Memory, Store};

/// When the last fault has happened and everything is mended.
pub const HEAL_MS: u64 = 24_000;
/// By then everything must run again.
pub const END_MS: u64 = HEAL_MS + 90_000;

/// An event and its moment.
#[derive(Debug)]
struct Due {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// What is counted in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that happened.
    pub events: u64,
    /// Faults among them.
    pub faults: u64,
    /// Blocks that were acknowledged as flushed.
    pub acked: u64,
    /// Servers that changed their owner.
    pub moves: u64,
    /// Replicas that joined.
    pub joins: u64,
    /// Servers that guards paused.
    pub pauses: u64,
    /// Stores that went back.
    pub restores: u64,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.faults += other.faults;
        self.acked += other.acked;
        self.moves += other.moves;
        self.joins += other.joins;
        self.pauses += other.pauses;
        self.restores += other.restores;
    }
}

/// Everything.
pub struct World {
    /// Milliseconds.
    pub now: u64,
    pub(crate) rng: Rng,
    pub(crate) policy: Policy,
    pub(crate) bug: Option<Bug>,
    pub(crate) store: Store,
    pub(crate) nodes: Vec<Node>,
    pub(crate) instances: Vec<Instance>,
    /// Who cannot be heard by whom.
    pub(crate) cut: [[bool; MACHINES]; MACHINES],
    /// Messages lost, in a thousand.
    pub(crate) loss: u64,
    pub(crate) healed: bool,
    /// For each server, what was acknowledged.
    pub(crate) acked: Vec<Content>,
    /// For each server, the highest epoch that was opened anywhere.
    pub(crate) opened: Vec<u64>,
    /// For each server, the route that the edge knows, and what it has shown.
    pub(crate) edge: Vec<(u64, Content)>,
    /// For each server, the generation of the store in which it was found to be right.
    pub(crate) verified: Vec<u64>,
    /// What went wrong.
    pub violation: Option<String>,
    /// What was counted.
    pub counts: Counts,
    trace: Option<Vec<String>>,
    queue: BinaryHeap<Due>,
    seq: u64,
    fresh: u64,
}

impl World {
    /// A healthy cluster out of a seed, its store in memory.
    pub fn new(seed: u64, bug: Option<Bug>, has_trace: bool) -> Self {
        Self::on(seed, bug, has_trace, |it| Box::new(Memory::new(it)))
    }

    /// The same on whatever database this makes.
    pub fn on(
        seed: u64,
        bug: Option<Bug>,
        has_trace: bool,
        found: impl FnOnce(Founding) -> Box<dyn Database>,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = rng.within(3, NODES as u64 + 1) as usize;
        let instances = rng.within(1, INSTANCES as u64 + 1) as usize;
        let servers = rng.within(1, 3) as usize;
        let policy = Policy::KVM;
        let records: Vec<Record> = (0..servers).map(|it| record(&mut rng, it, nodes)).collect();
        let founding = Founding {
            records,
            nodes,
            instances,
            compares: bug != Some(Bug::SkipCompareAndSet),
        };
        let mut world = Self {
            now: 0,
            rng,
            policy,
            bug,
            store: Store::new(found(founding), instances),
            nodes: (0..nodes).map(|_| Node::new(servers)).collect(),
            instances: Vec::new(),
            cut: [[false; MACHINES]; MACHINES],
            loss: 0,
            healed: false,
            acked: vec![[0; BLOCKS]; servers],
            opened: vec![1; servers],
            edge: vec![(1, [0; BLOCKS]); servers],
            verified: vec![1; servers],
            violation: None,
            counts: Counts::default(),
            trace: has_trace.then(Vec::new),
            queue: BinaryHeap::new(),
            seq: 0,
            fresh: 100,
        };
        for instance in 0..instances {
            let fresh = Instance::new(policy, 0, nodes, servers);
            world.instances.push(fresh);
            world.at(
                instance as u64 * 37,
                Event::InstanceTick { instance, life: 0 },
            );
        }
        world.furnish();
        world
    }

    fn furnish(&mut self) {
        for node in 0..self.nodes.len() {
            self.at(node as u64 * 13, Event::GuardTick { node, life: 0 });
        }
        for server in 0..self.acked.len() {
            for it in self.store.record(server).replicas.clone() {
                self.nodes[ids::number(it.node)].holders[server].disk = Some(Disk::default());
                self.nodes[ids::number(it.node)].holders[server].sidecar =
                    Some(undine_failover::holder::Sidecar {
                        replica: it.id,
                        epoch: 0,
                        copy: undine_failover::holder::Copy::Closed,
                    });
            }
        }
        self.at(1_000, Event::EdgeReads);
        let faults = self.rng.within(3, 10);
        for _ in 0..faults {
            let at = self.rng.within(2_500, HEAL_MS - 2_000);
            self.at(at, Event::Fault);
        }
        self.at(HEAL_MS, Event::Heal);
    }

    /// Lets it run to its end. Tells what went wrong, if anything did.
    pub fn run(&mut self) -> Result<Counts, String> {
        while let Some(due) = self.queue.pop() {
            self.now = due.at;
            self.counts.events += 1;
            self.happen(due.event);
            self.check();
            if let Some(violation) = self.violation.take() {
                self.note(|| format!("VIOLATION {violation}"));
                return Err(violation);
            }
            if self.healed && (self.is_well() || self.now >= END_MS) {
                break;
            }
        }
        match self.what_is_wrong() {
            None => Ok(self.counts),
            Some(wrong) => Err(format!("not recovered: {wrong}")),
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(thaw) = self.frozen(&event) {
            self.at(thaw - self.now, event);
            return;
        }
        match event {
            Event::Deliver { to, msg } => self.deliver(to, msg),
            Event::GuardTick { node, life } => self.guard_tick(node, life),
            Event::InstanceTick { instance, life } => self.instance_tick(instance, life),
            Event::WitnessTimeout {
                by,
                about,
                instance,
                asked,
            } => {
                self.witness_timeout(by, about, instance, asked);
            }
            Event::ProbeTimeout { node, peer, asked } => self.probe_timeout(node, peer, asked),
            Event::Writer { node, server, vm } => self.writer(node, server, vm),
            Event::GuestUp { node, server, vm } => self.guest_up(node, server, vm),
            Event::Child(request) => self.child(request),
            Event::ChildSaid { request, is_done } => self.child_said(request, is_done),
            Event::IoTimeout {
                node,
                server,
                vm,
                seq,
            } => self.io_timeout(node, server, vm, seq),
            Event::CopyStep {
                node,
                server,
                vm,
                job,
            } => self.copy_step(node, server, vm, job),
            Event::Boot { node } => self.boot(node),
            Event::AgentUp { node } => self.agent_up(node),
            Event::GuardUp { node } => self.guard_up(node),
            Event::InstanceUp { instance } => self.instance_up(instance),
            Event::StoreUp { goes_back } => self.store_up(goes_back),
            Event::Uncut { from, to } => self.cut[from][to] = false,
            Event::EdgeReads => self.edge_reads(),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
            Event::Operator => self.operator(),
        }
    }

    fn deliver(&mut self, to: Place, msg: Msg) {
        self.note(|| format!("{to:?} <- {msg:?}"));
        match to {
            Place::Agent(node) if self.nodes[node].is_up && self.nodes[node].agent.is_up => {
                self.agent(node, msg);
            }
            Place::Guard(node) if self.nodes[node].is_up && self.nodes[node].guard.is_up => {
                self.guard(node, msg);
            }
            Place::Instance(instance) if self.instances[instance].process.is_up => {
                self.instance(instance, msg);
            }
            Place::Store => self.store_said(msg),
            _ => {}
        }
    }

    /// When whoever this happens to goes on, if it stands still.
    fn frozen(&self, event: &Event) -> Option<u64> {
        let node = |node: usize| self.nodes[node].frozen_until;
        let until = match event {
            Event::Deliver {
                to: Place::Agent(it),
                ..
            } => node(*it).max(self.nodes[*it].agent.frozen_until),
            Event::Deliver {
                to: Place::Guard(it),
                ..
            }
            | Event::GuardTick { node: it, .. }
            | Event::ProbeTimeout { node: it, .. } => {
                node(*it).max(self.nodes[*it].guard.frozen_until)
            }
            Event::Deliver {
                to: Place::Instance(it),
                ..
            }
            | Event::InstanceTick { instance: it, .. } => self.instances[*it].process.frozen_until,
            Event::Writer { node: it, .. }
            | Event::GuestUp { node: it, .. }
            | Event::IoTimeout { node: it, .. }
            | Event::WitnessTimeout { by: it, .. }
            | Event::CopyStep { node: it, .. } => node(*it),
            Event::ChildSaid { request, .. } => node(request.node),
            Event::Child(request) => {
                let daemon = &self.nodes[request.target.0].holders[request.server].daemon;
                let daemon = daemon.as_ref().map_or(0, |it| it.frozen_until);
                node(request.target.0).max(daemon)
            }
            _ => 0,
        };
        (until > self.now).then_some(until)
    }

    /// Something happens later.
    pub(crate) fn at(&mut self, after: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Due {
            at: self.now + after,
            seq: self.seq,
            event,
        });
    }

    /// A number that was never used.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// A message, which may be lost, late or doubled.
    pub(crate) fn send(&mut self, from: Place, to: Place, msg: Msg) {
        if self.cut[from.machine()][to.machine()] || self.rng.chance(self.loss) {
            self.note(|| format!("lost: {msg:?}"));
            return;
        }
        let delay = self.delay();
        if !self.healed && self.rng.chance(20) {
            let late = self.delay() + self.rng.within(0, 2_000);
            self.at(
                late,
                Event::Deliver {
                    to,
                    msg: msg.clone(),
                },
            );
        }
        self.at(delay, Event::Deliver { to, msg });
    }

    /// An order of control to a node, read from this generation of the store.
    pub(crate) fn order(&mut self, instance: usize, node: usize, generation: u64, order: Msg) {
        let order = Msg::Order {
            term: Term(generation),
            order: Box::new(order),
        };
        self.send(Place::Instance(instance), Place::Agent(node), order);
    }

    fn delay(&mut self) -> u64 {
        if !self.healed && self.rng.chance(30) {
            return self.rng.within(100, 2_500);
        }
        self.rng.within(1, 25)
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", self.now, line()));
        }
    }

    /// The lines of the trace.
    pub fn trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

fn record(rng: &mut Rng, server: usize, nodes: usize) -> Record {
    let slots = match rng.below(10) {
        0 => 1,
        1..=6 => 2,
        _ => 3,
    };
    let first = rng.below(nodes);
    let replicas = (0..slots).map(|it| Replica {
        id: ids::replica(1 + server * 10 + it),
        node: ids::node((first + it) % nodes),
        worth: Worth::InSync,
        left_epoch: None,
    });
    Record {
        server: ids::server(server),
        epoch: 1,
        version: 1,
        owner: Some(ids::node(first)),
        replicas: replicas.collect(),
        slots,
        wanted: true,
    }
}
