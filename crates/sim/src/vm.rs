//! A virtual machine with a guest that writes and flushes, its requests to the replicas in its
//! slots, and copies to replicas that join.

use undine_failover::machine::Phase;
use undine_failover::membership::invariant_2;

use crate::bug::Bug;
use crate::disk::BLOCKS;
use crate::msg::{Event, Request, Target};
use crate::node::{Holder, Io, Vm};
use crate::world::World;

/// All blocks, as bits.
pub const ALL: u8 = (1 << BLOCKS) - 1;

impl World {
    pub(crate) fn vm(&mut self, node: usize, server: usize, id: u64) -> Option<&mut Vm> {
        self.nodes[node].vms[server]
            .as_mut()
            .filter(|vm| vm.id == id)
    }

    /// Can a request from there reach this daemon, and its answer come back?
    pub(crate) fn reaches(&self, node: usize, target: usize) -> bool {
        let is_frozen = self.nodes[target].frozen_until > self.now;
        self.nodes[target].is_up && !is_frozen && !self.cut[node][target] && !self.cut[target][node]
    }

    pub(crate) fn daemon(&mut self, server: usize, target: Target) -> Option<&mut Holder> {
        let holder = &mut self.nodes[target.0].holders[server];
        let is_it = holder
            .daemon
            .as_ref()
            .is_some_and(|it| it.incarnation == target.1);
        (is_it && holder.disk.is_some()).then_some(holder)
    }

    /// The guest reads its disk; nothing that was acknowledged may be missing.
    pub(crate) fn guest_up(&mut self, node: usize, server: usize, id: u64) {
        let Some(vm) = self.vm(node, server, id) else {
            return;
        };
        let (paused, live) = (vm.is_paused, vm.slots.live());
        let first = live
            .first()
            .and_then(|it| Some((*it, *vm.targets.get(it)?)));
        let Some((replica, target)) = first else {
            return;
        };
        let can_read = self.reaches(node, target.0) && self.daemon(server, target).is_some();
        if paused || !can_read {
            if !can_read {
                self.replica_failed(node, server, replica);
            }
            self.at(
                500,
                Event::GuestUp {
                    node,
                    server,
                    vm: id,
                },
            );
            return;
        }
        let holder = &self.nodes[target.0].holders[server];
        let content = holder.disk.as_ref().map(|disk| {
            let mut content = [0; BLOCKS];
            (0..BLOCKS).for_each(|block| content[block] = disk.read(block));
            content
        });
        let content = content.unwrap_or_default();
        let acked = self.acked[server];
        let epoch = self.nodes[node].vms[server]
            .as_ref()
            .map_or(0, |vm| vm.slots.epoch);
        for block in 0..BLOCKS {
            // A zombie may read old content: it acknowledges nothing.
            if content[block] < acked[block] && epoch >= self.opened[server] {
                self.violate(format!(
                    "server {server}: node {node} starts epoch {epoch} without acknowledged write {} of block {block}",
                    acked[block]
                ));
            }
        }
        if let Some(vm) = self.vm(node, server, id) {
            vm.phase = Phase::Answers;
            vm.lazy = content;
            vm.view = acked;
        }
        self.at(
            10,
            Event::Writer {
                node,
                server,
                vm: id,
            },
        );
    }

    /// The guest's next request.
    pub(crate) fn writer(&mut self, node: usize, server: usize, id: u64) {
        let Some(vm) = self.vm(node, server, id) else {
            return;
        };
        let is_idle = vm.runs() && vm.io.is_none();
        if is_idle {
            let block = self.rng.below(BLOCKS);
            let value = self.fresh();
            let write = (!self.rng.chance(350)).then_some((block, value));
            self.issue(node, server, write);
        }
        let pause = self.rng.within(25, 90);
        self.at(
            pause,
            Event::Writer {
                node,
                server,
                vm: id,
            },
        );
    }

    fn issue(&mut self, node: usize, server: usize, write: Option<(usize, u64)>) {
        let seq = self.fresh();
        let Some(vm) = &mut self.nodes[node].vms[server] else {
            return;
        };
        let waiting: Vec<_> = vm.slots.live().into_iter().collect();
        if let (Some(job), Some((block, _))) = (&mut vm.job, write) {
            job.dirty |= 1 << block;
        }
        let id = vm.id;
        let targets: Vec<_> = waiting
            .iter()
            .filter_map(|it| Some((*it, *vm.targets.get(it)?)))
            .collect();
        vm.io = Some(Io {
            seq,
            write,
            waiting,
            is_in_time: false,
        });
        for (replica, target) in targets {
            let request = Request {
                node,
                server,
                vm: id,
                seq,
                replica,
                target,
                write,
            };
            let delay = self.rng.within(1, 5);
            if node == target.0 || (!self.cut[node][target.0] && self.nodes[target.0].is_up) {
                self.at(delay, Event::Child(request));
            }
        }
        let probe = self.policy.probe_ms;
        self.at(
            probe,
            Event::IoTimeout {
                node,
                server,
                vm: id,
                seq,
            },
        );
    }

