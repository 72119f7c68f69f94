//! Control's work on one server: read the record, ask its owner's node, do one thing, look again.
//! What is to be done is `undine_failover`'s to say: [`machine::next`] for who runs it and where,
//! `membership` and `resync` for its copies.

use std::collections::BTreeSet;

use undine_failover::holder::Opening;
use undine_failover::machine::{self, Next, Opened, Seen};
use undine_failover::membership::{self, Record, Worth};
use undine_failover::memory::{self, Trust};
use undine_model::{NodeId, ReplicaId};

use crate::bug::Bug;
use crate::ids;
use crate::instance::Read;
use crate::msg::{Change, Msg, Place, Start, Status, Target};
use crate::world::World;

const CLAIM_MS: u64 = 3_000;
const PATIENCE_MS: u64 = 700;

impl World {
    /// Claims the work on a server if nobody else has it, and begins a step.
    pub(crate) fn look_after(&mut self, instance: usize, server: usize) {
        let now = self.now;
        if !self.has_store(instance) {
            return;
        }
        let work = &self.instances[instance].work[server];
        if work.token.is_some_and(|(_, until)| now < until)
            || !self.store.claim(server, instance, now, CLAIM_MS)
        {
            return;
        }
        let generation = self.store.generation();
        if !self.is_clear(instance, server, generation) {
            return;
        }
        let record = self.store.read(server);
        let owner = record.owner.map(ids::number);
        let work = &mut self.instances[instance].work[server];
        work.read = Some(Read { record, generation });
        match owner {
            Some(owner) if !self.store.fenced()[owner] => {
                let token = self.await_answer(instance, server);
                let ask = Msg::Ask {
                    instance,
                    server,
                    token,
                };
                self.send(Place::Instance(instance), Place::Agent(owner), ask);
            }
            _ => self.decide(instance, server, None),
        }
    }

    pub(crate) fn await_answer(&mut self, instance: usize, server: usize) -> u64 {
        let token = self.fresh();
        let until = self.now + PATIENCE_MS;
        self.instances[instance].work[server].token = Some((token, until));
        token
    }

    /// A store that went back is trusted only after every node was asked.
    fn is_clear(&mut self, instance: usize, server: usize, generation: u64) -> bool {
        let here = &mut self.instances[instance];
        if here.clear[server] == generation || generation == 1 || self.bug == Some(Bug::TrustStore)
        {
            self.verified[server] = generation;
            return true;
        }
        if here.said_of != generation {
            here.said_of = generation;
            here.said.clear();
        }
        let said = here
            .said
            .iter()
            .map(|(node, all)| (*node, all[server].clone()))
            .collect();
        // Whoever holds nothing, as the store remembers it, may hold what it has forgotten.
        let everyone: Vec<NodeId> = (0..self.nodes.len()).map(ids::node).collect();
        let trust = memory::trust(&self.store.read(server), &said, &everyone);
        match trust {
            Trust::Clear => {
                here.clear[server] = generation;
                self.store.block(server, None);
                self.verified[server] = generation;
                return true;
            }
            Trust::Blocked(why) => {
                self.note(|| format!("server {server} is blocked: {why}"));
                self.store.block(server, Some(&why));
            }
            Trust::Asking(_) => {
                for node in 0..self.nodes.len() {
                    let see = Msg::See {
                        instance,
                        generation,
                    };
                    self.order(instance, node, generation, see);
                }
            }
        }
        false
    }

    fn dead(&self) -> BTreeSet<NodeId> {
        let fenced = self.store.fenced().iter().enumerate();
        fenced
            .filter(|(_, it)| **it)
            .map(|(node, _)| ids::node(node))
            .collect()
    }

