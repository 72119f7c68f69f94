//! A VM's life on the real programs: a tiny guest, its replica, its template.

#![allow(clippy::unwrap_used, reason = "tests")]

mod guest;
mod slots;

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use guest::Agent;
use tokio::time::{Instant, timeout};
use undine_qemu::command::{Accel, Begin, Boot, DEFAULT_MACHINE, Shape, VmConfig};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::process::Program;
use undine_qemu::psk::{self, Psk};
use undine_qemu::sidecar::{ReplicaState, SidecarFile};
use undine_qemu::storage::{DaemonConfig, ExportName, NbdAddress, StorageDaemon, create_image};
use undine_qemu::template::{TemplateError, TemplateKey, TemplateStore};
use undine_qemu::vm::{DataDisk, NbdChild, Nic, Plugged, RunState, Vm, VmError, VmEvent};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const GROUP: u32 = 64_100;
const SERVER: Uuid = Uuid::from_u128(0xfeed);

/// One host's folders, and its users where the test may switch to them.
struct Host {
    dir: tempfile::TempDir,
    boot: Boot,
    is_root: bool,
}

impl Host {
    fn new() -> Option<Self> {
        let boot = guest::boot()?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Some(Self {
            dir,
            boot,
            is_root: rustix::process::geteuid().is_root(),
        })
    }

    fn program(&self, binary: &str, uid: u32) -> Program {
        let owner = self.is_root.then_some(Owner { uid, gid: GROUP });
        Program {
            owner,
            dies_with_us: true,
            ..Program::new(binary)
        }
    }

    fn qemu(&self) -> Program {
        self.program("qemu-system-x86_64", 64_102)
    }

    fn config(&self, name: &str) -> VmConfig {
        VmConfig {
            name: name.into(),
            uuid: SERVER,
            shape: Shape {
                memory_mib: 128,
                vcpus: 1,
                machine: DEFAULT_MACHINE.into(),
                cpu: "qemu64".into(),
                accel: Accel::Tcg,
                tb_size_mib: 32,
            },
            boot: self.boot.clone(),
            run_dir: RunDir::new(self.dir.path().join(name)),
        }
    }

    async fn replica(&self, name: &str) -> Replica {
        let run_dir = RunDir::new(self.dir.path().join(name));
        self.replica_at(name, NbdAddress::Unix(run_dir.nbd()), None)
            .await
    }

    /// A replica whose daemon listens on the network, encrypted by this key.
    async fn remote(&self, name: &str, address: SocketAddr, key: Option<&Psk>) -> Replica {
        self.replica_at(name, NbdAddress::Inet(address), key).await
    }

    async fn replica_at(&self, name: &str, address: NbdAddress, key: Option<&Psk>) -> Replica {
        let program = self.program("qemu-storage-daemon", 64_101);
        let image = self.dir.path().join(format!("{name}.qcow2"));
        create_image(Path::new("qemu-img"), &image, 64 * MIB, program.owner)
            .await
            .unwrap();
        let run_dir = RunDir::new(self.dir.path().join(name));
        let psk = key.map(|key| {
            let folder = self.dir.path().join(format!("{name}-psk"));
            psk::write(&folder, key, program.owner).unwrap();
            folder
        });
        let sidecar = SidecarFile::new(self.dir.path().join(format!("{name}.json")));
        sidecar
            .create(Uuid::from_u128(1), 1, ReplicaState::InSync)
            .await
            .unwrap();
        let config = DaemonConfig {
            program,
            run_dir,
            image,
            listen: address.clone(),
            psk,
        };
        let daemon = StorageDaemon::start(&config).await.unwrap();
        let mut replica = Replica {
            daemon,
            config,
            sidecar,
            address,
            key: key.cloned(),
        };
        replica.open(1, "a").await;
        replica
    }
}

struct Replica {
    daemon: StorageDaemon,
    config: DaemonConfig,
    sidecar: SidecarFile,
    address: NbdAddress,
    key: Option<Psk>,
}

impl Replica {
    async fn open(&mut self, epoch: u64, incarnation: &str) {
        let name = ExportName::new("web-1", epoch, incarnation).unwrap();
        self.daemon
            .open_epoch(&self.sidecar, &name, ReplicaState::InSync)
            .await
            .unwrap();
    }

    async fn child(&self) -> NbdChild {
        let export = self.daemon.exports().await.unwrap().remove(0);
        NbdChild {
            address: self.address.clone(),
            export,
            key: self.key.clone(),
        }
    }
}

/// A tap, gone at the end of the test however that ends.
struct Tap(String);

