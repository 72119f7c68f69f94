//! What a guard decides, on a clock of the test's own.

use super::*;
use crate::testing::{node, server};
use proptest::prelude::*;

fn here(local_only: bool) -> [Running; 1] {
    [Running {
        server: server(1),
        epoch: 4,
        local_only,
    }]
}

fn guard() -> Guard {
    let mut guard = Guard::new(&Policy::KVM, 10_000);
    guard.peers([node(2), node(3), node(4)]);
    let asked = guard.ask(10_000);
    guard.answered(asked.number, 2_000, None);
    guard
}

fn confirmed(guard: &mut Guard, now_ms: u64, owns: &[(ServerId, u64)]) {
    let asked = guard.ask(now_ms);
    guard.answered(asked.number, 2_000, Some(owns));
}

#[test]
fn a_lease_counts_from_the_sending_of_its_request() {
    let mut lease = Lease::default();
    assert_eq!(lease.state(0), State::Unknown);
    let request = lease.ask(10_000);
    assert_eq!((request.number, request.last_answered), (1, 0));
    assert_eq!(lease.answered(1, 2_000), Some(10_000));
    assert_eq!(lease.state(11_999), State::Held);
    assert_eq!(lease.state(12_000), State::Lapsed);
    assert_eq!(lease.ask(12_100).last_answered, 1);
}

#[test]
fn late_and_foreign_answers_count_for_nothing() {
    let mut lease = Lease::default();
    lease.ask(0);
    lease.ask(500);
    assert_eq!(lease.answered(2, 2_000), Some(500));
    assert_eq!(lease.answered(1, 2_000), None);
    assert_eq!(lease.answered(77, 2_000), None);
    assert_eq!(lease.until_ms(), Some(2_500));
}

#[test]
fn cut_off_from_all_it_pauses_when_the_lease_is_over_and_no_sooner() {
    let mut guard = guard();
    assert!(guard.orders(11_999, &here(false)).is_empty());
    assert_eq!(
        guard.orders(12_000, &here(false)),
        [Order::Pause(server(1))]
    );
    // Whoever lets it go on meanwhile is answered the same way.
    assert_eq!(
        guard.orders(12_500, &here(false)),
        [Order::Pause(server(1))]
    );
}

#[test]
fn a_server_that_nobody_can_take_over_is_never_paused() {
    let mut guard = guard();
    assert!(guard.orders(99_000, &here(true)).is_empty());
}

#[test]
fn half_of_the_peers_are_enough_to_go_on_without_control() {
    let mut guard = guard();
    guard.reached(node(2), 11_500);
    assert!(guard.is_isolated(12_000));
    guard.reached(node(3), 11_500);
    assert!(!guard.is_isolated(12_000) && guard.is_isolated(13_500));
}

#[test]
fn it_goes_on_only_when_confirmed_and_only_while_that_lease_lasts() {
    let mut guard = guard();
    guard.orders(12_000, &here(false));
    let asked = guard.ask(13_000);
    guard.answered(asked.number, 2_000, None);
    assert!(guard.orders(13_010, &here(false)).is_empty() && guard.must_confirm());
    confirmed(&mut guard, 13_500, &[(server(1), 4)]);
    assert_eq!(
        guard.orders(13_600, &here(false)),
        [Order::Resume(server(1))]
    );
    // It was not carried out, and the lease that came with the word is over.
    guard.reached(node(2), 15_400);
    guard.reached(node(3), 15_400);
    assert!(guard.orders(15_500, &here(false)).is_empty());
    confirmed(&mut guard, 15_600, &[(server(1), 4)]);
    assert_eq!(
        guard.orders(15_700, &here(false)),
        [Order::Resume(server(1))]
    );
    guard.resumed(server(1));
    assert!(guard.orders(15_800, &here(false)).is_empty());
    assert_eq!(guard.paused().count(), 0);
}

#[test]
fn what_is_owned_otherwise_never_goes_on() {
    for owns in [vec![], vec![(server(1), 5)]] {
        let mut guard = guard();
        guard.orders(12_000, &here(false));
        confirmed(&mut guard, 13_000, &owns);
        assert_eq!(guard.orders(13_010, &here(false)), [Order::Stop(server(1))]);
        // A late word of the time before changes nothing.
        confirmed(&mut guard, 13_100, &[(server(1), 4)]);
        assert_eq!(guard.orders(13_110, &here(false)), [Order::Stop(server(1))]);
        assert!(guard.orders(13_200, &[]).is_empty() && !guard.must_confirm());
    }
}

#[test]
fn a_guard_that_starts_again_knows_what_it_had_paused() {
    let mut old = guard();
    old.orders(12_000, &here(false));
    let text = serde_json::to_string(&old).unwrap();
    let mut new = serde_json::from_str::<Guard>(&text).unwrap().again(13_000);
    assert_eq!(new.paused().collect::<Vec<_>>(), [server(1)]);
    assert!(new.orders(13_000, &here(false)).is_empty());
    confirmed(&mut new, 13_100, &[(server(1), 4)]);
    assert_eq!(new.orders(13_200, &here(false)), [Order::Resume(server(1))]);
}

#[test]
fn a_new_guard_that_reaches_nobody_pauses_after_a_lease_of_its_own() {
    let mut guard = Guard::new(&Policy::KVM, 50_000);
    guard.peers([node(2)]);
    assert!(guard.orders(51_999, &here(false)).is_empty());
    assert_eq!(
        guard.orders(52_000, &here(false)),
        [Order::Pause(server(1))]
    );
}

proptest! {
    #[test]
    fn a_lease_is_never_held_longer_than_from_the_last_answered_request(
        steps in proptest::collection::vec((1_u64..3_000, any::<bool>(), 0_usize..4), 1..200),
    ) {
        let mut lease = Lease::default();
        let mut now = 0;
        let mut sent: Vec<(u64, u64)> = Vec::new();
        let mut newest_answered = None::<u64>;
        for (wait, ask, back) in steps {
            now += wait;
            if ask {
                sent.push((lease.ask(now).number, now));
            } else if let Some((number, at)) = sent.iter().rev().nth(back) {
                lease.answered(*number, 2_000);
                newest_answered = newest_answered.max(Some(*at));
            }
            if lease.state(now) == State::Held {
                let at = newest_answered.expect("held without an answer");
                prop_assert!(now < at + 2_000);
            }
        }
    }
}
