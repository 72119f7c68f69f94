//! A server's start, step by step; each step's end is told with its time.
//!
//! | step | ends when |
//! |---|---|
//! | `vm` | QEMU runs: a spare, restored from a template, or booting |
//! | `agent` | the agent inside said hello |
//! | `identify` | card and data disk are plugged; clock, randomness, names, addresses are set |
//! | `data` | the data disk is checked and mounted |
//! | `apply` | the manifest runs |
//! | `health` | the server's own request was answered |

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::time::Instant;
use undine_api::guest::{Answer, Applied, Ask, AttachData, Health};
use undine_api::node::{ReplicaTarget, StartReport, StartSpec};
use undine_model::{Bytes, MilliCpu, ServerId};
use undine_qemu::command::{Begin, Boot, VmConfig};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::process::Program;
use undine_qemu::psk::Psk;
use undine_qemu::storage::NbdAddress;
use undine_qemu::template::TemplateKey;
use undine_qemu::vm::{DataDisk, NbdChild, Nic, Vm};

use super::Ground;
use super::disk::record::DiskRecord;
use crate::cgroup::{Cgroup, Limits};
use crate::guard_file::Guarded;
use crate::guest::{self, Guest, GuestError};
use crate::host::QEMU;
use crate::problems::chain;
use crate::settings::vm_run_folder;
use crate::spares::Taken;
use crate::templates::shape;

/// Boot time-outs below a minute are false alarms under load.
const COLD_HELLO: Duration = Duration::from_secs(240);
const RESTORED_HELLO: Duration = Duration::from_secs(45);
const IDENTIFY: Duration = Duration::from_secs(90);
/// Making a file system under emulation takes its time, and so does replaying a journal.
const ATTACH: Duration = Duration::from_secs(240);
const APPLY: Duration = Duration::from_secs(300);
const HEALTH: Duration = Duration::from_secs(180);
/// So many times its own weight a server has while it comes up: visitors wait for it, and it takes
/// seconds, in which others still get their share.
const BOOST: u32 = 8;
const BOOST_WITH_DATABASES: u32 = 2;
/// The first pages are part of coming up: programs start for them.
const FIRST_VISITS: Duration = Duration::from_secs(15);
/// What QEMU may use beside the guest's processors, for its disks and cards.
const EMULATOR: MilliCpu = MilliCpu(500);
/// What QEMU may use beside the guest's memory before the kernel ends it.
const OVERHEAD: Bytes = Bytes::mib(512 + shape::TRANSLATIONS_MIB as u64);

/// What a start tells while it goes on.
#[derive(Debug)]
pub enum Progress {
    /// QEMU runs.
    Vm(Vm),
    /// Its disk is plugged in.
    Disk(Box<DiskRecord>),
    /// The agent said hello.
    Agent,
    /// A step ended, after so many seconds.
    Step(&'static str, f64),
}

/// What a start ends with.
#[derive(Debug)]
pub struct Started {
    /// How it came up.
    pub report: StartReport,
    /// What the agent says about itself.
    pub health: Health,
    /// What came of the manifest.
    pub applied: Applied,
}

/// One start.
pub struct Start<'a, T: Fn(Progress)> {
    /// What servers stand on.
    pub ground: &'a Ground,
    /// Which one.
    pub server: ServerId,
    /// What it must run.
    pub spec: &'a StartSpec,
    /// Its agent.
    pub guest: Arc<Mutex<Guest>>,
    /// Hears how it goes on.
    pub tell: T,
}

