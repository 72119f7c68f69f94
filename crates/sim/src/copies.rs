//! Control's work on a server's copies: those that failed leave, those that lack writes are
//! filled and join, those that are missing are made.

use std::collections::BTreeSet;

use undine_failover::holder::Opening;
use undine_failover::membership::{self, Change as Changed, Record, Refusal};
use undine_failover::resync::{self, Fill, Method, Spot};
use undine_failover::slots::Committed;
use undine_model::{Bytes, NodeId, ReplicaId};

use crate::ids;
use crate::instance::Read;
use crate::msg::{Join, Msg, Status};
use crate::world::World;

impl World {
    /// What the copies need. Tells whether there was anything.
    pub(crate) fn copies(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        status: &Status,
        dead: &BTreeSet<NodeId>,
    ) -> bool {
        let record = &read.record;
        let Some(slots) = &status.slots else {
            return false;
        };
        for replica in slots.failures() {
            if let Ok(next) = membership::degrade(record, slots.epoch, &[replica]) {
                self.commit(instance, server, read, next);
                return true;
            }
        }
        if slots.live().is_empty() {
            return false;
        }
        let known =
            |it: &ReplicaId| record.in_sync_ids().contains(it) || record.syncing_ids().contains(it);
        let is_told = slots.version >= record.version
            && slots.live().iter().chain(&slots.failures()).all(known);
        if !is_told {
            self.tell(instance, server, read);
            return true;
        }
        for it in record.in_sync().filter(|it| dead.contains(&it.node)) {
            if let Ok(next) = membership::degrade(record, record.epoch, &[it.id]) {
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
        let Some(owner) = record.owner.map(ids::number) else {
            return;
        };
        let committed = Box::new(Committed {
            epoch: record.epoch,
            version: record.version,
            in_sync: record.in_sync_ids(),
            syncing: record.syncing_ids(),
        });
        let token = self.await_answer(instance, server);
        let slots = Msg::Slots {
            instance,
            server,
            token,
            committed,
        };
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
            self.instances[instance].work[server].new.remove(&replica);
            let next = membership::join(record, slots.epoch, replica);
            return Some(self.commit_if(instance, server, read, next));
        }
        if status.copying == Some(replica) {
            return Some(true);
        }
        let filling = self.instances[instance].work[server]
            .filling
            .get(&replica)
            .copied();
        let filling = filling.filter(|it| it.1 == record.epoch);
        if dead.contains(&found.node) || filling.is_some_and(|it| it.2) {
            // The copy was begun and is not there any more: it failed.
            let work = &mut self.instances[instance].work[server];
            work.filling.remove(&replica);
            work.new.remove(&replica);
            let next = membership::degrade(record, record.epoch, &[replica]);
            return Some(self.commit_if(instance, server, read, next));
        }
        let is_new = self.instances[instance].work[server].new.contains(&replica);
        let method = match resync::method(record, found, status.kept.contains(&replica)) {
            Method::Bitmap if !is_new => Method::Bitmap,
            _ => Method::Full,
        };
        let Some((target, epoch, _)) = filling else {
            let opening = Opening {
                replica,
                epoch: record.epoch,
                // What changed is never copied onto an empty file.
                create: method == Method::Full,
                resync: true,
                accept_stale: false,
            };
            if opening.create {
                self.instances[instance].work[server].new.insert(replica);
            }
            let node = ids::number(found.node);
            self.open_at(instance, server, node, read.generation, opening);
            return Some(true);
        };
        let join = Join {
            epoch,
            replica,
            target,
            method,
        };
        self.instances[instance].work[server]
            .filling
            .insert(replica, (target, epoch, true));
        let token = self.await_answer(instance, server);
        let join = Msg::Join {
            instance,
            server,
            token,
            join,
        };
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

    fn plan(
        &mut self,
        instance: usize,
        server: usize,
        read: &Read,
        dead: &BTreeSet<NodeId>,
    ) -> bool {
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
        let Some((fill, _)) = plan.into_iter().next() else {
            return false;
        };
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
