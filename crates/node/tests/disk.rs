//! A server's disk on two "nodes", on real QEMU: replicas fail, leave when control has committed
//! that, and come back while the guest writes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

#[path = "../../qemu/tests/guest/mod.rs"]
mod guest;
mod two_nodes;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use two_nodes::{Pair, other_id, own_id, signal, stranger_id};
use undine_api::node::{JoinMethod, JoinState, ReplicaState, SlotState};
use undine_qemu::vm::RunState;

#[tokio::test]
async fn a_killed_replica_leaves_by_control_s_word_and_comes_back_by_its_bitmap() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    assert!(!pair.is_local_only());
    pair.storm().await;
    pair.kill_other().await;
    pair.until_state(RunState::IoError).await;
    pair.until_slot(1, SlotState::Failed).await;
    // Control has not committed anything yet, or something older: nothing goes on.
    pair.slots(5, &[own_id(), other_id()]).await.unwrap();
    assert_eq!(
        pair.slots(4, &[own_id()]).await.unwrap_err(),
        "older-version"
    );
    assert_eq!(pair.vm.state().await.unwrap(), RunState::IoError);
    let begin = Instant::now();
    pair.slots(6, &[own_id()]).await.unwrap();
    println!("degraded in {:?}", begin.elapsed());
    pair.slots(6, &[own_id()]).await.unwrap();
    pair.until_slot(1, SlotState::Empty).await;
    assert!(pair.is_local_only());
    pair.is_writing().await;

    // Its daemon ended: it cannot come back silently …
    let silent = pair.open_other(false).await;
    assert_eq!((silent.state, silent.export), (ReplicaState::Stale, None));
    // … but it is resynced.
    let target = pair.resync_other().await;
    let begin = Instant::now();
    let joined = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    println!("joined in {:?}: {joined:?}", begin.elapsed());
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    assert!(joined.pause_ms.unwrap() < 1000);
    pair.until_slot(1, SlotState::Live).await;
    assert!(!pair.is_local_only());
    let again = pair.join(&target, JoinMethod::Bitmap, 0).await.unwrap();
    assert_eq!(again, joined);
    assert_eq!(pair.other_status().await.state, ReplicaState::Syncing);
    let counts = pair.open_other(false).await;
    assert_eq!(counts.state, ReplicaState::Open);
    assert_eq!(counts.export.as_ref(), Some(&target.export));
    pair.is_writing().await;
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_frozen_replica_is_noticed_without_a_write_and_released() {
    let Some(mut pair) = Pair::start(false).await else {
        return;
    };
    let begin = Instant::now();
    signal(pair.other_pid().await, rustix::process::Signal::STOP);
    pair.until_slot(1, SlotState::Failed).await;
    println!("noticed in {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5));
    // The guest was idle and runs; its next write stops it instead of hanging.
    assert_eq!(pair.vm.state().await.unwrap(), RunState::Running);
    pair.agent.say("write one").await;
    pair.until_state(RunState::IoError).await;
    // It thaws: nothing changes before control has committed.
    signal(pair.other_pid().await, rustix::process::Signal::CONT);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.vm.state().await.unwrap(), RunState::IoError);
    pair.slots(6, &[own_id()]).await.unwrap();
    assert_eq!(pair.agent.hear().await, "written");
    let target = pair.resync_other().await;
    let joined = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn an_agent_that_dies_in_the_middle_of_a_join_leaves_nothing_that_a_new_one_cannot_end() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    pair.storm().await;
    pair.lose_other().await;
    let target = pair.resync_other().await;
    pair.fill().await;
    let slow = pair.join(&target, JoinMethod::Full, 1 << 20).await.unwrap();
    assert_eq!(slow.state, JoinState::Copying);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(pair.slot(1).state, SlotState::Joining);
    pair.restart_agent();
    pair.until_slot(1, SlotState::Empty).await;
    // Late writes of the interrupted copy may still land there: it must be opened anew.
    let spent = pair.join(&target, JoinMethod::Full, 0).await.unwrap();
    assert_eq!(spent.state, JoinState::Failed);
    let target = pair.resync_other().await;
    let joined = pair.joined(&target, JoinMethod::Full, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    // Once more, now without a trace in the new agent's memory.
    pair.restart_agent();
    pair.until_slot(1, SlotState::Live).await;
    let told = pair.join(&target, JoinMethod::Full, 0).await.unwrap();
    assert_eq!(told.state, JoinState::Joined);
    pair.is_writing().await;
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_stop_of_a_dead_agent_is_ended_and_anybody_else_s_is_not() {
    let Some(mut pair) = Pair::start(false).await else {
        return;
    };
    // The guard's: neither a new agent nor control's word about replicas ends it.
    pair.vm.stop().await.unwrap();
    pair.restart_agent();
    pair.slots(6, &[own_id(), other_id()]).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pair.vm.state().await.unwrap(), RunState::Paused);
    // An agent's, which died before it could let the server go on.
    pair.write_down_a_hold();
    pair.restart_agent();
    pair.until_state(RunState::Running).await;
}

#[tokio::test]
async fn a_join_is_cancelled_refused_where_it_would_lose_writes_and_limited() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    let target = pair.target(&pair.other_status().await);
    let taken = pair.join(&target, JoinMethod::Full, 0).await;
    assert_eq!(taken.unwrap().state, JoinState::Joined);
    pair.lose_other().await;
    let mut target = pair.resync_other().await;
    let wrong_epoch = pair.join_at(7, &target, JoinMethod::Full, 0).await;
    assert_eq!(wrong_epoch.unwrap_err(), "other-epoch");
    // A replica that was never equal to this server's: its bitmap says nothing about it.
    let known = std::mem::replace(&mut target.replica, stranger_id());
    let unknown = pair.join(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(unknown.unwrap_err(), "not-recorded");
    target.replica = known;
    pair.fill().await;
    let begin = Instant::now();
    pair.join(&target, JoinMethod::Bitmap, 4 << 20)
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    let status = pair
        .join(&target, JoinMethod::Bitmap, 4 << 20)
        .await
        .unwrap();
    // The next instance of control knows the replica, not its opening: it asks, and starts nothing.
    let mut asking = target.clone();
    asking.address = None;
    asking.export = "unknown".into();
    let asked = pair.join(&asking, JoinMethod::Bitmap, 0).await.unwrap();
    assert_eq!(asked.state, JoinState::Copying);
    let most = 4 * begin.elapsed().as_millis() as u64 * 1049 + (3 << 20);
    assert!(
        status.copied.0 > 0 && status.copied.0 <= most,
        "{status:?} {most}"
    );
    pair.cancel().await.unwrap();
    pair.cancel().await.unwrap();
    assert_eq!(pair.slot(1).state, SlotState::Empty);
    let spent = pair.join(&target, JoinMethod::Bitmap, 0).await.unwrap();
    assert_eq!(spent.state, JoinState::Failed, "{spent:?}");
    // The key of another opening opens nothing, and the server goes on.
    let asked = pair.join(&asking, JoinMethod::Bitmap, 0).await.unwrap();
    assert_eq!(asked.state, JoinState::Failed);
    let old = target;
    let mut target = pair.resync_other().await;
    target.key = old.key;
    let refused = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(refused.state, JoinState::Failed, "{refused:?}");
    println!("wrong key: {:?}", refused.error);
    assert_eq!(pair.vm.state().await.unwrap(), RunState::Running);
    let target = pair.resync_other().await;
    let joined = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_target_that_dies_or_freezes_never_stops_the_server() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    pair.storm().await;
    pair.lose_other().await;
    for how in [rustix::process::Signal::STOP, rustix::process::Signal::KILL] {
        let target = pair.resync_other().await;
        pair.fill().await;
        pair.join(&target, JoinMethod::Full, 4 << 20).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        signal(pair.other_pid().await, how);
        for _ in 0..3 {
            pair.is_writing().await;
        }
        let ended = pair.joined(&target, JoinMethod::Full, 4 << 20).await;
        assert_eq!(ended.state, JoinState::Failed, "{ended:?}");
        println!("{how:?}: {:?}", ended.error);
        pair.is_writing().await;
    }
}

#[tokio::test]
async fn another_node_takes_over_and_the_old_owner_is_cut_off() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    assert_eq!(pair.agent.ask("write one").await, "written");
    let before = pair.other_status().await;
    let opened = pair.open_other_as_owner(4).await;
    assert_eq!((opened.state, opened.epoch), (ReplicaState::Open, 4));
    assert!(opened.address.is_none() && opened.key.is_none());
    assert_ne!(opened.export, before.export);
    pair.agent.say("write lost").await;
    pair.until_state(RunState::IoError).await;
    pair.until_slot(1, SlotState::Failed).await;
    // The old epoch is over there for ever, whatever is wished.
    for resync in [false, true] {
        assert_eq!(
            pair.try_open_other(resync).await.unwrap_err(),
            "stale-epoch"
        );
    }
    // The next owner is elsewhere again: a key of its own.
    let back = pair.open_other_remote_at(5).await;
    assert!(back.address.is_some() && back.key.is_some());
    assert_ne!(back.key, pair.first_key);
}