impl<T: Fn(Progress)> Start<'_, T> {
    /// Runs all steps.
    ///
    /// # Errors
    /// In words. The VM may still run; the caller ends it.
    pub async fn run(self) -> Result<Started, String> {
        let mut clock = Clock {
            begin: Instant::now(),
            steps: Vec::new(),
        };
        self.ground.spares.starting();
        let (boot, key) = self.boot().await?;
        let spare = self.spare(&key).await;
        let owner = self.user(spare.as_ref())?;
        let from = spare.as_ref().map(|taken| taken.spare);
        let tap = match &self.ground.network {
            Some(network) => Some(
                network
                    .plug(self.server, &self.spec.network, owner.uid)
                    .await
                    .map_err(|error| chain(&error))?,
            ),
            None => None,
        };
        let (vm, fallback) = match spare {
            Some(taken) => (self.become_it(taken.vm, &mut clock).await?, None),
            None => self.vm(boot, &key, owner, &mut clock).await?,
        };
        self.plug(&vm, tap).await?;
        let (applied, health) = self.configure(&vm, &mut clock).await?;
        settle(vm_cgroup(self.ground, self.server), self.spec.cpu);
        if let Err(error) = vm.watch_memory().await {
            tracing::debug!(server = %self.server, %error, "the guest's memory is not watched");
        }
        let from_template = self.spec.template && fallback.is_none();
        let report = StartReport {
            from_template,
            fallback,
            spare: from,
            steps_s: clock.steps,
        };
        Ok(Started {
            report,
            health,
            applied,
        })
    }

    fn owner(&self) -> Result<Owner, String> {
        let holder = crate::replicas::vm_holder(self.server);
        let uid = self
            .ground
            .uids
            .take(&holder)
            .map_err(|error| chain(&error))?;
        Ok(Owner { uid, gid: uid })
    }

    /// A spare of this shape, if one is ready.
    async fn spare(&self, key: &TemplateKey) -> Option<Taken> {
        let ground = self.ground;
        let folder = vm_run_folder(&ground.run_dir, self.server);
        let taken = match self.spec.template {
            true => ground.spares.take(key, self.server, &folder).await,
            false => Ok(None),
        };
        taken.unwrap_or_else(|reason| {
            tracing::warn!(server = %self.server, reason, "no start from a spare");
            None
        })
    }

    /// The user whose VM it is, which its own replica lets in.
    fn user(&self, spare: Option<&Taken>) -> Result<Owner, String> {
        let Some(taken) = spare else {
            return self.owner();
        };
        let replicas = &self.ground.replicas;
        let let_in = replicas.let_in(self.server, taken.owner);
        let_in.map(|()| taken.owner).map_err(|error| chain(&error))
    }

    /// A spare's VM has this server's weight and limits from now on.
    async fn become_it(&self, vm: Vm, clock: &mut Clock) -> Result<Vm, String> {
        let group = self.group()?;
        self.took_place(&vm, &group, clock)?;
        vm.cont().await.map_err(|error| chain(&error))?;
        self.hello(&vm, RESTORED_HELLO, clock).await?;
        Ok(vm)
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
        boot: Boot,
        key: &TemplateKey,
        owner: Owner,
        clock: &mut Clock,
    ) -> Result<(Vm, Option<String>), String> {
        let group = self.group()?;
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
            match self.restored(&program, &config, key, &group, clock).await {
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
        self.took_place(&vm, &group, clock)?;
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

    async fn boot(&self) -> Result<(Boot, TemplateKey), String> {
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

    /// Network card and data disk, behind the root ports that wait for them.
    async fn plug(&self, vm: &Vm, tap: Option<String>) -> Result<(), String> {
        if let Some(tap) = tap {
            let nic = Nic {
                tap,
                mac: self.spec.network.mac.clone(),
            };
            vm.attach_nic(&nic).await.map_err(|error| chain(&error))?;
        }
        let mut replicas = Vec::with_capacity(self.spec.replicas.len());
        for target in &self.spec.replicas {
            replicas.push(child(self.ground, self.server, target).await?);
        }
        let record = DiskRecord::fresh(self.spec);
        let slots = record.slots.len();
        // Before it can write anything to another node.
        self.ground.guarded.put(Guarded {
            server: self.server,
            epoch: self.spec.epoch,
            guard_socket: vm.run_dir().guard_qmp(),
            local_only: record.is_local_only(),
        });
        vm.attach_data(&DataDisk { replicas, slots })
            .await
            .map_err(|error| chain(&error))?;
        (self.tell)(Progress::Disk(Box::new(record)));
        Ok(())
    }

    async fn configure(&self, vm: &Vm, clock: &mut Clock) -> Result<(Applied, Health), String> {
        tokio::select! {
            configured = self.tell_guest(vm, clock) => configured,
            _ = vm.wait() => Err("the VM ended while it was being configured".to_owned()),
        }
    }

    async fn tell_guest(&self, vm: &Vm, clock: &mut Clock) -> Result<(Applied, Health), String> {
        let mut guest = self.guest.lock().await;
        let entropy: [u8; 64] = rand::random();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let unix_time_ns = u64::try_from(now.as_nanos()).unwrap_or_default();
        let identity = guest::identity(
            self.server,
            self.spec,
            &self.ground.edges,
            unix_time_ns,
            &entropy,
        );
        ask(
            &mut guest,
            Ask::Identify(identity),
            IDENTIFY,
            "become the server",
        )
        .await?;
        self.step(clock, "identify");
        // It may have been elsewhere a moment ago. Without this, the network learns it later.
        if let Err(error) = vm.announce().await {
            tracing::warn!(server = %self.server, error = %chain(&error), "not announced");
        }
        let data = AttachData {
            create_if_blank: self.spec.blank,
            data_format: self.spec.image.data_format,
        };
        ask(
            &mut guest,
            Ask::AttachData(data),
            ATTACH,
            "mount the data disk",
        )
        .await?;
        self.step(clock, "data");
        let manifest = Ask::Apply(Box::new(self.spec.manifest.clone()));
        let applied = match ask(&mut guest, manifest, APPLY, "apply the manifest").await? {
            Answer::Applied(applied) => applied,
            _ => return Err("the agent did not say what came of the manifest".to_owned()),
        };
        self.step(clock, "apply");
        let health = healthy(&mut guest).await?;
        self.step(clock, "health");
        Ok((applied, health))
    }

    fn step(&self, clock: &mut Clock, name: &'static str) {
        let seconds = clock.begin.elapsed().as_secs_f64();
        clock.steps.push((name.to_owned(), seconds));
        (self.tell)(Progress::Step(name, seconds));
    }
}

struct Clock {
    begin: Instant,
    steps: Vec<(String, f64)>,
}

/// A replica as the server's VM reaches it.
///
/// # Errors
/// In words.
pub async fn child(
    ground: &Ground,
    server: ServerId,
    target: &ReplicaTarget,
) -> Result<NbdChild, String> {
    let Some(address) = target.address.filter(|_| target.node != ground.node) else {
        let local = ground.replicas.export(server, &target.export).await;
        return local.map_err(|problem| problem.detail);
    };
    let key = match &target.key {
        Some(key) => Some(Psk::new(key.digits()).ok_or("the replica's key is no key")?),
        None => None,
    };
    Ok(NbdChild {
        address: NbdAddress::Inet(address),
        export: target.export.parse().map_err(|error| chain(&error))?,
        key,
    })
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

/// It has come up, or an agent before this one saw that: when those who waited for it have been
/// served, it weighs what it has reserved.
pub fn settle(group: Cgroup, reserved: MilliCpu) {
    tokio::spawn(async move {
        tokio::time::sleep(FIRST_VISITS).await;
        // Gone, if it was stopped meanwhile; its next start makes it anew.
        if let Err(error) = group.weigh(reserved) {
            tracing::debug!(error = %chain(&error), "a server's weight");
        }
    });
}

/// The control group of a server's VM.
pub fn vm_cgroup(ground: &Ground, server: ServerId) -> Cgroup {
    ground.cgroup.child(&format!("vm-{server}"))
}

async fn ask(
    guest: &mut Guest,
    ask: Ask,
    deadline: Duration,
    what: &str,
) -> Result<Answer, String> {
    guest
        .ask(ask, deadline)
        .await
        .map_err(|error| format!("the server could not {what}: {}", chain(&error)))
}

/// Asks for health until all is well.
async fn healthy(guest: &mut Guest) -> Result<Health, String> {
    let until = Instant::now() + HEALTH;
    let mut last = String::from("the agent did not say why");
    while Instant::now() < until {
        match guest.ask(Ask::Health, Duration::from_secs(30)).await {
            Ok(Answer::Health(health)) if health.is_well() => return Ok(health),
            Ok(Answer::Health(health)) => last = health.trouble.join("; "),
            Ok(_) => return Err(chain(&GuestError::Unexpected)),
            Err(error) => last = chain(&error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!(
        "the server did not become healthy within {} s: {last}",
        HEALTH.as_secs()
    ))
}