impl Tap {
    fn new() -> Option<Self> {
        let name = format!("utq{}", std::process::id());
        let mut add = Command::new("ip");
        add.args(["tuntap", "add", "dev", &name, "mode", "tap"]);
        let made = add.status().is_ok_and(|status| status.success());
        if !made {
            println!("skipped: the network card, as no tap can be made here");
        }
        made.then_some(Self(name))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

async fn ready(vm: &Vm) -> Agent {
    let mut agent = Agent::connect(&vm.run_dir().agent()).await;
    assert_eq!(agent.hear().await, "ready");
    agent
}

async fn until_stopped_by_its_disk(vm: &Vm, agent: &mut Agent) {
    let mut events = vm.events();
    agent.say("write lost").await;
    let failed = async {
        loop {
            if let Some(event) = VmEvent::read(&events.recv().await.unwrap())
                && let VmEvent::BlockIoError { device, .. } = event
            {
                return device;
            }
        }
    };
    assert_eq!(
        timeout(Duration::from_secs(10), failed).await.unwrap(),
        "data-disk"
    );
    assert_eq!(vm.state().await.unwrap(), RunState::IoError);
}

#[tokio::test]
async fn a_server_starts_cold_is_adopted_keeps_its_data_and_is_fenced() {
    let Some(host) = Host::new() else { return };
    let config = host.config("vm");
    let mut replica = host.replica("replica").await;
    assert!(Vm::adopt(&config.run_dir, SERVER).await.unwrap().is_none());
    let vm = Vm::spawn(&host.qemu(), &config, Begin::Boot).await.unwrap();
    let id = vm.process().id();
    if let Some(owner) = host.qemu().owner {
        let folder = std::fs::metadata(format!("/proc/{}", id.pid)).unwrap();
        assert_eq!((folder.uid(), folder.gid()), (owner.uid, GROUP));
    }
    let mut agent = ready(&vm).await;
    assert_eq!(agent.ask("disks").await, "undine-root");

    let disk = DataDisk::full(vec![replica.child().await]);
    assert_eq!(vm.attach_data(&disk).await.unwrap(), Plugged::Now);
    assert_eq!(vm.attach_data(&disk).await.unwrap(), Plugged::Before);
    agent.ask_until("disks", "undine-data").await;
    assert_eq!(agent.ask("write one").await, "written");
    assert_eq!(agent.ask("read").await, "one");
    let stats = vm.stats().await.unwrap();
    assert!(stats.disks["data-disk"].written_bytes >= 512);
    assert!(stats.disks["data-disk"].flushes >= 1);
    vm.watch_memory().await.unwrap();

    // The agent's process dies and its successor takes over; the guest does not notice.
    let process = vm.process().clone();
    drop(vm);
    let stranger = Vm::adopt(&config.run_dir, Uuid::from_u128(1)).await;
    assert!(matches!(stranger, Err(VmError::OtherVm { .. })));
    let again = Vm::spawn(&host.qemu(), &config, Begin::Boot).await;
    assert!(matches!(again, Err(VmError::AlreadyRuns { pid }) if pid == id.pid));
    // It is found in a folder that was renamed as well, by the lock that it holds.
    let run_dir = RunDir::new(host.dir.path().join("renamed"));
    std::fs::rename(config.run_dir.path(), run_dir.path()).unwrap();
    assert_eq!(Vm::find_process(&run_dir).unwrap(), Some(id));
    let free = RunDir::new(host.dir.path().join("free"));
    std::fs::create_dir(free.path()).unwrap();
    std::fs::write(free.pid_file(), id.pid.to_string()).unwrap();
    assert_eq!(
        Vm::find_process(&free).unwrap(),
        None,
        "nobody holds that lock"
    );
    let vm = Vm::adopt(&run_dir, SERVER).await.unwrap().unwrap();
    assert_eq!(vm.process().id(), id);
    assert_eq!(vm.attach_data(&disk).await.unwrap(), Plugged::Before);
    vm.stop().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), RunState::Paused);
    vm.cont().await.unwrap();
    assert_eq!(agent.ask("read").await, "one");

    // A higher epoch is opened: the old owner's next write fails and stays failed.
    replica.open(2, "a").await;
    until_stopped_by_its_disk(&vm, &mut agent).await;
    vm.cont().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(vm.state().await.unwrap(), RunState::IoError);
    let other = DataDisk::full(vec![replica.child().await]);
    let replaced = vm.attach_data(&other).await;
    assert!(matches!(replaced, Err(VmError::OtherPlugged { .. })));
    vm.shut_down(Duration::from_secs(1)).await.unwrap();
    assert!(process.exit().is_some());
    assert!(Vm::adopt(&run_dir, SERVER).await.unwrap().is_none());
}

