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

mod machine;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::time::Instant;
use undine_api::guest::{Answer, Applied, Ask, AttachData, Health};
use undine_api::node::{ReplicaTarget, StartReport, StartSpec};
use undine_model::{MilliCpu, ServerId};
use undine_qemu::files::Owner;
use undine_qemu::psk::Psk;
use undine_qemu::storage::NbdAddress;
use undine_qemu::vm::{DataDisk, NbdChild, Nic, Vm};

use super::Ground;
use super::disk::record::DiskRecord;
use crate::cgroup::Cgroup;
use crate::guard_file::Guarded;
use crate::guest::{self, Guest, GuestError};
use crate::problems::chain;

const IDENTIFY: Duration = Duration::from_secs(90);
/// Making a file system under emulation takes its time, and so does replaying a journal.
const ATTACH: Duration = Duration::from_secs(240);
const APPLY: Duration = Duration::from_secs(300);
const HEALTH: Duration = Duration::from_secs(180);
/// The first pages are part of coming up: programs start for them.
const FIRST_VISITS: Duration = Duration::from_secs(15);

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
        let owner = self.owner()?;
        let replicas = &self.ground.replicas;
        let let_in = replicas.let_in(self.server, owner);
        let_in.map_err(|error| chain(&error))?;
        let tap = match &self.ground.network {
            Some(network) => Some(
                network
                    .plug(self.server, &self.spec.network, owner.uid)
                    .await
                    .map_err(|error| chain(&error))?,
            ),
            None => None,
        };
        let machine = self.machine(spare, boot, &key, owner, &mut clock).await?;
        let vm = machine.vm;
        self.plug(&vm, tap).await?;
        let (applied, health) = self.configure(&vm, &mut clock).await?;
        settle(vm_cgroup(self.ground, self.server), self.spec.cpu);
        if let Err(error) = vm.watch_memory().await {
            tracing::debug!(server = %self.server, %error, "the guest's memory is not watched");
        }
        let report = StartReport {
            from_template: self.spec.template && machine.fallback.is_none(),
            fallback: machine.fallback,
            spare: machine.spare,
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
