//! Everything that goes wrong, and how it is mended.

use std::collections::BTreeMap;

use undine_failover::holder;
use undine_failover::memory;
use undine_guard::brain::Brain;
use undine_guard::lease::Lease;
use undine_guard::ledger::Ledger;

use crate::bug::Bug;
use crate::ids;
use crate::instance::Instance;
use crate::msg::{Event, INSTANCES, MACHINES, NODES, Place};
use crate::world::World;

impl World {
    /// One fault, whichever.
    pub(crate) fn fault(&mut self) {
        self.counts.faults += 1;
        let node = self.rng.below(self.nodes.len());
        let server = self.rng.below(self.acked.len());
        let long = self.rng.within(300, 9_000);
        let kind = self.rng.below(20);
        self.note(|| format!("FAULT {kind} node {node} server {server} for {long} ms"));
        match kind {
            0..=2 => self.power_loss(node, long),
            3 => self.nodes[node].vms[server] = None,
            4 | 5 => self.kill_daemon(node, server),
            6 => self.kill_agent(node, long),
            7 => self.kill_guard(node, long),
            8 => self.kill_instance(long),
            9 => self.store_down(long, 0),
            10 => {
                let back = self.rng.within(1, 4) as usize;
                self.store_down(long, back);
                if self.rng.chance(500) {
                    // What it was about to say is of the time before.
                    let instance = self.rng.below(self.instances.len());
                    let until = self.now + long + self.rng.within(500, 4_000);
                    self.instances[instance].process.frozen_until = until;
                }
            }
            11 => self.nodes[node].frozen_until = self.now + long,
            12 => self.freeze_process(node, server, long),
            13..=15 => self.isolate(node, long),
            16 | 17 => self.cut_link(long),
            18 => self.loss = self.rng.within(20, 200),
            _ => {
                // Both replicas' nodes, one after the other.
                self.power_loss(node, long);
                let next = (node + 1) % self.nodes.len();
                let length = self.rng.within(300, 9_000);
                self.isolate(next, length);
            }
        }
    }

    fn power_loss(&mut self, node: usize, long: u64) {
        if !self.nodes[node].is_up {
            return;
        }
        for server in 0..self.acked.len() {
            self.kill_daemon(node, server);
        }
        let here = &mut self.nodes[node];
        here.is_up = false;
        here.frozen_until = 0;
        for process in [&mut here.agent, &mut here.guard] {
            process.is_up = false;
            process.life += 1;
            process.frozen_until = 0;
        }
        here.vms.fill(None);
        here.witnessing = [None; NODES];
        self.at(long + 1_000, Event::Boot { node });
    }

    pub(crate) fn boot(&mut self, node: usize) {
        let now = self.now;
        let here = &mut self.nodes[node];
        if here.is_up {
            return;
        }
        here.is_up = true;
        let peers = here.mind.peers();
        here.mind = Brain::new(now, Lease::default(), peers, Ledger::default());
        self.agent_up(node);
        self.guard_up(node);
    }

    /// A daemon that ends by itself: its node marks the copy.
    fn kill_daemon(&mut self, node: usize, server: usize) {
        let same_name = self.bug == Some(Bug::SameIncarnation) && self.rng.chance(700);
        let holder = &mut self.nodes[node].holders[server];
        if holder.daemon.is_none() {
            return;
        }
        if let Some(disk) = &mut holder.disk {
            disk.crash(&mut self.rng);
        }
        if same_name {
            return;
        }
        holder.daemon = None;
        holder.sidecar = holder.sidecar.as_ref().map(holder::ended);
    }

    fn kill_agent(&mut self, node: usize, long: u64) {
        let agent = &mut self.nodes[node].agent;
        agent.is_up = false;
        agent.life += 1;
        // A copy is driven by the agent: it ends with it.
        for vm in self.nodes[node].vms.iter_mut().flatten() {
            vm.job = None;
        }
        self.at(long, Event::AgentUp { node });
    }

    pub(crate) fn agent_up(&mut self, node: usize) {
        if self.nodes[node].is_up {
            self.nodes[node].agent.is_up = true;
        }
    }

    fn kill_guard(&mut self, node: usize, long: u64) {
        let guard = &mut self.nodes[node].guard;
        guard.is_up = false;
        guard.life += 1;
        self.at(long, Event::GuardUp { node });
    }

    pub(crate) fn guard_up(&mut self, node: usize) {
        let now = self.now;
        let here = &mut self.nodes[node];
        if !here.is_up || here.guard.is_up {
            return;
        }
        here.guard.is_up = true;
        // Files tell what the one before it had paused, how its lease stood, and who its peers are.
        let old = &here.mind;
        let lease = old
            .lease()
            .until_ms()
            .map_or_else(Lease::default, Lease::remembered);
        here.mind = Brain::new(now, lease, old.peers(), old.ledger().clone());
        let life = here.guard.life;
        self.at(10, Event::GuardTick { node, life });
    }

    fn kill_instance(&mut self, long: u64) {
        let instance = self.rng.below(self.instances.len());
        let process = &mut self.instances[instance].process;
        process.is_up = false;
        process.life += 1;
        self.at(long, Event::InstanceUp { instance });
    }

