//! Copies to replicas that join: pass by pass while the guest writes, the last one with the guest
//! standing still.

use undine_model::ReplicaId;

use crate::disk::BLOCKS;
use crate::ids;
use crate::msg::{Event, Target};
use crate::world::World;

impl World {
    /// A copy goes on; at its end the replica takes its slot, with the guest standing still.
    pub(crate) fn copy_step(&mut self, node: usize, server: usize, id: u64, job: u64) {
        let here = &mut self.nodes[node];
        let Some(vm) = here.vms[server].as_mut().filter(|vm| vm.id == id) else {
            return;
        };
        let is_idle = vm.io.is_none();
        let Some(work) = vm.job.clone().filter(|it| it.id == job) else {
            return;
        };
        let live: Vec<Target> = vm
            .slots
            .live()
            .iter()
            .filter_map(|it| vm.targets.get(it).copied())
            .collect();
        let source = live
            .iter()
            .find(|it| it.0 == node)
            .or(live.first())
            .copied();
        let can = vm.slots.may_continue()
            && self.reaches(node, work.target.0)
            && self.daemon(server, work.target).is_some()
            && source
                .is_some_and(|it| self.reaches(node, it.0) && self.daemon(server, it).is_some());
        let Some(source) = source.filter(|_| can) else {
            if let Some(vm) = self.vm(node, server, id) {
                vm.job = None;
            }
            return;
        };
        let is_last = work.dirty.count_ones() <= 1;
        if !is_last || is_idle {
            let most = if is_last { BLOCKS } else { 2 };
            let copied = self.copy_blocks(server, source, work.target, work.dirty, most);
            if let Some(job) = self.vm(node, server, id).and_then(|vm| vm.job.as_mut()) {
                job.dirty &= !copied;
            }
            if is_last {
                self.joined(node, server, work.replica, work.target);
                return;
            }
        }
        let pause = self.rng.within(10, 60);
        self.at(
            pause,
            Event::CopyStep {
                node,
                server,
                vm: id,
                job,
            },
        );
    }

    fn copy_blocks(
        &mut self,
        server: usize,
        from: Target,
        to: Target,
        dirty: u8,
        most: usize,
    ) -> u8 {
        let blocks: Vec<usize> = (0..BLOCKS)
            .filter(|it| dirty & (1 << it) != 0)
            .take(most)
            .collect();
        let mut copied = 0;
        for block in blocks {
            let holder = self.daemon(server, from).and_then(|it| it.disk.as_ref());
            let Some(value) = holder.map(|disk| disk.read(block)) else {
                break;
            };
            if let Some(holder) = self.daemon(server, to)
                && let (Some(disk), Some(daemon)) = (&mut holder.disk, &mut holder.daemon)
            {
                disk.write(block, value);
                daemon.active |= 1 << block;
            }
            copied |= 1 << block;
        }
        copied
    }

    fn joined(&mut self, node: usize, server: usize, replica: ReplicaId, target: Target) {
        if let Some(disk) = self.daemon(server, target).and_then(|it| it.disk.as_mut()) {
            disk.flush();
        }
        let here = &mut self.nodes[node];
        let Some(vm) = &mut here.vms[server] else {
            return;
        };
        vm.job = None;
        let epoch = vm.slots.epoch;
        if vm.slots.joined(epoch, replica).is_ok() {
            vm.targets.insert(replica, target);
            vm.left.remove(&replica);
            here.written[server] = Some(vm.slots.clone());
            self.counts.joins += 1;
            self.note(|| format!("server {server}: replica {} joined", ids::number(replica)));
        }
    }
}
