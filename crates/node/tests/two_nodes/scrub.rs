//! Copies are compared while the server writes.

use std::time::Duration;

use tokio::time::sleep;
use undine_api::node::{JoinMethod, JoinState, ScrubState, SlotState};
use undine_qemu::vm::RunState;

use super::{Pair, other_id, own_id, stranger_id};

/// Filled by the guest, and not written by its storm for a long time after.
const STILL: u64 = (10_240 + 19) * 4096;

#[tokio::test]
async fn a_copy_that_differs_leaves_unnoticed_by_the_guest_and_comes_back_by_a_full_copy_alone() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    pair.fill().await;
    pair.storm().await;
    let equal = pair.scrubbed(1, 0).await;
    assert_eq!(equal.state, ScrubState::Equal, "{equal:?}");
    assert!(equal.compared.0 >= 12 << 20 && equal.compared == equal.total);

    pair.flip_other(STILL + 5);
    let differs = pair.scrubbed(2, 0).await;
    println!("{differs:?}");
    assert_eq!(differs.state, ScrubState::Differs, "{differs:?}");
    let said = differs.error.clone().unwrap();
    assert!(said.contains(&format!("byte {STILL}")), "{said}");
    assert_eq!(pair.scrubbed(2, 0).await, differs);
    assert!(!pair.has_scrub_relay());
    let slot = pair.slot(1);
    assert_eq!((slot.state, slot.error), (SlotState::Failed, Some(said)));
    // It goes on taking writes until control has committed that it does not count.
    pair.is_writing().await;
    assert_eq!(pair.vm.state().await.unwrap(), RunState::Running);
    // A new agent still knows it.
    pair.restart_agent();
    pair.until_slot(1, SlotState::Failed).await;
    assert_eq!(
        pair.scrub(other_id(), 3, 0).await.unwrap_err(),
        "not-in-a-slot"
    );
    pair.slots(6, &[own_id()]).await.unwrap();
    assert_eq!(pair.vm.state().await.unwrap(), RunState::Running);
    pair.until_slot(1, SlotState::Empty).await;
    pair.is_writing().await;

    let target = pair.resync_other().await;
    let by_bitmap = pair.join(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(by_bitmap.unwrap_err(), "not-recorded");
    let joined = pair.joined(&target, JoinMethod::Full, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    pair.is_writing().await;
    let equal = pair.scrubbed(4, 0).await;
    assert_eq!(equal.state, ScrubState::Equal, "{equal:?}");
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_comparison_ends_with_the_agent_the_replica_or_control_s_word_and_accuses_nobody() {
    let Some(mut pair) = Pair::start(false).await else {
        return;
    };
    const SLOW: u64 = 1 << 20;
    pair.fill().await;
    assert_eq!(
        pair.scrub(own_id(), 1, 0).await.unwrap_err(),
        "not-in-a-slot"
    );
    assert_eq!(
        pair.scrub(stranger_id(), 1, 0).await.unwrap_err(),
        "not-in-a-slot"
    );
    let begun = pair.scrub(other_id(), 1, SLOW).await.unwrap();
    assert_eq!(begun.state, ScrubState::Comparing);
    sleep(Duration::from_secs(3)).await;
    let going = pair.scrub(other_id(), 1, SLOW).await.unwrap();
    assert_eq!(going.state, ScrubState::Comparing);
    assert!(
        going.compared.0 > 0 && going.compared.0 <= 4 << 20,
        "{going:?}"
    );

    // The agent dies; its successor knows of nothing, and begins anew when asked.
    pair.restart_agent();
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while pair.has_scrub_relay() {
        assert!(tokio::time::Instant::now() < until);
        sleep(Duration::from_millis(50)).await;
    }
    let begun = pair.scrub(other_id(), 1, SLOW).await.unwrap();
    assert_eq!(begun.state, ScrubState::Comparing);

    // Control cancels it, and that of a replica of which there is none.
    pair.end_scrub().await.unwrap();
    pair.end_scrub().await.unwrap();
    assert!(!pair.has_scrub_relay());
    let ended = pair.scrub(other_id(), 1, SLOW).await.unwrap();
    assert_eq!(ended.state, ScrubState::Failed);

    // The replica is lost in the middle.
    pair.scrub(other_id(), 2, SLOW).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    pair.lose_other().await;
    let ended = pair.scrubbed(2, SLOW).await;
    assert_eq!(ended.state, ScrubState::Failed, "{ended:?}");
    assert!(!pair.has_scrub_relay());
    // What it lacks is still known.
    let target = pair.resync_other().await;
    let joined = pair.joined(&target, JoinMethod::Bitmap, 0).await;
    assert_eq!(joined.state, JoinState::Joined, "{joined:?}");
    assert!(pair.are_equal().await);
}

#[tokio::test]
async fn a_copy_that_differs_and_then_freezes_stops_nobody_for_long() {
    let Some(mut pair) = Pair::start(true).await else {
        return;
    };
    pair.fill().await;
    pair.flip_other(STILL);
    let differs = pair.scrubbed(1, 0).await;
    assert_eq!(differs.state, ScrubState::Differs, "{differs:?}");
    pair.storm().await;
    super::signal(pair.other_pid().await, rustix::process::Signal::STOP);
    // Released by its probe, as any frozen one: the server stops instead of hanging, and goes on.
    pair.until_state(RunState::IoError).await;
    pair.slots(6, &[own_id()]).await.unwrap();
    pair.until_slot(1, SlotState::Empty).await;
    pair.is_writing().await;
    super::signal(pair.other_pid().await, rustix::process::Signal::CONT);
}