    pub(crate) fn instance_up(&mut self, instance: usize) {
        if self.instances[instance].process.is_up {
            return;
        }
        let life = self.instances[instance].process.life;
        let (nodes, servers) = (self.nodes.len(), self.acked.len());
        self.instances[instance] = Instance::new(self.policy, self.now, nodes, servers);
        self.instances[instance].process.life = life;
        self.at(1, Event::InstanceTick { instance, life });
    }

    fn store_down(&mut self, long: u64, goes_back: usize) {
        self.store.is_up = false;
        self.at(long, Event::StoreUp { goes_back });
    }

    pub(crate) fn store_up(&mut self, goes_back: usize) {
        self.store.is_up = true;
        if goes_back > 0 && self.store.go_back(goes_back) {
            self.counts.restores += 1;
            self.note(|| "the store went back".to_owned());
        }
    }

    fn freeze_process(&mut self, node: usize, server: usize, long: u64) {
        let until = self.now + long;
        match self.rng.below(4) {
            0 => self.nodes[node].agent.frozen_until = until,
            1 => self.nodes[node].guard.frozen_until = until,
            2 => {
                let instance = self.rng.below(self.instances.len());
                self.instances[instance].process.frozen_until = until;
            }
            _ => {
                if let Some(daemon) = &mut self.nodes[node].holders[server].daemon {
                    daemon.frozen_until = until;
                }
            }
        }
    }

    /// A node hears nobody, or is heard by nobody, or both.
    fn isolate(&mut self, node: usize, long: u64) {
        let way = self.rng.below(4);
        // Sometimes only control and the store are out of reach.
        let first = if self.rng.chance(250) { NODES } else { 0 };
        for other in (first..MACHINES).filter(|it| *it != node) {
            if way != 1 {
                self.cut_way(node, other, long);
            }
            if way != 2 {
                self.cut_way(other, node, long);
            }
        }
    }

    fn cut_way(&mut self, from: usize, to: usize, long: u64) {
        self.cut[from][to] = true;
        self.at(long, Event::Uncut { from, to });
    }

    fn cut_link(&mut self, long: u64) {
        let machines: Vec<usize> = (0..self.nodes.len())
            .chain(NODES..NODES + self.instances.len())
            .chain([NODES + INSTANCES])
            .collect();
        let from = machines[self.rng.below(machines.len())];
        let to = machines[self.rng.below(machines.len())];
        if from != to {
            self.cut_way(from, to, long);
            if self.rng.chance(500) {
                self.cut_way(to, from, long);
            }
        }
    }

    /// No more faults; everything is mended, and an operator is there.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.loss = 0;
        self.cut = [[false; MACHINES]; MACHINES];
        if !self.store.is_up {
            self.store_up(0);
        }
        for node in 0..self.nodes.len() {
            let here = &mut self.nodes[node];
            here.frozen_until = 0;
            here.agent.frozen_until = 0;
            here.guard.frozen_until = 0;
            for holder in &mut here.holders {
                if let Some(daemon) = &mut holder.daemon {
                    daemon.frozen_until = 0;
                }
            }
            self.boot(node);
            self.agent_up(node);
            self.guard_up(node);
        }
        for instance in 0..self.instances.len() {
            self.instances[instance].process.frozen_until = 0;
            self.instance_up(instance);
        }
        self.at(1_000, Event::Operator);
    }

    /// The operator sees to servers of which somebody has seen more than the store remembers.
    pub(crate) fn operator(&mut self) {
        for server in 0..self.acked.len() {
            if !self.store.is_blocked(server) {
                continue;
            }
            let nodes = 0..self.nodes.len();
            let said: BTreeMap<_, _> = nodes
                .map(|it| (ids::node(it), self.sighting(it, server)))
                .collect();
            match memory::adopt(&self.store.read(server), &said) {
                Ok(record) => {
                    self.note(|| format!("the operator adopts {record:?}"));
                    self.store.adopt(server, record);
                }
                Err(refusal) => self.note(|| format!("nothing to adopt: {refusal}, {said:?}")),
            }
            for instance in &mut self.instances {
                instance.said.clear();
            }
        }
        self.at(1_000, Event::Operator);
    }

    /// The edge shows each server's content, by the address of the epoch that it knows.
    pub(crate) fn edge_reads(&mut self) {
        self.at(300, Event::EdgeReads);
        let edge = Place::Edge.machine();
        for server in 0..self.acked.len() {
            if self.store.is_up && self.rng.chance(700) {
                // Never a lower epoch than it knows.
                let known = &mut self.edge[server].0;
                *known = (*known).max(self.store.route(server));
            }
            let epoch = self.edge[server].0;
            let shown = self.nodes.iter().enumerate().find_map(|(number, node)| {
                let vm = node.vms[server].as_ref()?;
                let is_there = node.is_up
                    && node.frozen_until <= self.now
                    && !self.cut[edge][number]
                    && vm.slots.epoch == epoch
                    && vm.runs();
                is_there.then_some(vm.view)
            });
            let Some(shown) = shown else { continue };
            let before = self.edge[server].1;
            if shown.iter().zip(before).any(|(now, then)| *now < then) {
                self.violate(format!(
                    "server {server}: a page of epoch {epoch} is older than one before it"
                ));
            }
            self.edge[server].1 = shown;
        }
    }
}
