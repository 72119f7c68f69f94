//! Against a real storage daemon.

use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::*;

const MIB: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// A daemon that exports a fresh 8 MiB image as `disk`, with a bitmap `b` from the start.
async fn daemon(dir: &Path) -> Child {
    let image = dir.join("i.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]).arg(&image);
    assert!(create.arg("8M").status().await.unwrap().success());
    let mut bitmap = Command::new("qemu-img");
    bitmap.args(["bitmap", "--add"]).arg(&image).arg("b");
    assert!(bitmap.status().await.unwrap().success());
    let socket = dir.join("nbd.sock");
    let mut program = Command::new("qemu-storage-daemon");
    program.arg("--blockdev").arg(format!(
        "qcow2,node-name=i,file.driver=file,file.filename={}",
        image.display()
    ));
    program
        .arg("--nbd-server")
        .arg(format!("addr.type=unix,addr.path={}", socket.display()));
    program.args([
        "--export",
        "nbd,id=e,node-name=i,name=disk,writable=on,bitmaps.0=b",
    ]);
    let child = program
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = NbdAddress::Unix(socket);
    while greets(&address, DEADLINE).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    child
}

async fn client(dir: &Path, context: Option<&str>) -> io::Result<Client> {
    Client::connect(&dir.join("nbd.sock"), "disk", context, DEADLINE).await
}

#[tokio::test]
async fn what_was_written_is_read_and_told_by_its_bitmap() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = daemon(dir.path()).await;
    let mut client = client(dir.path(), Some("qemu:dirty-bitmap:b"))
        .await
        .unwrap();
    assert_eq!(client.size(), 8 * MIB);
    let data = vec![7; 128 << 10];
    client.write(MIB, &data).await.unwrap();
    client.zero(4 * MIB, 64 << 10).await.unwrap();
    client.flush().await.unwrap();
    let mut read = vec![1; 256 << 10];
    client.read(MIB, &mut read).await.unwrap();
    assert_eq!(read[..data.len()], data);
    assert!(read[data.len()..].iter().all(|byte| *byte == 0));
    let written: Vec<_> = client.extents().await.unwrap();
    let written = written.iter().filter(|extent| extent.flags == 1);
    let written: Vec<_> = written
        .map(|extent| (extent.offset, extent.length))
        .collect();
    assert_eq!(written, [(MIB, 128 << 10), (4 * MIB, 64 << 10)]);
}

#[tokio::test]
async fn what_is_in_use_is_told_from_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = daemon(dir.path()).await;
    let mut client = client(dir.path(), Some("base:allocation")).await.unwrap();
    client.write(2 * MIB, &[7; 64 << 10]).await.unwrap();
    let extents = client.extents().await.unwrap();
    let used: Vec<_> = extents
        .iter()
        .filter(|extent| extent.flags & 2 == 0)
        .map(|extent| (extent.offset, extent.length))
        .collect();
    assert_eq!(used, [(2 * MIB, 64 << 10)]);
    assert_eq!(
        extents.iter().map(|extent| extent.length).sum::<u64>(),
        8 * MIB
    );
}

#[tokio::test]
async fn an_error_is_an_error_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = daemon(dir.path()).await;
    let mut client = client(dir.path(), None).await.unwrap();
    let outside = client.write(8 * MIB, &[1; 512]).await.unwrap_err();
    assert_eq!(outside.kind(), io::ErrorKind::InvalidInput, "{outside:?}");
    let mut buffer = [0; 512];
    assert!(client.read(8 * MIB, &mut buffer).await.is_err());
    client.read(0, &mut buffer).await.unwrap();
}

#[tokio::test]
async fn an_unknown_export_or_bitmap_is_refused_with_the_server_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = daemon(dir.path()).await;
    let socket = dir.path().join("nbd.sock");
    let other = Client::connect(&socket, "other", None, DEADLINE).await;
    let words = other.unwrap_err().to_string();
    assert!(words.contains("other"), "{words}");
    let unknown = client(dir.path(), Some("qemu:dirty-bitmap:c")).await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_frozen_server_is_an_error_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(dir.path()).await;
    let mut client = client(dir.path(), None).await.unwrap();
    client.deadline = Duration::from_millis(300);
    let pid = rustix::process::Pid::from_raw(daemon.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let error = client.flush().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let address = NbdAddress::Unix(dir.path().join("nbd.sock"));
    let silent = greets(&address, Duration::from_millis(300)).await;
    assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
