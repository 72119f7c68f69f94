//! Guests, replicas and joins for the benchmark.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use undine_qemu::command::{Accel, Begin, Boot, DEFAULT_MACHINE, Shape, VmConfig};
use undine_qemu::copy::{Copy, Progress};
use undine_qemu::files::RunDir;
use undine_qemu::process::Program;
use undine_qemu::psk::{self, Psk};
use undine_qemu::relay::{Access, Relay};
use undine_qemu::sidecar::{ReplicaState, SidecarFile};
use undine_qemu::storage::{
    Base, DaemonConfig, ExportName, NbdAddress, StorageDaemon, create_image,
};
use undine_qemu::vm::{DataDisk, NbdChild, Vm};
use uuid::Uuid;

use crate::guest::{self, Agent, Archive};

const MIB: u64 = 1 << 20;
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// How the guest's disk is made.
#[derive(Clone, Copy)]
pub enum Disk {
    /// An image opened by QEMU itself.
    Plain,
    /// So many replicas, the first on a local socket; the others encrypted or not.
    Replicas(u8, bool),
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain qcow2"),
            Self::Replicas(count, tls) => {
                write!(f, "{count} replicas{}", if *tls { ", TLS" } else { "" })
            }
        }
    }
}

/// What all runs share.
pub struct Bench {
    dir: TempDir,
    boot: Boot,
}

/// One replica: its daemon and how it is reached.
struct Replica {
    daemon: StorageDaemon,
    child: NbdChild,
}

fn program(binary: &str) -> Program {
    Program {
        dies_with_us: true,
        ..Program::new(binary)
    }
}

impl Bench {
    /// `None` where no guest can be made.
    pub fn new() -> Option<Self> {
        let mut boot = guest::boot()?;
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("bench");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/disks/fsync.rs");
        let mut rustc = Command::new("rustc");
        rustc.args([
            "-O",
            "--edition",
            "2021",
            "-C",
            "target-feature=+crt-static",
        ]);
        assert!(
            rustc
                .arg("-o")
                .arg(&binary)
                .arg(source)
                .status()
                .unwrap()
                .success()
        );
        let mut archive = Archive(std::fs::read(&boot.initrd).unwrap());
        archive.entry("bin/bench", 0o100_755, &std::fs::read(binary).unwrap());
        archive.entry("TRAILER!!!", 0, &[]);
        boot.initrd = dir.path().join("initrd");
        std::fs::write(&boot.initrd, archive.0).unwrap();
        Some(Self { dir, boot })
    }

    async fn vm(&self, folder: &Path) -> (Vm, Agent) {
        let config = VmConfig {
            name: "bench".into(),
            uuid: Uuid::from_u128(1),
            shape: Shape {
                memory_mib: 256,
                vcpus: 1,
                machine: DEFAULT_MACHINE.into(),
                cpu: "qemu64".into(),
                accel: Accel::Tcg,
                tb_size_mib: 32,
            },
            boot: self.boot.clone(),
            run_dir: RunDir::new(folder.join("vm")),
        };
        let qemu = program("qemu-system-x86_64");
        let vm = Vm::spawn(&qemu, &config, Begin::Boot).await.unwrap();
        let mut agent = Agent::connect(&vm.run_dir().agent()).await;
        assert_eq!(agent.hear().await, "ready");
        (vm, agent)
    }

    fn folder(&self) -> TempDir {
        tempfile::tempdir_in(self.dir.path()).unwrap()
    }

    /// The times of so many flushed writes, in microseconds.
    pub async fn fsync(&self, disk: Disk, writes: u32) -> Vec<u64> {
        let folder = self.folder();
        let (vm, mut agent) = self.vm(folder.path()).await;
        let mut replicas = Vec::new();
        match disk {
            Disk::Plain => plug_plain(&vm, folder.path()).await,
            Disk::Replicas(count, tls) => {
                for number in 0..count {
                    let tls = tls && number > 0;
                    let remote = number > 0;
                    replicas.push(replica(folder.path(), number, remote, tls, 64 * MIB).await);
                }
                let children = replicas.iter().map(|replica| replica.child.clone());
                let disk = DataDisk::full(children.collect());
                vm.attach_data(&disk).await.unwrap();
            }
        }
        agent.ask_until("disks", "undine-data").await;
        // The first writes make the image grow.
        agent.ask(&format!("bench {writes}")).await;
        let times = agent.ask(&format!("bench {writes}")).await;
        vm.quit().await.unwrap();
        let times = times.split(' ').map(|time| time.parse().unwrap());
        times.collect()
    }

