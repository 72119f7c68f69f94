//! A real QEMU is paused and continued.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use undine_guard::qmp::{Monitor, RunState};
use undine_guard::served::Served;

use crate::support::{World, server, until};

const PATIENCE: Duration = Duration::from_secs(20);

struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Firmware without a disk is enough of a guest; none where QEMU is not installed.
fn start(socket: &Path) -> Option<Qemu> {
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let child = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35,accel=tcg", "-m", "32", "-nodefaults"])
        .args(["-display", "none", "-qmp", &monitor])
        .stdin(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Qemu(child)),
        Err(error) => {
            println!("skipped: no qemu-system-x86_64: {error}");
            None
        }
    }
}

async fn state(socket: &Path) -> RunState {
    let look = async {
        let mut monitor = Monitor::open(socket).await.unwrap();
        monitor.state().await.unwrap()
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

/// A monitor serves one client at a time: looking must not keep the guard out for long.
async fn until_state(socket: &Path, wanted: &RunState) {
    for _ in 0..100 {
        if state(socket).await == *wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{:?}, not {wanted:?}", state(socket).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_qemu_is_paused_when_cut_off_and_continued_when_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("guard.sock");
    let Some(qemu) = start(&socket) else { return };
    until("listening", || socket.exists()).await;
    until_state(&socket, &RunState::Running).await;
    let monitor = tokio::time::timeout(PATIENCE, Monitor::open(&socket)).await;
    let process = monitor.unwrap().unwrap().process();
    assert_eq!(u32::try_from(process).unwrap(), qemu.0.id());
    let mut world = World::new(1).await;
    world.serves(&[Served {
        server: server(1),
        epoch: 7,
        guard_socket: socket.clone(),
        local_only: false,
    }]);
    world.owns(&[(1, 7)]);
    world.start_guard();
    let control = world.control.clone();
    until("heard of", || control.heard.lock().unwrap().len() > 2).await;
    world.cut_off();
    until_state(&socket, &RunState::Paused).await;
    world.reconnect_control();
    until_state(&socket, &RunState::Running).await;
}
