//! A node's agent: it opens replicas, starts and ends virtual machines, and does to their slots
//! what control has committed. The decisions are `undine_failover`'s.

use undine_failover::holder::{self, HolderRefusal, Open, Opening};
use undine_failover::machine::{Opened, Phase, Vm as Seen};
use undine_failover::memory::Sighting;
use undine_failover::resync;
use undine_failover::slots::{Committed, Slots};
use undine_model::{NodeId, ReplicaId};

use crate::bug::Bug;
use crate::disk::Disk;
use crate::ids;
use crate::msg::{Event, Join, Msg, Place, Start, Status, Target};
use crate::node::{Daemon, Holder, Job, Vm};
use crate::world::World;

impl World {
    /// A message for an agent.
    pub(crate) fn agent(&mut self, node: usize, msg: Msg) {
        match msg {
            Msg::Order { term, order } => {
                let heard = &mut self.nodes[node].term;
                if heard.hear(term).is_ok() || self.bug == Some(Bug::NoTerms) {
                    self.agent(node, *order);
                }
            }
            Msg::Ask {
                instance,
                server,
                token,
            } => {
                let status = Box::new(self.status(node, server));
                self.answer(
                    node,
                    instance,
                    Msg::Status {
                        server,
                        token,
                        status,
                    },
                );
            }
            Msg::Open {
                instance,
                server,
                token,
                opening,
            } => {
                let (said, target) = self.open(node, server, opening);
                let replica = opening.replica;
                let there = self.nodes[node].holders[server].sidecar.as_ref();
                let other = there.map(|it| it.replica).filter(|it| *it != replica);
                let said = Msg::OpenSaid {
                    server,
                    token,
                    replica,
                    said,
                    target,
                    other,
                };
                self.answer(node, instance, said);
            }
            Msg::Remove {
                server,
                replica,
                epoch,
            } => {
                let here = &mut self.nodes[node].holders[server];
                let removed = holder::remove(here.sidecar.as_ref(), replica, epoch);
                if let Ok(Some(sidecar)) = removed {
                    *here = Holder {
                        sidecar: Some(sidecar),
                        ..Holder::default()
                    };
                }
            }
            Msg::Start {
                instance,
                server,
                token,
                start,
            } => {
                self.start(node, server, &start);
                self.answer(node, instance, Msg::Done { server, token });
            }
            Msg::Slots {
                instance,
                server,
                token,
                committed,
            } => {
                self.committed(node, server, &committed);
                self.answer(node, instance, Msg::Done { server, token });
            }
            Msg::Join {
                instance,
                server,
                token,
                join,
            } => {
                self.begin_copy(node, server, join);
                self.answer(node, instance, Msg::Done { server, token });
            }
            Msg::See {
                instance,
                generation,
            } => {
                let servers = 0..self.acked.len();
                let said = servers.map(|server| self.sighting(node, server)).collect();
                self.answer(
                    node,
                    instance,
                    Msg::Saw {
                        node,
                        generation,
                        said,
                    },
                );
            }
            Msg::Clean { instance, listed } => {
                self.clean(node, &listed);
                self.answer(node, instance, Msg::Cleaned { node });
            }
            _ => {}
        }
    }

    fn answer(&mut self, node: usize, instance: usize, msg: Msg) {
        self.send(Place::Agent(node), Place::Instance(instance), msg);
    }

    fn status(&self, node: usize, server: usize) -> Status {
        let here = &self.nodes[node];
        let Some(vm) = &here.vms[server] else {
            let epoch = here.started[server];
            let ended = Seen {
                epoch,
                phase: Phase::Ended,
            };
            return Status {
                vm: (epoch > 0).then_some(ended),
                slots: None,
                copying: None,
                kept: Vec::new(),
            };
        };
        let can_go_on = !vm.slots.live().is_empty();
        let daemon = here.holders[server].daemon.as_ref();
        let now = daemon.map(|it| it.incarnation);
        let kept = |(source, left): &(ReplicaId, u64)| match self.bug {
            Some(Bug::BitmapOfAnotherDaemon) => daemon.is_some(),
            _ => resync::bitmap_kept(&vm.slots, (*source, left), now.as_ref()),
        };
        Status {
            vm: Some(Seen {
                epoch: vm.slots.epoch,
                phase: if can_go_on { vm.phase } else { Phase::Ended },
            }),
            slots: Some(vm.slots.clone()),
            copying: vm.job.as_ref().map(|it| it.replica),
            kept: vm
                .left
                .iter()
                .filter(|(_, left)| kept(left))
                .map(|(id, _)| *id)
                .collect(),
        }
    }

    /// What the node has seen of a server.
    pub(crate) fn sighting(&self, node: usize, server: usize) -> Option<Sighting> {
        let here = &self.nodes[node];
        let sidecar = here.holders[server].sidecar.as_ref();
        let slots = here.written[server].clone();
        if sidecar.is_none() && slots.is_none() {
            return None;
        }
        let seen = sidecar.map_or(0, |it| it.epoch);
        let ran = slots.as_ref().map_or(0, |it| it.epoch);
        let opened = sidecar.filter(|it| it.epoch >= ran);
        Some(Sighting {
            epoch: seen.max(ran),
            holds: sidecar
                .filter(|it| it.copy != holder::Copy::Removed)
                .map(|it| it.replica),
            known: None,
            opened: opened.and_then(holder::Sidecar::opened),
            slots,
        })
    }