#[tokio::test]
async fn a_full_disk_counts_as_losing_that_replica_and_no_other() {
    let Some(mut pair) = Pair::start_with(true, Some(6)).await else {
        return;
    };
    assert_eq!(pair.agent.ask("write one").await, "written");
    pair.agent.say("fill").await;
    pair.until_state(RunState::IoError).await;
    pair.until_slot(1, SlotState::Failed).await;
    let error = pair.slot(1).error.unwrap();
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(pair.slot(0).state, SlotState::Live);
    pair.slots(6, &[own_id()]).await.unwrap();
    assert_eq!(pair.agent.hear().await, "filled");
    assert_eq!(pair.agent.ask("read").await, "one");
}

#[tokio::test]
async fn the_bitmap_forgets_what_all_replicas_have_flushed_and_nothing_while_one_is_away() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    pair.fill().await;
    assert!(pair.recorded().await >= 12 << 20);
    pair.rotate_every(Duration::from_millis(300));
    let until = Instant::now() + Duration::from_secs(20);
    while pair.recorded().await > 0 {
        assert!(Instant::now() < until, "nothing was forgotten");
        sleep(Duration::from_millis(100)).await;
    }
    pair.storm().await;
    pair.lose_other().await;
    pair.fill().await;
    sleep(Duration::from_secs(1)).await;
    assert!(pair.recorded().await >= 12 << 20);
    let target = pair.resync_other().await;
    let joined = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    assert!(joined.copied.0 < 40 << 20, "{joined:?}");
    sleep(Duration::from_secs(1)).await;
    pair.is_writing().await;
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn the_user_of_a_vm_stays_as_long_as_a_copy_that_lets_it_in() {
    let Some(mut pair) = Pair::start(false).await else {
        return;
    };
    let user = pair.vm_user();
    pair.forget_vm();
    assert_eq!(pair.vm_user(), user, "the next start finds the copy open");
    pair.remove_own().await;
    assert_ne!(pair.vm_user(), user, "another server's, one day");
}

#[tokio::test]
async fn a_higher_epoch_that_was_written_down_and_not_served_is_served_when_asked_again() {
    let Some(pair) = Pair::start(false).await else {
        return;
    };
    pair.break_off_raising_other(4).await;
    let again = pair.open_other_as_owner(4).await;
    assert_eq!(again.state, ReplicaState::Open);
    let export = again.export.unwrap();
    assert!(export.contains("-e4-"), "{export}");
}
