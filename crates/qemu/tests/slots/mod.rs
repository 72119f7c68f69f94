//! A server's disk loses replicas and gets them back while its guest writes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};
use undine_qemu::command::Begin;
use undine_qemu::copy::{Copy, Progress};
use undine_qemu::files::RunDir;
use undine_qemu::psk::Psk;
use undine_qemu::relay::{Access, Relay};
use undine_qemu::storage::{Base, NbdAddress, StorageDaemon};
use undine_qemu::vm::{DataDisk, NbdChild, RunState, SlotContent, Vm, VmError};

use super::guest::Agent;
use super::{Host, Replica, ready};

mod scrub;

/// The second "node's" address.
fn other_node() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    free.local_addr().unwrap()
}

fn key(digit: &str) -> Psk {
    Psk::new(&digit.repeat(64)).unwrap()
}

/// A server whose disk is its own replica and one on another node.
struct Pair {
    host: Host,
    vm: Vm,
    agent: Agent,
    own: Replica,
    other: Replica,
}

async fn pair(key: Option<&Psk>) -> Option<Pair> {
    let host = Host::new()?;
    let own = host.replica("own").await;
    let other = host.remote("other", other_node(), key).await;
    let vm = Vm::spawn(&host.qemu(), &host.config("vm"), Begin::Boot)
        .await
        .unwrap();
    let mut agent = ready(&vm).await;
    let disk = DataDisk::full(vec![own.child().await, other.child().await]);
    vm.attach_data(&disk).await.unwrap();
    agent.ask_until("disks", "undine-data").await;
    Some(Pair {
        host,
        vm,
        agent,
        own,
        other,
    })
}

impl Pair {
    async fn acked(&mut self) -> u64 {
        self.agent.ask("acked").await.parse().unwrap()
    }

