//! A node's guard: `undine_guard`'s own brain, whole; here it only gets eyes and hands.

use std::net::SocketAddr;

use undine_api::guard::{Owned, Peer};
use undine_api::internal::LeaseAnswer;
use undine_guard::brain::{Do, LEASE_MS};
use undine_guard::lease::State;
use undine_guard::served::Served;
use undine_model::ServerId;

use crate::bug::Bug;
use crate::ids;
use crate::msg::{Event, Msg, Place};
use crate::node::Node;
use crate::world::World;

const TICK_MS: u64 = 100;
const PROBE_MS: u64 = 400;
const WITNESS_MS: u64 = 1_000;

/// A node as guards know it.
fn peer(node: usize) -> Peer {
    Peer {
        node: ids::node(node),
        address: SocketAddr::from(([10, 0, 0, 1], 7_300 + node as u16)),
        storage: None,
    }
}

impl World {
    /// Does what is due.
    pub(crate) fn guard_tick(&mut self, node: usize, life: u64) {
        let here = &self.nodes[node];
        if !here.is_up || !here.guard.is_up || here.guard.life != life {
            return;
        }
        self.at(TICK_MS, Event::GuardTick { node, life });
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: usize) {
        let now = self.now;
        let listed = served(&self.nodes[node], node);
        let mind = &mut self.nodes[node].mind;
        mind.serves(listed);
        for due in mind.tick(now) {
            match due {
                Do::Ask(asked) => {
                    let renew = Msg::Renew {
                        node,
                        number: asked.number,
                        echo: asked.last_answered,
                        confirm: asked.confirm,
                    };
                    self.renew(node, renew);
                }
                Do::Probe(peer) => self.probe(node, ids::number(peer.node)),
                Do::Pause(it) => self.pause(node, &it),
                Do::Continue(it, _) => self.resume(node, it.server, false),
            }
        }
        let mind = &self.nodes[node].mind;
        if self.bug == Some(Bug::ResumeWithoutConfirming)
            && !mind.is_isolated()
            && mind.state(now) == State::Held
        {
            for server in mind.ledger().servers() {
                self.resume(node, server, true);
            }
        }
    }

    fn renew(&mut self, node: usize, renew: Msg) {
        let (now, instances) = (self.now, self.instances.len());
        let here = &mut self.nodes[node];
        // An instance that has not answered for a while is passed over for the next one.
        if here.mind.state(now + 900) != State::Held {
            here.asks = (here.asks + 1) % instances;
        }
        let to = Place::Instance(here.asks);
        self.send(Place::Guard(node), to, renew);
    }

    fn probe(&mut self, node: usize, peer: usize) {
        let asked = self.now;
        let probe = Msg::Probe { from: node, asked };
        self.send(Place::Guard(node), Place::Guard(peer), probe);
        self.at(PROBE_MS, Event::ProbeTimeout { node, peer, asked });
    }

    /// The probe's time is over; an answer that came counts more.
    pub(crate) fn probe_timeout(&mut self, node: usize, about: usize, asked: u64) {
        self.nodes[node].mind.probed(&peer(about), asked, false);
    }

    fn pause(&mut self, node: usize, it: &Served) {
        let now = self.now;
        let server = ids::number(it.server);
        let here = &mut self.nodes[node];
        let Some(vm) = here.vms[server].as_mut().filter(|vm| !vm.is_paused) else {
            return;
        };
        if here.mind.pausing(it, vm.id as i32, now) {
            vm.is_paused = true;
            self.counts.pauses += 1;
            self.note(|| format!("node {node} pauses server {server}"));
        }
    }

    /// What was superseded while it stood still must never run again.
    fn resume(&mut self, node: usize, id: ServerId, is_forced: bool) {
        let now = self.now;
        let server = ids::number(id);
        let here = &mut self.nodes[node];
        let process = here.vms[server].as_ref().map_or(0, |vm| vm.id as i32);
        if !is_forced && !here.mind.may_continue(id, process, now) {
            return;
        }
        here.mind.settled(id);
        let Some(vm) = &mut self.nodes[node].vms[server] else {
            return;
        };
        vm.is_paused = false;
        let epoch = vm.slots.epoch;
        let record = self.store.record(server);
        let (owner, stands) = (record.owner, record.epoch);
        self.note(|| format!("node {node} lets server {server} go on"));
        // A run that ended here begins anew here: while nothing newer has begun anywhere, the old
        // one on its failed disk harms nobody, and its own node ends it before the new one begins.
        let is_over = self.nodes.iter().any(|it| it.started[server] > epoch);
        if owner != Some(ids::node(node)) || is_over {
            self.violate(format!(
                "server {server}: node {node} lets epoch {epoch} go on, which {stands} has superseded"
            ));
        }
    }

    /// A message for a guard.
    pub(crate) fn guard(&mut self, node: usize, msg: Msg) {
        let me = Place::Guard(node);
        match msg {
            Msg::Lease {
                number,
                owns,
                peers,
            } => {
                let owned = |(server, epoch)| Owned { server, epoch };
                let answer = LeaseAnswer {
                    number,
                    lease_ms: LEASE_MS,
                    owns: owns.map(|all| all.into_iter().map(owned).collect()),
                    peers: peers.into_iter().map(peer).collect(),
                };
                self.nodes[node].mind.answered(answer);
                self.carry_out(node);
            }
            Msg::Probe { from, asked } => {
                self.send(me, Place::Guard(from), Msg::ProbeOk { node, asked });
            }
            Msg::ProbeOk { node: about, asked } => {
                self.nodes[node].mind.probed(&peer(about), asked, true);
            }
            Msg::Reach { instance, about } => {
                let asked = self.now;
                self.nodes[node].witnessing[about] = Some(asked);
                self.send(
                    me,
                    Place::Guard(about),
                    Msg::Ping {
                        from: node,
                        instance,
                    },
                );
                let timeout = Event::WitnessTimeout {
                    by: node,
                    about,
                    instance,
                    asked,
                };
                self.at(WITNESS_MS, timeout);
            }
            Msg::Ping { from, instance } => {
                self.send(me, Place::Guard(from), Msg::Pong { node, instance });
            }
            Msg::Pong {
                node: about,
                instance,
            } => {
                self.nodes[node].witnessing[about] = None;
                let said = Msg::Reached {
                    about,
                    by: node,
                    is_reachable: true,
                };
                self.send(me, Place::Instance(instance), said);
            }
            _ => {}
        }
    }

    pub(crate) fn witness_timeout(&mut self, by: usize, about: usize, instance: usize, asked: u64) {
        let here = &mut self.nodes[by];
        if here.is_up && here.guard.is_up && here.witnessing[about] == Some(asked) {
            here.witnessing[about] = None;
            let said = Msg::Reached {
                about,
                by,
                is_reachable: false,
            };
            self.send(Place::Guard(by), Place::Instance(instance), said);
        }
    }
}

/// The list that the agent keeps for the guard.
fn served(node: &Node, number: usize) -> Vec<Served> {
    let vms = node.vms.iter().enumerate();
    vms.filter_map(|(server, vm)| {
        let vm = vm.as_ref()?;
        Some(Served {
            server: ids::server(server),
            epoch: vm.slots.epoch,
            guard_socket: Default::default(),
            local_only: vm.is_local_only(number),
        })
    })
    .collect()
}