    /// The answer is there: one thing is done.
    pub(crate) fn decide(&mut self, instance: usize, server: usize, status: Option<&Status>) {
        if !self.has_store(instance) {
            return;
        }
        let Some(mut read) = self.instances[instance].work[server].read.clone() else {
            return;
        };
        let dead = self.dead();
        if self.bug == Some(Bug::ForgetDeadCopy) {
            for it in &mut read.record.replicas {
                if it.worth == Worth::InSync && dead.contains(&it.node) {
                    it.worth = Worth::Stale;
                }
            }
        }
        let record = &read.record;
        if let Some(status) = status
            && status.vm.is_some_and(|vm| vm.epoch == record.epoch)
            && status.slots.is_some()
            && self.copies(instance, server, &read, status, &dead)
        {
            return;
        }
        let opened = self.instances[instance].work[server].opened.iter();
        let opened = opened.map(|(id, (said, _))| (*id, said.clone())).collect();
        let target = self.target(record, &dead);
        let accepted = match self.bug {
            Some(Bug::PromoteStale) => {
                let stale = |it: &&membership::Replica| {
                    it.worth == Worth::Stale && !dead.contains(&it.node)
                };
                record
                    .replicas
                    .iter()
                    .find(stale)
                    .map(|it| (it.id, "planted"))
            }
            _ => None,
        };
        let seen = Seen {
            record,
            dead: &dead,
            target,
            opened: &opened,
            vm: status.and_then(|it| it.vm),
            route: Some(self.store.route(server)),
            accepted,
        };
        let next = machine::next(&seen);
        self.note(|| format!("instance {instance} server {server}: {next:?}"));
        if !self.keeps_all(instance, server, &read, &next) {
            self.act(instance, server, &read, next);
        }
    }

    fn target(&mut self, record: &Record, dead: &BTreeSet<NodeId>) -> Option<NodeId> {
        let holders = record
            .in_sync()
            .map(|it| it.node)
            .filter(|it| !dead.contains(it));
        let holders: Vec<NodeId> = holders.collect();
        if !holders.is_empty() {
            return Some(holders[self.rng.below(holders.len())]);
        }
        let alive = (0..self.nodes.len()).map(ids::node);
        alive.into_iter().find(|it| !dead.contains(it))
    }

    fn act(&mut self, instance: usize, server: usize, read: &Read, next: Next) {
        match next {
            Next::Commit(record, _) => self.commit(instance, server, read, record),
            Next::Open {
                node,
                replica,
                epoch,
            } => {
                let opening = Opening {
                    replica,
                    epoch,
                    create: false,
                    resync: false,
                    accept_stale: false,
                };
                self.open_at(
                    instance,
                    server,
                    ids::number(node),
                    read.generation,
                    opening,
                );
            }
            Next::Start { node, replica, .. } => {
                self.start_at(instance, server, read, ids::number(node), &[replica]);
            }
            Next::MoveRoute { epoch, .. } => {
                let token = self.await_answer(instance, server);
                let generation = read.generation;
                let route = Msg::Route {
                    instance,
                    server,
                    token,
                    generation,
                    epoch,
                };
                self.send(Place::Instance(instance), Place::Store, route);
            }
            Next::WaitGuest(_) => {}
            Next::Waiting(_) | Next::Done { .. } => self.release(instance, server),
        }
    }

    fn start_at(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        node: usize,
        replicas: &[ReplicaId],
    ) {
        let opened = &self.instances[instance].work[server].opened;
        let replicas = replicas
            .iter()
            .filter_map(|it| Some((*it, opened.get(it)?.1)));
        let start = Box::new(Start {
            epoch: read.record.epoch,
            version: read.record.version,
            slots: read.record.slots,
            replicas: replicas.collect(),
        });
        let token = self.await_answer(instance, server);
        let start = Msg::Start {
            instance,
            server,
            token,
            start,
        };
        self.order(instance, node, read.generation, start);
    }

