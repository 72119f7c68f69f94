//! Against the real `qemu-img`, `qemu-storage-daemon` and `qemu-io`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::files::Owner;
use crate::sidecar::SidecarError;

const IMG: &str = "qemu-img";
const MIB: u64 = 1 << 20;

struct Bench {
    dir: tempfile::TempDir,
    config: DaemonConfig,
    sidecar: SidecarFile,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(dir.path().join("run"));
        let listen = NbdAddress::Unix(run_dir.nbd());
        let program = Program {
            dies_with_us: true,
            ..Program::new("qemu-storage-daemon")
        };
        let image = dir.path().join("data.qcow2");
        let config = DaemonConfig {
            program,
            run_dir,
            image,
            listen,
            psk: None,
        };
        let sidecar = SidecarFile::new(dir.path().join("replica.json"));
        Self {
            dir,
            config,
            sidecar,
        }
    }

    async fn with_image() -> Self {
        let bench = Self::new();
        let image = &bench.config.image;
        assert_eq!(create(image, 16 * MIB).await.unwrap(), Created::New);
        let replica = uuid::Uuid::from_u128(1);
        bench
            .sidecar
            .create(replica, 1, ReplicaState::InSync)
            .await
            .unwrap();
        bench
    }

    async fn start(&self) -> StorageDaemon {
        StorageDaemon::start(&self.config).await.unwrap()
    }

    async fn open(&self, daemon: &StorageDaemon, epoch: u64) -> Result<(), StorageError> {
        daemon
            .open_epoch(&self.sidecar, &name(epoch), ReplicaState::InSync)
            .await
    }

    /// Runs one command of `qemu-io` against an export; tells whether it worked.
    async fn io(&self, export: &ExportName, command: &str) -> bool {
        let uri = format!(
            "nbd+unix:///{export}?socket={}",
            self.config.run_dir.nbd().display()
        );
        let mut qemu_io = Command::new("qemu-io");
        qemu_io
            .args(["-f", "raw", "-c", command, &uri])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = qemu_io.output().await.unwrap();
        output.status.success()
    }
}

async fn create(image: &Path, size_bytes: u64) -> Result<Created, StorageError> {
    create_image(Path::new(IMG), image, size_bytes, None).await
}

fn name(epoch: u64) -> ExportName {
    ExportName::new("web-1", epoch, "abcd").unwrap()
}