    /// A full join of 1 GiB and one of 64 MiB by the bitmap, while the guest writes.
    pub async fn joins(&self, tls: bool) -> Value {
        let folder = self.folder();
        let (vm, mut agent) = self.vm(folder.path()).await;
        let own = replica(folder.path(), 0, false, false, 1100 * MIB).await;
        fill(&own, 0, 1024);
        let disk = DataDisk {
            replicas: vec![own.child.clone()],
            slots: 2,
        };
        vm.attach_data(&disk).await.unwrap();
        agent.ask_until("disks", "undine-data").await;
        agent.ask("storm").await;
        let other = replica(folder.path(), 1, true, tls, 1100 * MIB).await;
        let full = join(folder.path(), &vm, &own, &other, Base::Everything).await;
        own.daemon.rotate_begin().await.unwrap();
        vm.settle().await.unwrap();
        own.daemon.rotate_end().await.unwrap();
        let begin = Instant::now();
        vm.swap_out(1).await.unwrap();
        let degrade_ms = begin.elapsed().as_secs_f64() * 1e3;
        fill(&own, 1030, 64);
        let bitmap = join(folder.path(), &vm, &own, &other, Base::Always).await;
        vm.quit().await.unwrap();
        json!({"tls": tls, "full": full, "bitmap": bitmap, "degrade_ms": degrade_ms})
    }
}

async fn plug_plain(vm: &Vm, folder: &Path) {
    let image = folder.join("plain.qcow2");
    create_image(Path::new("qemu-img"), &image, 64 * MIB, None)
        .await
        .unwrap();
    let node = json!({"driver": "qcow2", "node-name": "data",
        "file": {"driver": "file", "filename": image}});
    vm.qmp().execute("blockdev-add", node).await.unwrap();
    let device = json!({"driver": "virtio-blk-pci", "id": "data-disk", "bus": "port0",
        "drive": "data", "serial": "undine-data", "write-cache": "on"});
    vm.qmp().execute("device_add", device).await.unwrap();
}

async fn replica(folder: &Path, number: u8, remote: bool, tls: bool, size: u64) -> Replica {
    let image = folder.join(format!("{number}.qcow2"));
    create_image(Path::new("qemu-img"), &image, size, None)
        .await
        .unwrap();
    let run_dir = RunDir::new(folder.join(format!("d{number}")));
    let key = tls.then(|| Psk::new(KEY).unwrap());
    let keys = key.as_ref().map(|key| {
        let keys = folder.join(format!("k{number}"));
        psk::write(&keys, key, None).unwrap();
        keys
    });
    let address = if remote {
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1 + number), 0)).unwrap();
        let free: SocketAddr = free.local_addr().unwrap();
        NbdAddress::Inet(free)
    } else {
        NbdAddress::Unix(run_dir.nbd())
    };
    let config = DaemonConfig {
        program: program("qemu-storage-daemon"),
        run_dir,
        image,
        listen: address.clone(),
        psk: keys,
    };
    let daemon = StorageDaemon::start(&config).await.unwrap();
    let sidecar = SidecarFile::new(folder.join(format!("{number}.json")));
    let id = Uuid::from_u128(number.into());
    sidecar.create(id, 1, ReplicaState::InSync).await.unwrap();
    let export = ExportName::new("bench", 1, &format!("a{number}")).unwrap();
    let opened = daemon.open_epoch(&sidecar, &export, ReplicaState::InSync);
    opened.await.unwrap();
    Replica {
        daemon,
        child: NbdChild {
            address,
            export,
            key,
        },
    }
}

/// Writes data into the server's own replica.
fn fill(own: &Replica, from_mib: u64, mib: u64) {
    let NbdAddress::Unix(socket) = &own.child.address else {
        return;
    };
    let uri = format!(
        "nbd+unix:///{}?socket={}",
        own.child.export,
        socket.display()
    );
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw"]);
    for at in (from_mib..from_mib + mib).step_by(64) {
        io.arg("-c").arg(format!("write -P 7 {at}M 64M"));
    }
    assert!(io.arg(uri).output().unwrap().status.success());
}

async fn join(folder: &Path, vm: &Vm, own: &Replica, other: &Replica, base: Base) -> Value {
    let relay_dir = RunDir::new(folder.join("relay"));
    let begin = Instant::now();
    let relay = program("qemu-storage-daemon");
    let relay = Relay::start(&relay, &relay_dir, &other.child, Access::Write)
        .await
        .unwrap();
    let progress = Arc::new(Progress::default());
    let copy = Copy::begin(&own.daemon, &relay, base, 0, progress.clone());
    let mut copy = copy.await.unwrap();
    copy.pass().await.unwrap();
    while copy.left().await.unwrap() > MIB {
        copy.pass().await.unwrap();
    }
    vm.prepare_in(1, &other.child).await.unwrap();
    let held = Instant::now();
    vm.stop().await.unwrap();
    copy.last().await.unwrap();
    vm.swap_in(1).await.unwrap();
    vm.cont().await.unwrap();
    let pause = held.elapsed();
    let took = begin.elapsed();
    relay.end().await.unwrap();
    own.daemon.end_passes().await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let gib = progress.copied() as f64 / (1024.0 * MIB as f64);
    json!({"bytes": progress.copied(), "seconds": took.as_secs_f64(),
        "seconds_per_gib": took.as_secs_f64() / gib, "pause_ms": pause.as_secs_f64() * 1e3})
}
