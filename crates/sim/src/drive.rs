//! Control's work on one server: read the record, ask its owner's node, do one thing, look again.
//! What is to be done is `undine_failover`'s to say: [`machine::next`] for who runs it and where,
//! `membership` and `resync` for its copies.

use std::collections::BTreeSet;

use undine_failover::holder::Opening;
use undine_failover::machine::{self, Next, Opened, Seen};
use undine_failover::membership::{self, Change as Changed, Record, Refusal, Worth};
use undine_failover::memory::{self, Trust};
use undine_failover::resync::{self, Fill, Spot};
use undine_failover::slots::Committed;
use undine_model::{Bytes, NodeId, ReplicaId};

use crate::bug::Bug;
use crate::ids;
use crate::instance::Read;
use crate::msg::{Change, Join, Msg, Place, Start, Status, Target};
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
        let mine = |claim: (usize, u64)| claim.0 == instance || claim.1 <= now;
        if !self.store.claims[server].is_none_or(mine) {
            return;
        }
        let work = &mut self.instances[instance].work[server];
        if work.token.is_some_and(|(_, until)| now < until) {
            return;
        }
        self.store.claims[server] = Some((instance, now + CLAIM_MS));
        let generation = self.store.generation;
        if !self.is_clear(instance, server, generation) {
            return;
        }
        let record = self.store.record(server).clone();
        let owner = record.owner.map(ids::number);
        let work = &mut self.instances[instance].work[server];
        work.read = Some(Read { record, generation });
        match owner {
            Some(owner) if !self.store.fenced()[owner] => {
                let token = self.await_answer(instance, server);
                let ask = Msg::Ask { instance, server, token };
                self.send(Place::Instance(instance), Place::Agent(owner), ask);
            }
            _ => self.decide(instance, server, None),
        }
    }

    fn await_answer(&mut self, instance: usize, server: usize) -> u64 {
        let token = self.fresh();
        let until = self.now + PATIENCE_MS;
        self.instances[instance].work[server].token = Some((token, until));
        token
    }

    /// A store that went back is trusted only after every node was asked.
    fn is_clear(&mut self, instance: usize, server: usize, generation: u64) -> bool {
        let here = &mut self.instances[instance];
        if here.clear[server] == generation
            || generation == 1
            || self.bug == Some(Bug::TrustStore)
        {
            self.verified[server] = generation;
            return true;
        }
        if here.said_of != generation {
            here.said_of = generation;
            here.said.clear();
        }
        let said = here.said.iter().map(|(node, all)| (*node, all[server].clone())).collect();
        // Whoever holds nothing, as the store remembers it, may hold what it has forgotten.
        let has_all = here.said.len() == self.nodes.len();
        let trust = memory::trust(self.store.record(server), &said);
        match trust {
            Trust::Clear if has_all => {
                here.clear[server] = generation;
                self.store.blocked[server] = false;
                self.verified[server] = generation;
                return true;
            }
            Trust::Blocked(why) => {
                self.note(|| format!("server {server} is blocked: {why}"));
                self.store.blocked[server] = true;
            }
            Trust::Clear | Trust::Asking(_) => {
                for node in 0..self.nodes.len() {
                    let see = Msg::See { instance, generation };
                    self.order(instance, node, generation, see);
                }
            }
        }
        false
    }

    fn dead(&self) -> BTreeSet<NodeId> {
        let fenced = self.store.fenced().iter().enumerate();
        fenced.filter(|(_, it)| **it).map(|(node, _)| ids::node(node)).collect()
    }

    /// The answer is there: one thing is done.
    pub(crate) fn decide(&mut self, instance: usize, server: usize, status: Option<&Status>) {
        if !self.has_store(instance) {
            return;
        }
        let Some(read) = self.instances[instance].work[server].read.clone() else { return };
        let record = &read.record;
        let dead = self.dead();
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
                record.replicas.iter().find(stale).map(|it| (it.id, "planted"))
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
        self.act(instance, server, &read, next);
    }

    fn target(&mut self, record: &Record, dead: &BTreeSet<NodeId>) -> Option<NodeId> {
        let holders = record.in_sync().map(|it| it.node).filter(|it| !dead.contains(it));
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
            Next::Open { node, replica, epoch } => {
                let opening = Opening {
                    replica,
                    epoch,
                    create: false,
                    resync: false,
                    accept_stale: false,
                };
                self.open_at(instance, server, ids::number(node), read.generation, opening);
            }
            Next::Start { node, epoch, replica } => {
                let work = &self.instances[instance].work[server];
                let Some((_, target)) = work.opened.get(&replica) else { return };
                let start = Box::new(Start {
                    epoch,
                    version: read.record.version,
                    slots: read.record.slots,
                    replica,
                    target: *target,
                });
                let token = self.await_answer(instance, server);
                let start = Msg::Start { instance, server, token, start };
                self.order(instance, ids::number(node), read.generation, start);
            }
            Next::MoveRoute { epoch, .. } => {
                let token = self.await_answer(instance, server);
                let generation = read.generation;
                let route = Msg::Route { instance, server, token, generation, epoch };
                self.send(Place::Instance(instance), Place::Store, route);
            }
            Next::WaitGuest(_) => {}
            Next::Waiting(_) | Next::Done { .. } => self.release(instance, server),
        }
    }

    fn release(&mut self, instance: usize, server: usize) {
        let claim = &mut self.store.claims[server];
        if claim.is_some_and(|(by, _)| by == instance) {
            *claim = None;
        }
        self.instances[instance].work[server].opened.clear();
    }

    fn commit(&mut self, instance: usize, server: usize, read: &Read, mut record: Record) {
        let before = &read.record;
        let is_promotion = record.epoch > before.epoch;
        if self.bug == Some(Bug::ForgetDeadCopy) && is_promotion {
            for (it, was) in record.replicas.iter_mut().zip(&before.replicas) {
                it.worth = was.worth;
            }
        }
        let token = self.await_answer(instance, server);
        let change = Box::new(Change {
            generation: read.generation,
            base: before.version,
            record,
        });
        let commit = Msg::Commit { instance, server, token, change };
        self.send(Place::Instance(instance), Place::Store, commit);
    }

    fn open_at(
        &mut self,
        instance: usize,
        server: usize,
        node: usize,
        generation: u64,
        opening: Opening,
    ) {
        let token = self.await_answer(instance, server);
        let open = Msg::Open { instance, server, token, opening };
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
        let Some(read) = self.instances[instance].work[server].read.clone() else { return };
        if read.record.replica(replica).is_err() {
            let epoch = read.record.epoch;
            let remove = Msg::Remove { server, replica, epoch };
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
        let filling = work.read.as_ref().is_some_and(|it| {
            it.record.syncing_ids().contains(&replica)
        });
        if filling && let Opened::Open(epoch) = said {
            work.filling.insert(replica, (target, epoch, false));
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
            Msg::Commit { instance, server, token, change } => {
                let Change { generation, base, record } = *change;
                let is_taken = self.store.commit(server, generation, base, &record);
                self.note(|| format!("commit of version {} taken: {is_taken}", record.version));
                let done = Msg::Done { server, token };
                self.send(Place::Store, Place::Instance(instance), done);
            }
            Msg::Route { instance, server, token, generation, epoch } => {
                self.store.move_route(server, generation, epoch);
                let done = Msg::Done { server, token };
                self.send(Place::Store, Place::Instance(instance), done);
            }
            _ => {}
        }
    }

    /// What the copies need. Tells whether there was anything.
    fn copies(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        status: &Status,
        dead: &BTreeSet<NodeId>,
    ) -> bool {
        let record = &read.record;
        let Some(slots) = &status.slots else { return false };
        for replica in slots.failures() {
            if let Ok(next) = membership::degrade(record, slots.epoch, replica) {
                self.commit(instance, server, read, next);
                return true;
            }
        }
        if slots.live().is_empty() {
            return false;
        }
        let known = |it: &ReplicaId| record.in_sync_ids().contains(it) || record.syncing_ids().contains(it);
        let is_told = slots.version >= record.version
            && slots.live().iter().chain(&slots.failures()).all(known);
        if !is_told {
            self.tell(instance, server, read);
            return true;
        }
        for it in record.in_sync().filter(|it| dead.contains(&it.node)) {
            if let Ok(next) = membership::degrade(record, record.epoch, it.id) {
                self.commit(instance, server, read, next);
                return true;
            }
        }
        for replica in record.syncing_ids() {
            if let Some(did) = self.fill(instance, server, read, status, replica, dead) {
                return did;
            }
        }
        self.plan(instance, server, read, dead)
    }

    fn tell(&mut self, instance: usize, server: usize, read: &Read) {
        let record = &read.record;
        let Some(owner) = record.owner.map(ids::number) else { return };
        let committed = Box::new(Committed {
            epoch: record.epoch,
            version: record.version,
            in_sync: record.in_sync_ids(),
            syncing: record.syncing_ids(),
        });
        let token = self.await_answer(instance, server);
        let slots = Msg::Slots { instance, server, token, committed };
        self.order(instance, owner, read.generation, slots);
    }

    /// A replica that is being filled. None: nothing to do for it.
    fn fill(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        status: &Status,
        replica: ReplicaId,
        dead: &BTreeSet<NodeId>,
    ) -> Option<bool> {
        let record = &read.record;
        let found = record.replica(replica).ok()?;
        let slots = status.slots.as_ref()?;
        if slots.is_live(replica) {
            let next = membership::join(record, slots.epoch, replica);
            return Some(self.commit_if(instance, server, read, next));
        }
        if status.copying == Some(replica) {
            return Some(true);
        }
        let filling = self.instances[instance].work[server].filling.get(&replica).copied();
        let filling = filling.filter(|it| it.1 == record.epoch);
        if dead.contains(&found.node) || filling.is_some_and(|it| it.2) {
            // The copy was begun and is not there any more: it failed.
            self.instances[instance].work[server].filling.remove(&replica);
            let next = membership::degrade(record, record.epoch, replica);
            return Some(self.commit_if(instance, server, read, next));
        }
        let Some((target, epoch, _)) = filling else {
            let opening = Opening {
                replica,
                epoch: record.epoch,
                create: true,
                resync: true,
                accept_stale: false,
            };
            let node = ids::number(found.node);
            self.open_at(instance, server, node, read.generation, opening);
            return Some(true);
        };
        let method = resync::method(record, found, status.kept.contains(&replica));
        let join = Join { epoch, replica, target, method };
        self.instances[instance].work[server].filling.insert(replica, (target, epoch, true));
        let token = self.await_answer(instance, server);
        let join = Msg::Join { instance, server, token, join };
        let owner = record.owner.map(ids::number)?;
        self.order(instance, owner, read.generation, join);
        Some(true)
    }

    fn commit_if(&mut self, instance: usize, server: usize, read: &Read, next: Changed) -> bool {
        match next {
            Ok(next) => {
                self.commit(instance, server, read, next);
                true
            }
            Err(_) => false,
        }
    }

    fn plan(&mut self, instance: usize, server: usize, read: &Read, dead: &BTreeSet<NodeId>) -> bool {
        let record = &read.record;
        let nodes = (0..self.nodes.len()).map(ids::node);
        let alive = nodes.filter(|it| !dead.contains(it));
        let spots: Vec<Spot> = alive
            .map(|node| Spot {
                node,
                free: Bytes::gib(9),
                rack: None,
            })
            .collect();
        let plan = resync::plan(record, &spots, Bytes::gib(1));
        let Some((fill, _)) = plan.into_iter().next() else { return false };
        let next: Result<Record, Refusal> = match fill {
            Fill::Begin(id) => membership::begin_sync(record, record.epoch, id),
            Fill::Remove(id) => membership::remove(record, id),
            Fill::Add(node) => {
                let id = ids::replica(self.fresh() as usize);
                membership::add(record, record.epoch, id, node)
            }
        };
        self.commit_if(instance, server, read, next)
    }
}