#[tokio::test]
async fn an_image_is_created_once_and_never_replaced() {
    let bench = Bench::new();
    let image = &bench.config.image;
    let left_over = bench.dir.path().join("data.qcow2.partial");
    std::fs::write(&left_over, "half").unwrap();
    assert_eq!(create(image, 16 * MIB).await.unwrap(), Created::New);
    assert!(!left_over.exists());
    assert_eq!(create(image, 16 * MIB).await.unwrap(), Created::Existed);
    match create(image, 32 * MIB).await {
        Err(StorageError::OtherSize { have, want, .. }) => {
            assert_eq!((have, want), (16 * MIB, 32 * MIB));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(virtual_size(Path::new(IMG), image).await.unwrap(), 16 * MIB);
}

#[tokio::test]
async fn a_missing_image_is_lost_and_stays_missing() {
    let bench = Bench::new();
    let started = StorageDaemon::start(&bench.config).await;
    assert!(
        matches!(started, Err(StorageError::Lost { .. })),
        "{started:?}"
    );
    assert!(!bench.config.image.exists());
}

#[tokio::test]
async fn an_export_serves_reads_and_writes_under_its_name_only() {
    let bench = Bench::with_image().await;
    let daemon = bench.start().await;
    assert_eq!(daemon.size_bytes().await.unwrap(), 16 * MIB);
    bench.open(&daemon, 1).await.unwrap();
    bench.open(&daemon, 1).await.unwrap();
    assert!(bench.io(&name(1), "write -P 7 0 4k").await);
    assert!(bench.io(&name(1), "read -P 7 0 4k").await);
    assert!(!bench.io(&name(2), "read 0 4k").await);
}

#[tokio::test]
async fn opening_a_higher_epoch_ends_the_lower_one_for_ever() {
    let bench = Bench::with_image().await;
    let daemon = bench.start().await;
    bench.open(&daemon, 1).await.unwrap();
    bench.open(&daemon, 2).await.unwrap();
    assert_eq!(daemon.exports().await.unwrap(), [name(2)]);
    assert!(!bench.io(&name(1), "read 0 4k").await);
    let refused = bench.open(&daemon, 1).await;
    let lower = StorageError::Sidecar(SidecarError::LowerEpoch { asked: 1, seen: 2 });
    assert_eq!(refused.unwrap_err().to_string(), lower.to_string());
    assert_eq!(daemon.exports().await.unwrap(), [name(2)]);
    assert_eq!(bench.sidecar.read().await.unwrap().epoch, 2);
}

#[tokio::test]
async fn an_export_in_use_is_deleted_the_hard_way() {
    let bench = Bench::with_image().await;
    let daemon = bench.start().await;
    bench.open(&daemon, 1).await.unwrap();
    let client = tokio::net::UnixStream::connect(bench.config.run_dir.nbd())
        .await
        .unwrap();
    let mut user = Command::new("qemu-io");
    let socket = bench.config.run_dir.nbd();
    user.args(["-f", "raw", "-c", "sleep 60000"]);
    user.arg(format!(
        "nbd+unix:///{}?socket={}",
        name(1),
        socket.display()
    ));
    let _user = user
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.open(&daemon, 2).await.unwrap();
    assert_eq!(daemon.exports().await.unwrap(), [name(2)]);
    drop(client);
}

#[tokio::test]
async fn a_daemon_is_adopted_with_its_exports_and_not_started_twice() {
    let bench = Bench::with_image().await;
    assert!(
        StorageDaemon::adopt(&bench.config.run_dir)
            .await
            .unwrap()
            .is_none()
    );
    let daemon = bench.start().await;
    bench.open(&daemon, 1).await.unwrap();
    let id = daemon.process().id();
    let again = StorageDaemon::start(&bench.config).await;
    assert!(matches!(again, Err(StorageError::AlreadyRuns { pid }) if pid == id.pid));
    // The first connection must end before the monitor serves the next.
    let StorageDaemon { process, qmp, .. } = daemon;
    drop(qmp);
    let adopted = StorageDaemon::adopt(&bench.config.run_dir)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(adopted.process().id(), id);
    assert_eq!(adopted.exports().await.unwrap(), [name(1)]);
    assert_eq!(adopted.bitmap(), Bitmap::Kept);
    adopted.stop().await.unwrap();
    assert!(process.wait().await.unwrap().success());
    assert!(
        StorageDaemon::adopt(&bench.config.run_dir)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn the_bitmap_survives_an_orderly_stop_and_not_a_kill() {
    let bench = Bench::with_image().await;
    let first = bench.start().await;
    assert_eq!(first.bitmap(), Bitmap::Fresh);
    first.stop().await.unwrap();
    let second = bench.start().await;
    assert_eq!(second.bitmap(), Bitmap::Kept);
    bench.open(&second, 1).await.unwrap();
    assert!(bench.io(&name(1), "write -P 7 0 4k").await);
    second.kill().await.unwrap();
    let third = bench.start().await;
    assert_eq!(third.bitmap(), Bitmap::Fresh);
}

#[tokio::test]
async fn an_image_in_use_elsewhere_is_busy() {
    let bench = Bench::with_image().await;
    let _daemon = bench.start().await;
    let run_dir = RunDir::new(bench.dir.path().join("other"));
    let listen = NbdAddress::Unix(run_dir.nbd());
    let second = DaemonConfig {
        run_dir,
        listen,
        ..bench.config.clone()
    };
    let started = StorageDaemon::start(&second).await;
    assert!(
        matches!(started, Err(StorageError::Busy { .. })),
        "{started:?}"
    );
}

#[tokio::test]
async fn a_daemon_listens_on_the_network_and_says_when_the_port_is_taken() {
    let mut bench = Bench::with_image().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    bench.config.listen = NbdAddress::Inet(taken.local_addr().unwrap());
    let started = StorageDaemon::start(&bench.config).await;
    assert!(
        matches!(started, Err(StorageError::AddressInUse)),
        "{started:?}"
    );
    drop(taken);
    bench.start().await.stop().await.unwrap();
}

#[tokio::test]
async fn a_daemon_runs_as_its_own_user_on_its_own_file() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a process as another user");
        return;
    }
    let mut bench = Bench::new();
    let owner = Owner {
        uid: 64_001,
        gid: 64_001,
    };
    // The temporary folder is root's alone; its daemon must reach through it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(bench.dir.path(), open).unwrap();
    create_image(Path::new(IMG), &bench.config.image, MIB, Some(owner))
        .await
        .unwrap();
    bench
        .sidecar
        .create(uuid::Uuid::from_u128(1), 1, ReplicaState::InSync)
        .await
        .unwrap();
    bench.config.program.owner = Some(owner);
    let daemon = bench.start().await;
    let pid = daemon.process().id().pid;
    assert_eq!(
        std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(),
        owner.uid
    );
    bench.open(&daemon, 1).await.unwrap();
    assert!(bench.io(&name(1), "write -P 7 0 4k").await);
}
