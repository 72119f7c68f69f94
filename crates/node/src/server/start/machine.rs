//! The VM of a start, with an agent that has said hello: a spare, else one restored from a
//! template, else a cold boot. What fails is ended before the next way is tried.

use std::time::Duration;

use undine_api::node::StartSpec;
use undine_model::{Bytes, MilliCpu, ServerId};
use undine_qemu::command::{Begin, Boot, VmConfig};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::process::Program;
use undine_qemu::template::TemplateKey;
use undine_qemu::vm::Vm;

use super::{Clock, Progress, Start, vm_cgroup};
use crate::cgroup::{Cgroup, Limits};
use crate::host::QEMU;
use crate::problems::chain;
use crate::settings::vm_run_folder;
use crate::spares::Taken;
use crate::templates::shape;

/// Boot time-outs below a minute are false alarms under load.
const COLD_HELLO: Duration = Duration::from_secs(240);
const RESTORED_HELLO: Duration = Duration::from_secs(45);
/// So many times its own weight a server has while it comes up: visitors wait for it, and it takes
/// seconds, in which others still get their share.
const BOOST: u32 = 8;
const BOOST_WITH_DATABASES: u32 = 2;
/// What QEMU may use beside the guest's processors, for its disks and cards.
const EMULATOR: MilliCpu = MilliCpu(500);
/// What QEMU may use beside the guest's memory before the kernel ends it.
const OVERHEAD: Bytes = Bytes::mib(512 + shape::TRANSLATIONS_MIB as u64);

/// A VM and where it came from.
pub(super) struct Machine {
    /// It.
    pub vm: Vm,
    /// Why it did not come from a template, if it should.
    pub fallback: Option<String>,
    /// What it was before, if it was a spare.
    pub spare: Option<ServerId>,
}

