//! What is paused when, and what goes on.

use std::time::Duration;

use undine_guard::served::Served;

use crate::support::{FakeVm, World, server, told_paused, until};

const BRIEFLY: Duration = Duration::from_millis(1);

/// A world whose guard holds its lease and knows its peers.
async fn settled(peer_count: u64, served: &[Served]) -> World {
    let mut world = World::new(peer_count).await;
    world.serves(served);
    world.start_guard();
    let control = world.control.clone();
    until("heard of thrice", || {
        control.heard.lock().unwrap().len() > 2
    })
    .await;
    world
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_pauses_and_goes_on_once_control_has_confirmed() {
    let dir = folder();
    let vm = FakeVm::start(dir.path(), "a", BRIEFLY);
    let local = FakeVm::start(dir.path(), "b", BRIEFLY);
    let local_served = Served {
        local_only: true,
        ..local.served(2, 7)
    };
    let mut world = settled(2, &[vm.served(1, 7), local_served]).await;
    world.owns(&[(1, 7), (2, 7)]);
    world.cut_off();
    let took = until("paused", || vm.state() == "paused").await;
    println!("paused {took:?} after the cut");
    assert!(took > Duration::from_millis(1_000), "{took:?}");
    assert!(took < Duration::from_millis(4_000), "{took:?}");
    assert_eq!(local.state(), "running");
    world.reconnect_control();
    until("running", || vm.state() == "running").await;
    assert_eq!(vm.said("cont"), 1);
    let control = world.control.clone();
    assert!(
        control
            .heard
            .lock()
            .unwrap()
            .iter()
            .any(|it| it.confirm && it.paused == [server(1)])
    );
    until("told that nothing is paused", || {
        told_paused(&control).is_empty()
    })
    .await;
    assert_eq!(local.said("stop"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_control_alone_pauses_nothing() {
    let dir = folder();
    let vm = FakeVm::start(dir.path(), "a", BRIEFLY);
    let mut world = settled(2, &[vm.served(1, 7)]).await;
    world.control_door.kill();
    // One of two peers is half of them.
    world.peers[0].kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((vm.state(), vm.said("stop")), ("running", 0));
    // Without the other one it would have been another matter.
    world.peers[1].kill();
    until("paused", || vm.state() == "paused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_a_dead_and_a_slow_qemu_hold_up_nobody() {
    let dir = folder();
    let frozen = FakeVm::start(dir.path(), "frozen", BRIEFLY);
    let slow = FakeVm::start(dir.path(), "slow", Duration::from_millis(300));
    let well = FakeVm::start(dir.path(), "well", BRIEFLY);
    let dead = Served {
        guard_socket: dir.path().join("nobody.sock"),
        ..well.served(3, 7)
    };
    let served = [
        frozen.served(1, 7),
        slow.served(2, 7),
        dead,
        well.served(4, 7),
    ];
    let mut world = settled(1, &served).await;
    world.owns(&[(1, 7), (2, 7), (3, 7), (4, 7)]);
    frozen.freeze(true);
    world.cut_off();
    until("paused", || well.state() == "paused").await;
    until("paused though slow", || slow.state() == "paused").await;
    assert_eq!(frozen.state(), "running");
    frozen.freeze(false);
    until("paused when it answered", || frozen.state() == "paused").await;
    // What somebody continues is stopped again.
    well.set("running");
    until("paused again", || well.state() == "paused").await;
    world.reconnect_control();
    let all = [frozen, slow, well];
    until("running", || all.iter().all(|it| it.state() == "running")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_stopped_or_what_lost_its_disk_is_not_continued() {
    let dir = folder();
    let by_agent = FakeVm::start(dir.path(), "a", BRIEFLY);
    let by_disk = FakeVm::start(dir.path(), "b", BRIEFLY);
    let later = FakeVm::start(dir.path(), "c", BRIEFLY);
    let served = [
        by_agent.served(1, 7),
        by_disk.served(2, 7),
        later.served(3, 7),
    ];
    let mut world = settled(1, &served).await;
    world.owns(&[(1, 7), (2, 7), (3, 7)]);
    by_agent.set("paused");
    by_disk.set("io-error");
    world.cut_off();
    until("paused", || later.state() == "paused").await;
    // Its disk fails while it stands still by the guard's word.
    later.set("io-error");
    world.reconnect_control();
    let control = world.control.clone();
    until("told that nothing is paused", || {
        later.said("query-status") > 1 && told_paused(&control).is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let all = [by_agent, by_disk, later];
    assert!(all.iter().all(|it| it.said("cont") == 0));
    assert_eq!(all.map(|it| it.state()), ["paused", "io-error", "io-error"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_epoch_has_changed_stays_paused_and_is_reported() {
    let dir = folder();
    let moved = FakeVm::start(dir.path(), "a", BRIEFLY);
    let kept = FakeVm::start(dir.path(), "b", BRIEFLY);
    let mut world = settled(1, &[moved.served(1, 7), kept.served(2, 7)]).await;
    world.owns(&[(1, 8), (2, 7)]);
    world.cut_off();
    let both = [moved.clone(), kept.clone()];
    until("paused", || both.iter().all(|it| it.state() == "paused")).await;
    world.reconnect_control();
    until("running", || kept.state() == "running").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!((moved.state(), moved.said("cont")), ("paused", 0));
    assert!(told_paused(&world.control).contains(&server(1)));
    // Its agent has ended it.
    world.serves(&[kept.served(2, 7)]);
    let control = world.control.clone();
    until("forgotten", || told_paused(&control).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_killed_while_isolated_is_followed_by_one_that_knows_what_was_paused() {
    let dir = folder();
    let paused = FakeVm::start(dir.path(), "a", BRIEFLY);
    let foreign = FakeVm::start(dir.path(), "b", BRIEFLY);
    let mut world = settled(1, &[paused.served(1, 7), foreign.served(2, 7)]).await;
    world.owns(&[(1, 7), (2, 7)]);
    foreign.set("paused");
    world.cut_off();
    until("paused", || paused.state() == "paused").await;
    world.kill_guard().await;
    // Nobody guards; somebody continues what was paused.
    paused.set("running");
    world.start_guard();
    let took = until("paused again", || paused.state() == "paused").await;
    // Its lease was over before it began.
    assert!(took < Duration::from_millis(1_900), "{took:?}");
    world.kill_guard().await;
    world.reconnect_control();
    world.start_guard();
    until("running", || paused.state() == "running").await;
    assert_eq!((foreign.state(), foreign.said("cont")), ("paused", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_dies_between_its_word_and_its_deed_leaves_a_running_server_alone() {
    let dir = folder();
    let vm = FakeVm::start(dir.path(), "a", BRIEFLY);
    let mut world = settled(1, &[vm.served(1, 7)]).await;
    world.owns(&[(1, 7)]);
    world.cut_off();
    until("paused", || vm.state() == "paused").await;
    world.kill_guard().await;
    vm.set("running");
    world.reconnect_control();
    world.start_guard();
    let control = world.control.clone();
    until("told that nothing is paused", || {
        let heard = control.heard.lock().unwrap();
        heard.iter().any(|it| it.confirm) && heard.last().is_some_and(|it| it.paused.is_empty())
    })
    .await;
    assert_eq!((vm.state(), vm.said("cont")), ("running", 0));
}
