//! An instance of control: it hears renewals, judges nodes, declares them dead, and works on
//! servers, one operation each.

use std::collections::{BTreeMap, BTreeSet};

use undine_failover::liveness::{Judgement, Known, Watch};
use undine_failover::machine::Opened;
use undine_failover::membership::{self, Record};
use undine_failover::memory::Sighting;
use undine_failover::policy::Policy;
use undine_model::{NodeId, ReplicaId};

use crate::bug::Bug;
use crate::ids;
use crate::msg::{Event, Msg, Place, Target};
use crate::node::Process;
use crate::world::World;

const TICK_MS: u64 = 250;

/// What was read at the beginning of a step.
#[derive(Debug, Clone)]
pub struct Read {
    /// The record.
    pub record: Record,
    /// The store's generation.
    pub generation: u64,
}

/// The work on one server.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// The answer that is waited for, and until when.
    pub token: Option<(u64, u64)>,
    /// What was read before the question.
    pub read: Option<Read>,
    /// What the openings came to, and which daemons they started.
    pub opened: BTreeMap<ReplicaId, (Opened, Target)>,
    /// A replica opened to be filled: its daemon, under which epoch, and whether the copy was begun.
    pub filling: BTreeMap<ReplicaId, (Target, u64, bool)>,
    /// Replicas whose file is gone, or was made for this: they are filled in full.
    pub new: BTreeSet<ReplicaId>,
}

/// An instance.
#[derive(Debug)]
pub struct Instance {
    /// Its process.
    pub process: Process,
    /// Its watch over the nodes.
    pub watch: Watch,
    /// When it heard each node.
    pub heard: Vec<Option<u64>>,
    /// When it asked for witnesses about each node.
    pub asked: Vec<u64>,
    /// Its work on each server.
    pub work: Vec<Work>,
    /// The generation of the store that each server was found to be clear in.
    pub clear: Vec<u64>,
    /// What nodes have said about the present generation.
    pub said: BTreeMap<NodeId, Vec<Option<Sighting>>>,
    /// Which generation that is.
    pub said_of: u64,
}

impl Instance {
    /// An instance that starts now.
    pub fn new(policy: Policy, now: u64, nodes: usize, servers: usize) -> Self {
        Self {
            process: Process {
                is_up: true,
                ..Process::default()
            },
            watch: Watch::new(policy, now),
            heard: vec![None; nodes],
            asked: vec![0; nodes],
            work: vec![Work::default(); servers],
            clear: vec![0; servers],
            said: BTreeMap::new(),
            said_of: 0,
        }
    }
}

impl World {
    /// It reaches the store.
    pub(crate) fn has_store(&self, instance: usize) -> bool {
        let (me, store) = (Place::Instance(instance).machine(), Place::Store.machine());
        self.store.is_up && !self.cut[me][store] && !self.cut[store][me]
    }

    /// Everything that it does by itself.
    pub(crate) fn instance_tick(&mut self, instance: usize, life: u64) {
        let (now, has_store) = (self.now, self.has_store(instance));
        let here = &mut self.instances[instance];
        if !here.process.is_up || here.process.life != life {
            return;
        }
        here.watch.tick(now);
        self.at(TICK_MS, Event::InstanceTick { instance, life });
        if !has_store {
            return;
        }
        self.share(instance);
        self.judge(instance);
        for server in 0..self.acked.len() {
            self.look_after(instance, server);
        }
    }

    /// Reads who is fenced and what others have heard, and tells what it has heard.
    fn share(&mut self, instance: usize) {
        let now = self.now;
        let here = &mut self.instances[instance];
        let others = self.store.share(instance, &here.heard);
        let fenced = self.store.fenced().iter().enumerate();
        let silence_ms = self.policy.silence_ms;
        let known = fenced.map(|(node, it)| Known {
            node: ids::node(node),
            is_fenced: *it,
            silence_ms,
            confirmed: self.store.confirmed(node),
        });
        let known: Vec<Known> = known.collect();
        here.watch.know(now, &known);
        let ages = others.iter().map(|(node, at)| (ids::node(*node), now - at));
        here.watch.others(now, &ages.collect::<Vec<_>>());
    }

    fn judge(&mut self, instance: usize) {
        let now = self.now;
        for (id, judgement) in self.instances[instance].watch.judge(now) {
            let node = ids::number(id);
            match judgement {
                Judgement::Suspect { witnesses, .. } => self.ask(instance, node, &witnesses),
                Judgement::HeldBack(_) if now - self.instances[instance].asked[node] > 2_500 => {
                    let alive = self.instances[instance].watch.alive(now);
                    let witnesses: Vec<NodeId> = alive.into_iter().take(3).collect();
                    self.ask(instance, node, &witnesses);
                }
                Judgement::Dead(why) if self.store.fence(node, true) => {
                    self.note(|| format!("instance {instance}: node {node} is dead: {why}"));
                }
                Judgement::Fenced => self.welcome(instance, node),
                _ => {}
            }
        }
    }

