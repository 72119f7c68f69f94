//! What must be true after each event, and at the end.

use undine_failover::machine::Phase;

use crate::disk::BLOCKS;
use crate::ids;
use crate::world::World;

impl World {
    /// Invariant 1 by its effect: whatever crashes now, every member that is committed still has
    /// every acknowledged write. Looked at when something changed.
    pub(crate) fn check(&mut self) {
        for server in 0..self.acked.len() {
            // A store that went back says nothing before it was compared with what nodes have seen.
            if self.verified[server] != self.store.generation() {
                continue;
            }
            if let Some(wrong) = self.member_without(server) {
                self.violate(wrong);
            }
        }
    }

    fn member_without(&self, server: usize) -> Option<String> {
        let acked = &self.acked[server];
        for it in self.store.record(server).in_sync() {
            let holder = &self.nodes[ids::number(it.node)].holders[server];
            let Some(disk) = &holder.disk else { continue };
            let has = disk.worst();
            for block in 0..BLOCKS {
                if has[block] < acked[block] {
                    return Some(format!(
                        "server {server}: the copy on node {} is in sync, but lacks acknowledged write {} of block {block}, it has {}",
                        ids::number(it.node),
                        acked[block],
                        has[block],
                    ));
                }
            }
        }
        None
    }

    /// Everything runs, nothing is missing, nobody works.
    pub(crate) fn is_well(&self) -> bool {
        self.what_is_wrong().is_none()
    }

    /// What is not well yet.
    pub(crate) fn what_is_wrong(&self) -> Option<String> {
        if let Some(node) = self.store.fenced().iter().position(|it| *it) {
            return Some(format!("node {node} is still fenced"));
        }
        (0..self.acked.len()).find_map(|server| self.server_wrong(server))
    }

    fn server_wrong(&self, server: usize) -> Option<String> {
        let record = self.store.record(server);
        let name = format!("server {server} at epoch {}", record.epoch);
        if self.store.is_blocked(server) {
            return Some(format!("{name} is blocked"));
        }
        let Some(owner) = record.owner.map(ids::number) else {
            return Some(format!("{name} has no owner"));
        };
        let vm = self.nodes[owner].vms[server].as_ref();
        let vm = vm.filter(|vm| vm.slots.epoch == record.epoch && vm.phase == Phase::Answers);
        let Some(vm) = vm else {
            return Some(format!("{name} does not run on node {owner}"));
        };
        if !vm.runs() {
            return Some(format!(
                "{name} stands still on node {owner}: {:?}",
                vm.slots
            ));
        }
        if record.in_sync().count() < record.slots {
            return Some(format!("{name} lacks copies: {:?}", record.replicas));
        }
        if self.store.route(server) != record.epoch {
            return Some(format!("{name} is not routed"));
        }
        let claim = self.store.claim_of(server);
        claim.map(|claim| format!("{name}: somebody still works on it: {claim:?}"))
    }
}
