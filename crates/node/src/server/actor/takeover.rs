//! What an earlier agent left is taken over: its record and, if one runs, its VM.

use std::time::Duration;

use undine_api::node::Phase;
use undine_qemu::files::RunDir;
use undine_qemu::vm::{RunState, Vm};

use super::Actor;
use crate::problems::chain;
use crate::server::phase::{self, Event};
use crate::server::start::{settle, vm_cgroup};
use crate::server::stop;
use crate::settings::vm_run_folder;

impl Actor {
    /// Takes over what an earlier agent left: its record and, if one runs, its VM.
    pub(super) async fn take_over(&mut self) {
        let state = match self.record.state() {
            Ok(Some(state)) => state,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(server = %self.server, error = chain(&error), "a server's record");
                return;
            }
        };
        let run_dir = RunDir::new(vm_run_folder(&self.ground.run_dir, self.server));
        let spare = state.start.as_ref().and_then(|start| start.spare);
        let identity = spare.unwrap_or(self.server).uuid();
        let found = Vm::adopt(&run_dir, identity).await;
        self.status.send_modify(|status| {
            status.epoch = state.epoch;
            status.phase = state.phase;
            status.error.clone_from(&state.error);
            status.start.clone_from(&state.start);
        });
        match found {
            Ok(Some(vm)) if matches!(state.phase, Phase::Running | Phase::Paused) => {
                self.adopted(vm).await;
            }
            Ok(None) => self.left_behind(state.phase),
            found => {
                // Half started or half stopped, or its monitor is dumb.
                let found = found.map(drop).map_err(|error| chain(&error));
                tracing::warn!(server = %self.server, ?found, "ending a VM that was left half done");
                let none = Duration::ZERO;
                let _ = stop::end(&self.ground, self.server, None, &self.guest, none).await;
                self.left_behind(state.phase);
            }
        }
        self.keep();
    }

    async fn adopted(&mut self, vm: Vm) {
        self.events = Some(vm.events());
        let running = vm.state().await.is_ok_and(RunState::is_running);
        tracing::info!(server = %self.server, pid = vm.process().id().pid, running, "VM taken over");
        self.vm.send_replace(Some(vm));
        if let Ok(Some(spec)) = self.record.spec() {
            settle(vm_cgroup(&self.ground, self.server), spec.cpu);
        }
        self.adopt_disk();
        self.apply(if running { Event::Resumed } else { Event::Lost });
    }

    /// No VM runs: what was on its way up begins anew, what was on its way down is down.
    fn left_behind(&mut self, phase: Phase) {
        self.ground.guarded.remove(self.server);
        match (phase, self.record.spec()) {
            (Phase::Stopping, _) => self.apply(Event::Ended),
            (Phase::Booting | Phase::Configuring, Ok(Some(spec))) => {
                tracing::info!(server = %self.server, "starting it again");
                self.status
                    .send_modify(|status| status.phase = Phase::Booting);
                self.launch(spec);
            }
            _ if phase::has_vm(phase) => {
                self.fail("its VM ended while the node's agent was away");
            }
            _ => {}
        }
    }
}