    fn ask(&mut self, instance: usize, node: usize, witnesses: &[NodeId]) {
        let now = self.now;
        let last = &mut self.instances[instance].asked[node];
        if now < *last + 800 {
            return;
        }
        *last = now;
        for witness in witnesses {
            let reach = Msg::Reach {
                instance,
                about: node,
            };
            let to = Place::Guard(ids::number(*witness));
            self.send(Place::Instance(instance), to, reach);
        }
    }

    /// A dead node that is heard again is cleaned before it counts.
    fn welcome(&mut self, instance: usize, node: usize) {
        let age = self.instances[instance]
            .watch
            .age_ms(self.now, ids::node(node));
        if age.is_none_or(|age| age > 1_000) {
            return;
        }
        let servers = 0..self.acked.len();
        let listed = servers.map(|it| {
            let record = self.store.record(it);
            (record.owner, record.epoch)
        });
        let clean = Msg::Clean {
            instance,
            listed: listed.collect(),
        };
        let generation = self.store.generation();
        self.order(instance, node, generation, clean);
    }

    /// A message for an instance.
    pub(crate) fn instance(&mut self, instance: usize, msg: Msg) {
        let now = self.now;
        let has_store = self.has_store(instance);
        match msg {
            Msg::Renew {
                node,
                number,
                echo,
                confirm,
            } => {
                let here = &mut self.instances[instance];
                if here.watch.heard(now, ids::node(node), number, echo) {
                    here.heard[node] = Some(now);
                }
                self.lease(instance, node, number, confirm && has_store);
            }
            Msg::Reached {
                about,
                by,
                is_reachable,
            } => {
                let watch = &mut self.instances[instance].watch;
                watch.witness(now, ids::node(about), ids::node(by), is_reachable);
            }
            Msg::Cleaned { node } => {
                let age = self.instances[instance].watch.age_ms(now, ids::node(node));
                let is_heard = age.is_some_and(|it| it < 1_000);
                if has_store && is_heard && self.store.fence(node, false) {
                    self.note(|| format!("instance {instance}: node {node} is back"));
                }
            }
            Msg::Saw {
                node,
                generation,
                said,
            } if self.instances[instance].said_of == generation => {
                let known = &mut self.instances[instance].said;
                known.insert(ids::node(node), said);
            }
            Msg::Status { server, token, .. }
            | Msg::OpenSaid { server, token, .. }
            | Msg::Done { server, token }
                if self.is_awaited(instance, server, token) =>
            {
                self.answered(instance, server, msg);
            }
            _ => {}
        }
    }

    /// The answer to the question that was asked last.
    fn answered(&mut self, instance: usize, server: usize, msg: Msg) {
        match msg {
            Msg::Status { status, .. } => self.decide(instance, server, Some(&status)),
            Msg::OpenSaid {
                replica,
                said,
                target,
                other,
                ..
            } => {
                if let Some(other) = other.filter(|_| !matches!(said, Opened::Open(_))) {
                    self.remove_unknown(instance, server, target.0, other);
                }
                self.open_said(instance, server, replica, said, target);
            }
            _ => self.look_after(instance, server),
        }
    }

    fn lease(&mut self, instance: usize, node: usize, number: u64, confirm: bool) {
        let generation = self.store.generation();
        let is_trusted = self.verified.iter().all(|it| *it == generation);
        let confirm = confirm && is_trusted && self.confirm(node);
        let owns = confirm.then(|| {
            let servers = 0..self.acked.len();
            let records = servers.map(|it| self.store.record(it));
            let is_dead = self.store.fenced()[node];
            membership::confirms(ids::node(node), is_dead, is_trusted, records)
        });
        let owns = owns.flatten();
        let peers = (0..self.nodes.len()).filter(|it| *it != node).collect();
        let lease = Msg::Lease {
            number,
            owns,
            peers,
        };
        self.send(Place::Instance(instance), Place::Guard(node), lease);
    }

    /// A confirmation is committed before it is given.
    fn confirm(&mut self, node: usize) -> bool {
        self.bug == Some(Bug::ConfirmUncommitted) || self.store.confirm(node)
    }

    fn is_awaited(&mut self, instance: usize, server: usize, token: u64) -> bool {
        let awaited = &mut self.instances[instance].work[server].token;
        if awaited.is_some_and(|(it, _)| it == token) {
            *awaited = None;
            return true;
        }
        false
    }
}