impl<T: Fn(Progress)> Start<'_, T> {
    /// A spare that has rehearsed this profile in this shape, if one is ready.
    pub(super) async fn spare(&self, key: &TemplateKey) -> Option<Taken> {
        if !self.spec.template {
            return None;
        }
        let (ground, server) = (self.ground, self.server);
        let folder = vm_run_folder(&ground.run_dir, server);
        let profile = &self.spec.manifest.profile;
        let taken = ground.spares.take(key, profile, server, &folder).await;
        taken.unwrap_or_else(|reason| {
            tracing::warn!(%server, reason, "no start from a spare");
            None
        })
    }

    /// The VM; its folder may be the spare's already, and its owner the spare's.
    pub(super) async fn machine(
        &self,
        spare: Option<Taken>,
        boot: Boot,
        key: &TemplateKey,
        owner: Owner,
        clock: &mut Clock,
    ) -> Result<Machine, String> {
        let group = self.group()?;
        if let Some(Taken { vm, spare }) = spare {
            match self.become_it(&vm, &group, clock).await {
                Ok(()) => {
                    return Ok(Machine {
                        vm,
                        fallback: None,
                        spare: Some(spare),
                    });
                }
                Err(reason) => {
                    tracing::warn!(server = %self.server, reason, "a spare was of no use");
                    vm.kill().await.map_err(|error| chain(&error))?;
                    clock.steps.clear();
                }
            }
        }
        let (vm, fallback) = self.vm(&group, boot, key, owner, clock).await?;
        Ok(Machine {
            vm,
            fallback,
            spare: None,
        })
    }

    /// A spare's VM has this server's weight and limits from now on.
    async fn become_it(&self, vm: &Vm, group: &Cgroup, clock: &mut Clock) -> Result<(), String> {
        self.took_place(vm, group, clock)?;
        vm.cont().await.map_err(|error| chain(&error))?;
        self.hello(vm, RESTORED_HELLO, clock).await
    }

    fn group(&self) -> Result<Cgroup, String> {
        let group = vm_cgroup(self.ground, self.server);
        let spec = self.spec;
        let limits = Limits {
            cpu: Some(MilliCpu(spec.vcpus * 1000 + EMULATOR.0)),
            reserved: Some(boosted(spec)),
            memory: Some(Bytes(spec.memory.0 + OVERHEAD.0)),
            tasks: 512,
        };
        group.make(limits).map_err(|error| chain(&error))?;
        Ok(group)
    }

    /// A VM whose agent has said hello, and why it did not come from a template, if it should.
    async fn vm(
        &self,
        group: &Cgroup,
        boot: Boot,
        key: &TemplateKey,
        owner: Owner,
        clock: &mut Clock,
    ) -> Result<(Vm, Option<String>), String> {
        let program = Program {
            owner: Some(owner),
            ..Program::new(QEMU)
        };
        let config = self.config(boot, key);
        // Appended to from start to start; the user may have been another one.
        match owner.take(&config.run_dir.console()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(chain(&error));
            }
            _ => {}
        }
        let mut fallback = None;
        if self.spec.template {
            match self.restored(&program, &config, key, group, clock).await {
                Ok(vm) => return Ok((vm, None)),
                Err(reason) => {
                    tracing::warn!(server = %self.server, reason, "no start from a template");
                    fallback = Some(reason);
                }
            }
        }
        let vm = Vm::spawn(&program, &config, Begin::Boot)
            .await
            .map_err(|error| chain(&error))?;
        self.took_place(&vm, group, clock)?;
        self.hello(&vm, COLD_HELLO, clock).await?;
        Ok((vm, fallback))
    }

    async fn restored(
        &self,
        program: &Program,
        config: &VmConfig,
        key: &TemplateKey,
        group: &Cgroup,
        clock: &mut Clock,
    ) -> Result<Vm, String> {
        let template = self.ground.templates.get(key, &config.boot).await?;
        let vm = match template.restore(program, config).await {
            Ok(vm) => vm,
            Err(error) => {
                let reason = chain(&error);
                self.ground.templates.discard(key, &reason);
                return Err(reason);
            }
        };
        self.took_place(&vm, group, clock)?;
        if let Err(reason) = self.hello(&vm, RESTORED_HELLO, clock).await {
            vm.kill().await.map_err(|error| chain(&error))?;
            clock.steps.clear();
            self.ground.templates.discard(key, &reason);
            return Err(reason);
        }
        Ok(vm)
    }

    /// What it boots, and the key of the template for it.
    pub(super) async fn boot(&self) -> Result<(Boot, TemplateKey), String> {
        shape::boot(&self.ground.host, &self.ground.images, self.spec.into()).await
    }

    fn config(&self, boot: Boot, key: &TemplateKey) -> VmConfig {
        VmConfig {
            name: self.spec.name.clone(),
            uuid: self.server.uuid(),
            shape: key.shape.clone(),
            boot,
            run_dir: RunDir::new(vm_run_folder(&self.ground.run_dir, self.server)),
        }
    }

    fn took_place(&self, vm: &Vm, group: &Cgroup, clock: &mut Clock) -> Result<(), String> {
        group
            .add(vm.process().id().pid)
            .map_err(|error| chain(&error))?;
        (self.tell)(Progress::Vm(vm.clone()));
        self.step(clock, "vm");
        Ok(())
    }

    async fn hello(&self, vm: &Vm, deadline: Duration, clock: &mut Clock) -> Result<(), String> {
        let mut guest = self.guest.lock().await;
        // Of an earlier run.
        guest.close();
        tokio::select! {
            answered = guest.hello(deadline) => answered.map_err(|error| chain(&error))?,
            _ = vm.wait() => return Err("the VM ended before its agent answered".to_owned()),
        };
        (self.tell)(Progress::Agent);
        self.step(clock, "agent");
        Ok(())
    }
}

/// Its weight against the others while it comes up. Short starts go first: one whose databases have
/// to recover takes long in any case, and would hold up the others.
fn boosted(spec: &StartSpec) -> MilliCpu {
    let boost = if spec.manifest.databases.is_empty() {
        BOOST
    } else {
        BOOST_WITH_DATABASES
    };
    MilliCpu(spec.cpu.0.saturating_mul(boost))
}