    /// The planted [`Bug::KeepAll`]: instead of keeping one, start with all.
    fn keeps_all(&mut self, instance: usize, server: usize, read: &Read, next: &Next) -> bool {
        let Next::Commit(_, why) = next else {
            return false;
        };
        if self.bug != Some(Bug::KeepAll) || !why.contains("is kept") {
            return false;
        }
        let all: Vec<ReplicaId> = read.record.in_sync_ids().into_iter().collect();
        if let Some(owner) = read.record.owner.map(ids::number) {
            self.start_at(instance, server, read, owner, &all);
        }
        true
    }

    fn release(&mut self, instance: usize, server: usize) {
        self.store.release(server, instance, self.now);
        self.instances[instance].work[server].opened.clear();
    }

    pub(crate) fn commit(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        mut record: Record,
    ) {
        let before = &read.record;
        if self.bug == Some(Bug::ForgetDeadCopy) {
            let (dead, stands) = (self.dead(), self.store.record(server));
            for it in &mut record.replicas {
                let was = stands.replica(it.id).map(|it| it.worth);
                if was == Ok(Worth::InSync) && dead.contains(&it.node) {
                    it.worth = Worth::InSync;
                }
            }
        }
        let token = self.await_answer(instance, server);
        let dead = self.dead();
        let owner = before
            .owner
            .filter(|it| record.epoch > before.epoch && dead.contains(it));
        let change = Box::new(Change {
            generation: read.generation,
            base: before.version,
            while_dead: owner.map(ids::number),
            record,
        });
        let commit = Msg::Commit {
            instance,
            server,
            token,
            change,
        };
        self.send(Place::Instance(instance), Place::Store, commit);
    }

    pub(crate) fn open_at(
        &mut self,
        instance: usize,
        server: usize,
        node: usize,
        generation: u64,
        opening: Opening,
    ) {
        let token = self.await_answer(instance, server);
        let open = Msg::Open {
            instance,
            server,
            token,
            opening,
        };
        self.order(instance, node, generation, open);
    }

    /// A node has a copy of which the record knows nothing: it was replaced.
    pub(crate) fn remove_unknown(
        &mut self,
        instance: usize,
        server: usize,
        node: usize,
        replica: ReplicaId,
    ) {
        let Some(read) = self.instances[instance].work[server].read.clone() else {
            return;
        };
        if read.record.replica(replica).is_err() {
            let epoch = read.record.epoch;
            let remove = Msg::Remove {
                server,
                replica,
                epoch,
            };
            self.order(instance, node, read.generation, remove);
        }
    }

    /// A replica's node has answered to an opening.
    pub(crate) fn open_said(
        &mut self,
        instance: usize,
        server: usize,
        replica: ReplicaId,
        said: Opened,
        target: Target,
    ) {
        let work = &mut self.instances[instance].work[server];
        let filling = work
            .read
            .as_ref()
            .is_some_and(|it| it.record.syncing_ids().contains(&replica));
        if filling && let Opened::Open(epoch) = said {
            work.filling.insert(replica, (target, epoch, false));
        } else if filling && said == Opened::Lost {
            work.new.insert(replica);
        } else {
            work.opened.insert(replica, (said, target));
        }
        self.look_after(instance, server);
    }

    /// A message for the store.
    pub(crate) fn store_said(&mut self, msg: Msg) {
        if !self.store.is_up {
            return;
        }
        match msg {
            Msg::Commit {
                instance,
                server,
                token,
                change,
            } => {
                let is_taken = self.store.commit(server, &change);
                let record = &change.record;
                self.note(|| format!("commit of version {} taken: {is_taken}", record.version));
                let done = Msg::Done { server, token };
                self.send(Place::Store, Place::Instance(instance), done);
            }
            Msg::Route {
                instance,
                server,
                token,
                generation,
                epoch,
            } => {
                self.store.move_route(server, generation, epoch);
                let done = Msg::Done { server, token };
                self.send(Place::Store, Place::Instance(instance), done);
            }
            _ => {}
        }
    }
}