    /// A request arrives at a daemon.
    pub(crate) fn child(&mut self, request: Request) {
        let Request {
            node,
            server,
            target,
            ..
        } = request;
        self.note(|| format!("{request:?}"));
        if !self.nodes[target.0].is_up {
            return;
        }
        let is_done = match self.daemon(server, target) {
            None => false,
            Some(holder) => {
                if let (Some(disk), Some(daemon)) = (&mut holder.disk, &mut holder.daemon) {
                    match request.write {
                        Some((block, value)) => {
                            disk.write(block, value);
                            daemon.active |= 1 << block;
                        }
                        None => disk.flush(),
                    }
                }
                true
            }
        };
        let opened = self.opened[server];
        if is_done
            && let Some(vm) = self.vm(node, server, request.vm)
            && invariant_2(vm.slots.epoch, opened)
            && let Some(io) = vm.io.as_mut().filter(|io| io.seq == request.seq)
        {
            io.is_in_time = true;
        }
        if node == target.0 || !self.cut[target.0][node] {
            let delay = self.rng.within(1, 5);
            self.at(delay, Event::ChildSaid { request, is_done });
        }
    }

    /// A daemon's answer.
    pub(crate) fn child_said(&mut self, request: Request, is_done: bool) {
        let Request {
            node,
            server,
            replica,
            ..
        } = request;
        let Some(vm) = self.vm(node, server, request.vm) else {
            return;
        };
        let Some(io) = vm.io.as_mut().filter(|io| io.seq == request.seq) else {
            return;
        };
        if !is_done {
            self.replica_failed(node, server, replica);
            return;
        }
        io.waiting.retain(|it| *it != replica);
        if io.waiting.is_empty() && vm.slots.may_continue() {
            self.complete(node, server);
        }
    }

    pub(crate) fn io_timeout(&mut self, node: usize, server: usize, id: u64, seq: u64) {
        let Some(vm) = self.vm(node, server, id) else {
            return;
        };
        let Some(io) = vm.io.as_ref().filter(|io| io.seq == seq) else {
            return;
        };
        for replica in io.waiting.clone() {
            self.replica_failed(node, server, replica);
        }
    }

    /// A replica failed: the guest stands still.
    pub(crate) fn replica_failed(
        &mut self,
        node: usize,
        server: usize,
        replica: undine_model::ReplicaId,
    ) {
        let bug = self.bug;
        let here = &mut self.nodes[node];
        let Some(vm) = &mut here.vms[server] else {
            return;
        };
        if !vm.slots.failed(replica) {
            return;
        }
        if let Some(source) = vm.source(node) {
            vm.left.insert(replica, source);
        }
        if let Some(io) = &mut vm.io {
            io.waiting.retain(|it| *it != replica);
        }
        here.written[server] = Some(vm.slots.clone());
        let others = !vm.slots.live().is_empty();
        self.note(|| format!("server {server} on node {node}: {replica} failed"));
        if bug == Some(Bug::CommitAfterSwap) && others {
            self.vacate(node, server, replica);
            self.again(node, server);
        }
    }

    /// Nothing holds the guest up any more: what failed is tried again, once no replica works on
    /// it any more.
    pub(crate) fn again(&mut self, node: usize, server: usize) {
        let Some(vm) = &mut self.nodes[node].vms[server] else {
            return;
        };
        if vm.slots.may_continue()
            && let Some(io) = vm.io.take_if(|io| io.waiting.is_empty())
        {
            self.issue(node, server, io.write);
        }
    }

    fn complete(&mut self, node: usize, server: usize) {
        let Some(vm) = &mut self.nodes[node].vms[server] else {
            return;
        };
        let Some(io) = vm.io.take() else { return };
        let is_whole = vm
            .slots
            .slots
            .iter()
            .all(|it| matches!(it, undine_failover::slots::Slot::Live(_)));
        let targets: Vec<Target> = vm.targets.values().copied().collect();
        if let Some((block, value)) = io.write {
            vm.lazy[block] = vm.lazy[block].max(value);
            // A copy that read the block meanwhile has read what was there before.
            if let Some(job) = &mut vm.job {
                job.dirty |= 1 << block;
            }
            if self.rng.chance(300) {
                self.rotate(server, &targets);
            }
            return;
        }
        let (epoch, lazy) = (vm.slots.epoch, vm.lazy);
        for (view, lazy) in vm.view.iter_mut().zip(lazy) {
            *view = (*view).max(lazy);
        }
        // An answer may arrive after the opening; the request may not have.
        if !io.is_in_time && !invariant_2(epoch, self.opened[server]) {
            let opened = self.opened[server];
            self.violate(format!(
                "server {server}: node {node} acknowledges under epoch {epoch} after {opened} was opened"
            ));
        }
        for (acked, lazy) in self.acked[server].iter_mut().zip(lazy) {
            if lazy > *acked {
                *acked = lazy;
                self.counts.acked += 1;
            }
        }
        if is_whole {
            self.cover_only_slots(node, server);
            for target in targets {
                if let Some(daemon) = self
                    .daemon(server, target)
                    .and_then(|it| it.daemon.as_mut())
                {
                    daemon.frozen = 0;
                }
            }
        }
    }

    /// What every slot has flushed is about to be forgotten: whoever left before, and whose place
    /// another one has taken, may lack it.
    fn cover_only_slots(&mut self, node: usize, server: usize) {
        if let Some(vm) = &mut self.nodes[node].vms[server] {
            vm.left.clear();
        }
    }

    /// A fresh bitmap; the one before is kept until a flush on every replica.
    fn rotate(&mut self, server: usize, targets: &[Target]) {
        let is_early = self.bug == Some(Bug::BitmapDroppedEarly);
        for target in targets {
            if let Some(daemon) = self
                .daemon(server, *target)
                .and_then(|it| it.daemon.as_mut())
            {
                let kept = if is_early { 0 } else { daemon.frozen };
                daemon.frozen = kept | daemon.active;
                daemon.active = 0;
            }
        }
    }
}