    fn open(&mut self, node: usize, server: usize, asked: Opening) -> (Opened, Target) {
        let incarnation = self.fresh();
        let here = &mut self.nodes[node].holders[server];
        let has_daemon = here.daemon.is_some();
        match holder::open(here.sidecar.as_ref(), has_daemon, asked) {
            Ok(Open::Same) => {
                let incarnation = here.daemon.as_ref().map_or(0, |it| it.incarnation);
                (Opened::Open(asked.epoch), (node, incarnation))
            }
            Ok(Open::Fresh { sidecar, create }) => {
                if here.daemon.take().is_some()
                    && let Some(disk) = &mut here.disk
                {
                    disk.crash(&mut self.rng);
                }
                here.sidecar = Some(sidecar);
                if create {
                    here.disk = Some(Disk::default());
                }
                here.daemon = Some(Daemon {
                    incarnation,
                    active: 0,
                    frozen: 0,
                    frozen_until: 0,
                });
                self.opened[server] = self.opened[server].max(asked.epoch);
                (Opened::Open(asked.epoch), (node, incarnation))
            }
            Err(HolderRefusal::Lost(_)) => (Opened::Lost, (node, 0)),
            Err(_) => (Opened::Stale(asked.epoch), (node, 0)),
        }
    }

    fn start(&mut self, node: usize, server: usize, start: &Start) {
        let id = self.fresh();
        let here = &mut self.nodes[node];
        // An epoch is started once: a late word must not start it again.
        if start.epoch <= here.started[server] {
            return;
        }
        here.started[server] = start.epoch;
        let replicas: Vec<ReplicaId> = start.replicas.iter().map(|it| it.0).collect();
        let slots = Slots::start(start.epoch, start.version, start.slots, &replicas);
        here.written[server] = Some(slots.clone());
        here.vms[server] = Some(Vm {
            id,
            phase: Phase::Starting,
            slots,
            targets: start.replicas.iter().copied().collect(),
            is_paused: false,
            io: None,
            lazy: Default::default(),
            view: Default::default(),
            job: None,
            left: Default::default(),
        });
        self.counts.moves += 1;
        let boot = self.rng.within(200, 1_200);
        self.at(
            boot,
            Event::GuestUp {
                node,
                server,
                vm: id,
            },
        );
    }

    /// Control has committed this.
    fn committed(&mut self, node: usize, server: usize, said: &Committed) {
        let bug = self.bug;
        let here = &mut self.nodes[node];
        let Some(vm) = &mut here.vms[server] else {
            return;
        };
        let said = Committed {
            syncing: match bug {
                Some(Bug::JoinLeavesUnsaid) => Default::default(),
                _ => said.syncing.clone(),
            },
            ..said.clone()
        };
        let Ok(leave) = vm.slots.committed(&said) else {
            return;
        };
        here.written[server] = Some(vm.slots.clone());
        for replica in leave {
            self.vacate(node, server, replica);
        }
        self.again(node, server);
    }

    /// Swaps the placeholder in.
    pub(crate) fn vacate(&mut self, node: usize, server: usize, replica: ReplicaId) {
        let here = &mut self.nodes[node];
        let Some(vm) = &mut here.vms[server] else {
            return;
        };
        if vm.slots.is_live(replica)
            && let Some(source) = vm.source(node)
        {
            vm.left.insert(replica, source);
        }
        vm.slots.vacated(replica);
        if let Some(io) = &mut vm.io {
            io.waiting.retain(|it| *it != replica);
        }
        vm.targets.remove(&replica);
        here.written[server] = Some(vm.slots.clone());
    }

    fn begin_copy(&mut self, node: usize, server: usize, join: Join) {
        let id = self.fresh();
        let here = &mut self.nodes[node];
        let Some(vm) = &mut here.vms[server] else {
            return;
        };
        if vm.slots.may_join(join.epoch).is_err() || vm.job.is_some() || !vm.slots.may_continue() {
            return;
        }
        if vm.slots.is_live(join.replica) {
            return;
        }
        let daemon = here.holders[server].daemon.as_ref();
        let dirty = match join.method {
            resync::Method::Full => u8::MAX,
            resync::Method::Bitmap => daemon.map_or(u8::MAX, |it| it.active | it.frozen),
        };
        let under_way = vm.io.as_ref().and_then(|io| io.write);
        let dirty = dirty | under_way.map_or(0, |(block, _)| 1 << block);
        vm.job = Some(Job {
            id,
            replica: join.replica,
            target: join.target,
            dirty: dirty & crate::vm::ALL,
        });
        let vm = vm.id;
        self.at(
            20,
            Event::CopyStep {
                node,
                server,
                vm,
                job: id,
            },
        );
    }

    fn clean(&mut self, node: usize, listed: &[(Option<NodeId>, u64)]) {
        for (server, (owner, epoch)) in listed.iter().enumerate() {
            let vm = self.nodes[node].vms[server].as_ref();
            let Some(mine) = vm.map(|vm| vm.slots.epoch) else {
                continue;
            };
            let is_owner = *owner == Some(ids::node(node));
            if mine < *epoch || (!is_owner && mine <= *epoch) {
                self.nodes[node].vms[server] = None;
            }
        }
    }
}