#[tokio::test]
async fn a_template_restores_in_a_fraction_of_a_cold_start_and_takes_a_disk() {
    let Some(host) = Host::new() else { return };
    let store = TemplateStore::open(host.dir.path().join("templates")).unwrap();
    let config = host.config("taking");
    let qemu_version = undine_qemu::version::qemu_version(Path::new("qemu-system-x86_64"));
    let qemu_version = qemu_version.await.unwrap();
    let key = TemplateKey {
        image_hash: "tiny".into(),
        shape: config.shape.clone(),
        qemu_version,
    };
    let started = Instant::now();
    let taking = store
        .start_taking(&host.qemu(), &config, key.clone())
        .await
        .unwrap();
    let mut agent = ready(taking.vm()).await;
    let cold = started.elapsed();
    assert_eq!(agent.ask("keep memories").await, "kept");
    drop(agent);
    let taken = taking.finish().await.unwrap();
    assert_eq!(store.find(&key).as_ref(), Some(&taken));

    let mut first = host.replica("first").await;
    let mut second = host.replica("second").await;
    let started = Instant::now();
    let vm = taken
        .restore(&host.qemu(), &host.config("vm"))
        .await
        .unwrap();
    assert_eq!(vm.state().await.unwrap(), RunState::Running);
    let mut agent = Agent::connect(&vm.run_dir().agent()).await;
    assert_eq!(agent.ask("tell").await, "memories");
    let warm = started.elapsed();
    println!("cold {cold:?}, from the template {warm:?}");
    assert!(warm < cold);
    let disk = DataDisk::full(vec![first.child().await, second.child().await]);
    vm.attach_data(&disk).await.unwrap();
    agent.ask_until("disks", "undine-data").await;
    assert_eq!(agent.ask("write two").await, "written");

    // One of two replicas dies: nothing is acknowledged with the other alone, and a daemon that
    // comes back under a new incarnation is not rejoined silently.
    second.daemon.kill().await.unwrap();
    until_stopped_by_its_disk(&vm, &mut agent).await;
    second.daemon = StorageDaemon::start(&second.config).await.unwrap();
    second.open(1, "b").await;
    vm.cont().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(vm.state().await.unwrap(), RunState::IoError);
    vm.quit().await.unwrap();
    first.open(2, "a").await;

    // Damaged memory is refused, and nothing is left in the way of a cold start.
    let length = std::fs::metadata(taken.memory()).unwrap().len();
    std::fs::remove_file(taken.memory()).unwrap();
    std::fs::write(taken.memory(), vec![7; usize::try_from(length).unwrap()]).unwrap();
    let damaged = taken.restore(&host.qemu(), &host.config("vm")).await;
    assert!(
        matches!(damaged, Err(TemplateError::Memory { .. })),
        "{damaged:?}"
    );
    println!("damaged: {}", damaged.unwrap_err());
    let vm = Vm::spawn(&host.qemu(), &host.config("vm"), Begin::Paused)
        .await
        .unwrap();
    assert_eq!(vm.state().await.unwrap(), RunState::Prelaunch);
    vm.quit().await.unwrap();
}

#[tokio::test]
async fn a_guest_gets_a_network_card_and_its_own_end_is_told_as_such() {
    let Some(host) = Host::new() else { return };
    // As our own user: a host may keep /dev/net/tun from others.
    let qemu = Program {
        owner: None,
        ..host.qemu()
    };
    let tap = Tap::new();
    for (word, reason) in [("off", "guest-shutdown"), ("reboot", "guest-reset")] {
        let vm = Vm::spawn(&qemu, &host.config("vm"), Begin::Boot)
            .await
            .unwrap();
        let mut events = vm.events();
        let mut agent = ready(&vm).await;
        if let Some(tap) = &tap {
            let nic = Nic {
                tap: tap.0.clone(),
                mac: "02:75:6e:00:00:99".into(),
            };
            assert_eq!(vm.attach_nic(&nic).await.unwrap(), Plugged::Now);
            assert_eq!(vm.attach_nic(&nic).await.unwrap(), Plugged::Before);
            agent.ask_until("macs", "02:75:6e:00:00:99").await;
        }
        agent.say(word).await;
        assert!(
            timeout(Duration::from_secs(30), vm.wait())
                .await
                .unwrap()
                .unwrap()
                .success()
        );
        let told = loop {
            if let Some(told @ VmEvent::Shutdown { .. }) =
                VmEvent::read(&events.recv().await.unwrap())
            {
                break told;
            }
        };
        assert_eq!(
            told,
            VmEvent::Shutdown {
                by_guest: true,
                reason: reason.into()
            }
        );
    }
}
