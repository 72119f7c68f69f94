//! A node's guard: it renews, asks its peers, is a witness, and carries out what it decided.

use undine_failover::lease::{Order, Running, State};

use crate::bug::Bug;
use crate::ids;
use crate::msg::{Event, Msg, Place};
use crate::node::Node;
use crate::world::World;

const TICK_MS: u64 = 200;
const WITNESS_MS: u64 = 1_000;

impl World {
    /// Renews when it is time, and does what is due.
    pub(crate) fn guard_tick(&mut self, node: usize, life: u64) {
        let here = &self.nodes[node];
        if !here.is_up || !here.guard.is_up || here.guard.life != life {
            return;
        }
        let asked_ms = here.asked_ms;
        self.at(TICK_MS, Event::GuardTick { node, life });
        if asked_ms == 0 || self.now >= asked_ms + self.policy.renew_every_ms {
            self.renew(node);
        }
        self.carry_out(node);
    }

    fn renew(&mut self, node: usize) {
        let (now, instances) = (self.now, self.instances.len());
        let here = &mut self.nodes[node];
        here.asked_ms = now;
        if here.mind.lease().state(now + 900) != State::Held {
            here.asks = (here.asks + 1) % instances;
        }
        let asked = here.mind.ask(now);
        let renew = Msg::Renew {
            node,
            number: asked.number,
            echo: asked.last_answered,
            confirm: here.mind.must_confirm(),
        };
        let to = Place::Instance(here.asks);
        self.send(Place::Guard(node), to, renew);
        for peer in 0..self.nodes.len() {
            if peer != node {
                let probe = Msg::Probe {
                    from: node,
                    asked: now,
                };
                self.send(Place::Guard(node), Place::Guard(peer), probe);
            }
        }
    }

    fn carry_out(&mut self, node: usize) {
        let now = self.now;
        let here = running(&self.nodes[node], node);
        let mut orders = self.nodes[node].mind.orders(now, &here);
        let mind = &self.nodes[node].mind;
        if self.bug == Some(Bug::ResumeWithoutConfirming)
            && !mind.is_isolated(now)
            && mind.lease().state(now) == State::Held
        {
            orders = mind.paused().map(Order::Resume).collect();
        }
        for order in orders {
            match order {
                Order::Pause(id) => self.pause(node, ids::number(id)),
                Order::Resume(id) => {
                    self.resume(node, ids::number(id));
                    self.nodes[node].mind.resumed(id);
                }
                Order::Stop(id) => self.nodes[node].vms[ids::number(id)] = None,
            }
        }
    }

    fn pause(&mut self, node: usize, server: usize) {
        if let Some(vm) = self.nodes[node].vms[server]
            .as_mut()
            .filter(|it| !it.is_paused)
        {
            vm.is_paused = true;
            self.counts.pauses += 1;
            self.note(|| format!("node {node} pauses server {server}"));
        }
    }

    /// What was superseded while it stood still must never run again.
    fn resume(&mut self, node: usize, server: usize) {
        let Some(vm) = &mut self.nodes[node].vms[server] else {
            return;
        };
        vm.is_paused = false;
        let epoch = vm.slots.epoch;
        let record = self.store.record(server);
        let (owner, stands) = (record.owner, record.epoch);
        self.note(|| format!("node {node} lets server {server} go on"));
        if owner != Some(ids::node(node)) || stands > epoch {
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
                let lease_ms = self.policy.lease_ms;
                let mind = &mut self.nodes[node].mind;
                mind.peers(peers.into_iter().map(ids::node));
                mind.answered(number, lease_ms, owns.as_deref());
                self.carry_out(node);
            }
            Msg::Probe { from, asked } => {
                self.send(me, Place::Guard(from), Msg::ProbeOk { node, asked });
            }
            Msg::ProbeOk { node: peer, asked } => {
                self.nodes[node].mind.reached(ids::node(peer), asked);
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

fn running(node: &Node, number: usize) -> Vec<Running> {
    let vms = node.vms.iter().enumerate();
    vms.filter_map(|(server, vm)| {
        let vm = vm.as_ref()?;
        Some(Running {
            server: ids::server(server),
            epoch: vm.slots.epoch,
            local_only: vm.is_local_only(number),
        })
    })
    .collect()
}