    /// The guest's writer gets acknowledgements, however slow a busy machine makes it.
    async fn goes_on(&mut self) {
        let before = self.acked().await;
        let until = Instant::now() + Duration::from_secs(30);
        while self.acked().await <= before {
            assert!(Instant::now() < until, "nothing more is acknowledged");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_state(&self, wanted: RunState) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.vm.state().await.unwrap() != wanted {
            assert!(Instant::now() < until, "{:?}", self.vm.state().await);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The other replica's daemon is ended; a fresh one is started on its file.
    async fn fresh_daemon(&mut self, incarnation: &str) {
        self.other.daemon.kill().await.unwrap();
        self.other.daemon = StorageDaemon::start(&self.other.config).await.unwrap();
        self.other.open(1, incarnation).await;
    }

    /// Brings the other replica back; tells how many bytes were copied, and the pause.
    async fn join(&mut self, base: Base) -> (u64, Duration) {
        let child = self.other.child().await;
        join(&self.host, &self.vm, &self.own, &child, 1, base).await
    }

    /// Ends the writer and everything else, and compares the two images.
    async fn are_equal(mut self) -> bool {
        self.agent.say("calm").await;
        self.agent.hear().await;
        self.vm.quit().await.unwrap();
        self.own.daemon.stop().await.unwrap();
        self.other.daemon.stop().await.unwrap();
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-f", "qcow2", "-F", "qcow2"]);
        compare
            .arg(&self.own.config.image)
            .arg(&self.other.config.image);
        let output = compare.output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        output.status.success()
    }
}

/// Copies to a replica under the writing guest and lets it into a slot.
async fn join(
    host: &Host,
    vm: &Vm,
    own: &Replica,
    child: &NbdChild,
    slot: usize,
    base: Base,
) -> (u64, Duration) {
    let run_dir = RunDir::new(host.dir.path().join("relay"));
    let program = host.program("qemu-storage-daemon", 64_101);
    let relay = Relay::start(&program, &run_dir, child, Access::Write)
        .await
        .unwrap();
    let progress = Arc::new(Progress::default());
    let mut copy = Copy::begin(&own.daemon, &relay, base, 0, progress.clone())
        .await
        .unwrap();
    copy.pass().await.unwrap();
    while copy.left().await.unwrap() > 1 << 20 {
        copy.pass().await.unwrap();
    }
    vm.prepare_in(slot, child).await.unwrap();
    let begin = Instant::now();
    vm.stop().await.unwrap();
    copy.last().await.unwrap();
    vm.swap_in(slot).await.unwrap();
    vm.cont().await.unwrap();
    let pause = begin.elapsed();
    relay.end().await.unwrap();
    own.daemon.end_passes().await.unwrap();
    assert_eq!(progress.copied(), progress.total());
    (progress.copied(), pause)
}

#[tokio::test]
async fn a_server_that_somebody_lets_run_during_the_last_pass_is_found_out() {
    let Some(mut pair) = pair(None).await else {
        return;
    };
    let third = pair.host.remote("third", other_node(), None).await;
    let run_dir = RunDir::new(pair.host.dir.path().join("relay"));
    let program = pair.host.program("qemu-storage-daemon", 64_101);
    let child = third.child().await;
    let relay = Relay::start(&program, &run_dir, &child, Access::Write)
        .await
        .unwrap();
    let progress = Arc::new(Progress::default());
    let mut copy = Copy::begin(&pair.own.daemon, &relay, Base::Everything, 0, progress)
        .await
        .unwrap();
    copy.pass().await.unwrap();
    pair.vm.stop().await.unwrap();
    copy.last().await.unwrap();
    assert_eq!(copy.left().await.unwrap(), 0);
    pair.vm.cont().await.unwrap();
    assert_eq!(pair.agent.ask("write one").await, "written");
    assert!(copy.left().await.unwrap() > 0);
    relay.end().await.unwrap();
}

#[tokio::test]
async fn three_slots_fill_up_lose_two_replicas_at_once_and_go_on_with_one() {
    use SlotContent::{Placeholder, Replica};
    let Some(host) = Host::new() else { return };
    let own = host.replica("own").await;
    let secret = key("c");
    let one = host.remote("one", other_node(), Some(&secret)).await;
    let two = host.remote("two", other_node(), None).await;
    let vm = Vm::spawn(&host.qemu(), &host.config("vm"), Begin::Boot)
        .await
        .unwrap();
    let mut agent = ready(&vm).await;
    let disk = DataDisk {
        replicas: vec![own.child().await, one.child().await],
        slots: 3,
    };
    vm.attach_data(&disk).await.unwrap();
    agent.ask_until("disks", "undine-data").await;
    assert_eq!(vm.slots().await.unwrap(), [Replica, Replica, Placeholder]);
    assert_eq!(agent.ask("write early").await, "written");
    let child = two.child().await;
    join(&host, &vm, &own, &child, 2, Base::Everything).await;
    assert_eq!(vm.slots().await.unwrap(), [Replica; 3]);
    assert_eq!(agent.ask("write late").await, "written");
    one.daemon.kill().await.unwrap();
    two.daemon.kill().await.unwrap();
    agent.say("write last").await;
    let until = Instant::now() + Duration::from_secs(20);
    while vm.state().await.unwrap() != RunState::IoError {
        assert!(Instant::now() < until);
        sleep(Duration::from_millis(10)).await;
    }
    // One of them out is not enough.
    vm.swap_out(1).await.unwrap();
    vm.cont().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(vm.state().await.unwrap(), RunState::IoError);
    vm.swap_out(2).await.unwrap();
    vm.cont().await.unwrap();
    assert_eq!(agent.hear().await, "written");
    assert_eq!(agent.ask("read").await, "last");
    let slots = vm.slots().await.unwrap();
    assert_eq!(slots, [Replica, Placeholder, Placeholder]);
}

#[tokio::test]
async fn a_killed_replica_leaves_and_comes_back_by_its_bitmap_while_the_guest_writes() {
    let secret = key("a");
    let Some(mut pair) = pair(Some(&secret)).await else {
        return;
    };
    pair.agent.ask("storm").await;
    sleep(Duration::from_secs(1)).await;
    // What both have flushed needs no copying any more.
    pair.own.daemon.rotate_begin().await.unwrap();
    pair.vm.settle().await.unwrap();
    pair.own.daemon.rotate_end().await.unwrap();
    assert!(pair.own.daemon.recorded_bytes().await.unwrap() <= 1 << 20);

    pair.other.daemon.kill().await.unwrap();
    pair.until_state(RunState::IoError).await;
    assert!(pair.vm.settle().await.is_err());
    let begin = Instant::now();
    pair.vm.swap_out(1).await.unwrap();
    pair.vm.swap_out(1).await.unwrap();
    pair.vm.cont().await.unwrap();
    println!("degraded in {:?}", begin.elapsed());
    let slots = pair.vm.slots().await.unwrap();
    assert_eq!(slots, [SlotContent::Replica, SlotContent::Placeholder]);
    pair.goes_on().await;

    pair.fresh_daemon("b").await;
    let (copied, pause) = pair.join(Base::Always).await;
    println!("bitmap: {copied} bytes copied, pause {pause:?}");
    assert!(copied > 0 && copied < 32 << 20);
    let slots = pair.vm.slots().await.unwrap();
    assert_eq!(slots, [SlotContent::Replica; 2]);
    pair.goes_on().await;
    pair.vm.settle().await.unwrap();
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn an_empty_replica_gets_everything_and_a_bitmap_alone_would_not_do() {
    let Some(mut pair) = pair(None).await else {
        return;
    };
    pair.agent.ask("storm").await;
    sleep(Duration::from_secs(1)).await;
    pair.own.daemon.rotate_begin().await.unwrap();
    pair.vm.settle().await.unwrap();
    pair.own.daemon.rotate_end().await.unwrap();
    pair.other.daemon.kill().await.unwrap();
    pair.until_state(RunState::IoError).await;
    pair.vm.swap_out(1).await.unwrap();
    pair.vm.cont().await.unwrap();
    // Another disk in its place: garbage where the server has zeros, nothing where it has data.
    let image = &pair.other.config.image;
    std::fs::remove_file(image).unwrap();
    undine_qemu::storage::create_image(
        Path::new("qemu-img"),
        image,
        64 << 20,
        pair.other.config.program.owner,
    )
    .await
    .unwrap();
    let garbage = ["-f", "qcow2", "-c", "write -P 9 60M 1M"];
    let filled = Command::new("qemu-io").args(garbage).arg(image).output();
    assert!(filled.unwrap().status.success());
    pair.fresh_daemon("b").await;
    let (copied, pause) = pair.join(Base::Everything).await;
    println!("full: {copied} bytes copied, pause {pause:?}");
    assert!(copied >= 64 << 20);
    sleep(Duration::from_secs(1)).await;
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_frozen_replica_is_released_by_a_yank_even_while_qemu_hangs_on_it() {
    let Some(mut pair) = pair(Some(&key("a"))).await else {
        return;
    };
    pair.agent.ask("storm").await;
    sleep(Duration::from_secs(1)).await;
    let pid = pair.other.daemon.process().id().pid;
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    sleep(Duration::from_millis(500)).await;
    // Somebody stops the VM, as the guard would: QEMU waits for the write and answers nobody.
    let stopping = pair.vm.clone();
    let stop = tokio::spawn(async move { stopping.stop().await });
    sleep(Duration::from_millis(300)).await;
    assert!(!stop.is_finished());
    pair.vm.yank(1).await.unwrap();
    timeout(Duration::from_secs(5), stop)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    pair.vm.swap_out(1).await.unwrap();
    pair.vm.cont().await.unwrap();
    pair.goes_on().await;
    kill_process(pid, Signal::CONT).unwrap();
}

#[tokio::test]
async fn only_who_has_the_key_of_this_opening_reaches_a_replica() {
    let Some(mut pair) = pair(Some(&key("a"))).await else {
        return;
    };
    let right = pair.other.child().await;
    for wrong in [Some(key("b")), None] {
        let child = NbdChild {
            key: wrong,
            ..right.clone()
        };
        let refused = pair.vm.prepare_in(2, &child).await;
        assert!(matches!(refused, Err(VmError::Qmp(_))), "{refused:?}");
    }
    assert!(!pair.vm.run_dir().psk().exists());
    pair.vm.prepare_in(2, &right).await.unwrap();
    pair.vm.forget_replica(2).await.unwrap();
    // A restarted daemon, same file, same port, same key: its name is another one.
    pair.fresh_daemon("b").await;
    let old = pair.vm.prepare_in(2, &right).await;
    assert!(matches!(old, Err(VmError::Qmp(_))), "{old:?}");
    // The server never gets back to it by itself.
    pair.agent.say("write lost").await;
    pair.until_state(RunState::IoError).await;
    pair.vm.cont().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pair.vm.state().await.unwrap(), RunState::IoError);
}

#[tokio::test]
async fn a_remote_owner_is_fenced_by_a_new_epoch_with_a_new_key_on_a_local_socket() {
    let Some(mut pair) = pair(Some(&key("a"))).await else {
        return;
    };
    assert_eq!(pair.agent.ask("write one").await, "written");
    // Its node becomes the owner: the same daemon now serves a local socket, without encryption.
    let local = NbdAddress::Unix(pair.other.daemon.run_dir().nbd());
    pair.other
        .daemon
        .listen_elsewhere(&local, None)
        .await
        .unwrap();
    pair.other
        .daemon
        .listen_elsewhere(&local, None)
        .await
        .unwrap();
    pair.other.open(2, "a").await;
    pair.agent.say("write lost").await;
    pair.until_state(RunState::IoError).await;
    let old = NbdChild {
        address: pair.other.address.clone(),
        key: pair.other.key.clone(),
        ..pair.other.child().await
    };
    assert!(pair.vm.prepare_in(2, &old).await.is_err());
    let new = NbdChild {
        address: local,
        key: None,
        ..old
    };
    pair.vm.prepare_in(2, &new).await.unwrap();
}
