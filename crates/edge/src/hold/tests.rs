//! Who waits, in which order and within which bounds, without a clock and a network.

use std::net::SocketAddr;

use undine_model::Id;

use super::rooms::{Survey, Wish};
use super::*;

fn server(n: u8) -> ServerId {
    Id::from_parts(1, [n; 10])
}

fn limits() -> Limits {
    Limits {
        per_server: 3,
        in_all: 4,
        bytes: 1000,
        at_once: 2,
        ..Limits::default()
    }
}

fn here() -> Vec<SocketAddr> {
    vec!["[fd00::1]:80".parse().unwrap()]
}

fn ask(_: &str) -> Wish {
    Wish::Ask(here())
}

#[test]
fn every_bound_refuses_and_frees_what_is_left_again() {
    let mut rooms = Rooms::new(limits());
    let one: Vec<u64> = (0..3)
        .map(|_| rooms.enter(server(1), 10).unwrap())
        .collect();
    assert_eq!(rooms.enter(server(1), 10), Err(Full::Server));
    assert_eq!(rooms.enter(server(2), 971), Err(Full::Bytes));
    let two = rooms.enter(server(2), 970).unwrap();
    assert_eq!(rooms.enter(server(3), 0), Err(Full::All));
    assert_eq!((rooms.held(), rooms.bytes()), (4, 1000));
    rooms.leave(server(2), two, 970);
    for place in one {
        rooms.leave(server(1), place, 10);
    }
    assert_eq!((rooms.held(), rooms.bytes()), (0, 0));
    assert!(rooms.news(server(1)).is_none(), "an empty room is no room");
}

#[test]
fn they_go_in_the_order_in_which_they_came_one_more_with_every_answer() {
    let mut rooms = Rooms::new(Limits {
        per_server: 9,
        in_all: 9,
        ..limits()
    });
    let places: Vec<u64> = (0..5).map(|_| rooms.enter(server(1), 0).unwrap()).collect();
    // They wait in another order than they came.
    let mut turns: Vec<_> = [1, 4, 2, 0, 3]
        .map(|n: usize| {
            (
                n,
                rooms.wait(server(1), places[n], "a.test", true).unwrap().0,
            )
        })
        .into();
    turns.sort_by_key(|(n, _)| *n);
    let mut woken = move || {
        let woken = turns.iter_mut().enumerate();
        let woken = woken.filter_map(|(n, (_, turn))| turn.try_recv().is_ok().then_some(n));
        woken.collect::<Vec<usize>>()
    };
    let now = Instant::now();
    assert_eq!(rooms.survey(server(1), ask), Survey::Probe(here()));
    assert!(rooms.release(server(1), &here(), ask, now));
    assert_eq!(woken(), [0], "the first one goes alone");
    assert!(rooms.release(server(1), &here(), ask, now));
    assert_eq!(woken(), [0; 0], "no turn is free");
    rooms.leave(server(1), places[0], 0);
    assert!(rooms.release(server(1), &here(), ask, now));
    assert_eq!(woken(), [1, 2], "it was answered: two may be out");
    // More than two never are; here that is the limit.
    rooms.leave(server(1), places[2], 0);
    assert!(rooms.release(server(1), &here(), ask, now));
    assert_eq!(woken(), [3]);
    rooms.leave(server(1), places[1], 0);
    assert!(!rooms.release(server(1), &here(), ask, now));
    assert_eq!(woken(), [4]);
}

#[test]
fn whoever_comes_joins_those_who_wait_until_the_server_is_warm() {
    let mut rooms = Rooms::new(limits());
    let first = rooms.enter(server(1), 0).unwrap();
    let second = rooms.enter(server(1), 0).unwrap();
    let _first = rooms.wait(server(1), first, "a.test", true).unwrap();
    let _second = rooms.wait(server(1), second, "a.test", true).unwrap();
    assert!(rooms.release(server(1), &here(), ask, Instant::now()));
    assert!(rooms.is_closed(server(1)), "nobody has been answered yet");
    let third = rooms.enter(server(1), 0).unwrap();
    let mut turn = rooms.wait(server(1), third, "a.test", false).unwrap().0;
    assert!(rooms.is_open(server(1)), "joining closes nothing");
    rooms.leave(server(1), first, 0);
    assert!(!rooms.is_closed(server(1)), "as many may go as ever");
    assert!(!rooms.release(server(1), &here(), ask, Instant::now()));
    assert!(turn.try_recv().is_ok());
}

#[test]
fn slow_answers_hold_nobody_up_for_long() {
    let mut rooms = Rooms::new(limits());
    let mut turns: Vec<_> = (0..3)
        .map(|_| {
            let place = rooms.enter(server(1), 0).unwrap();
            rooms.wait(server(1), place, "a.test", true).unwrap().0
        })
        .collect();
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    assert!(rooms.release(server(1), &here(), ask, now));
    assert!(turns[1].try_recv().is_err());
    assert!(rooms.release(server(1), &here(), ask, now + second));
    assert!(turns[1].try_recv().is_ok() && turns[2].try_recv().is_err());
    assert!(!rooms.release(server(1), &here(), ask, now + second * 2));
    assert!(turns[2].try_recv().is_ok());
}

#[test]
fn whoever_fails_in_his_turn_closes_the_room_and_keeps_his_place() {
    let mut rooms = Rooms::new(limits());
    let first = rooms.enter(server(1), 0).unwrap();
    let second = rooms.enter(server(1), 0).unwrap();
    let _first = rooms.wait(server(1), first, "a.test", true).unwrap();
    let mut turn = rooms.wait(server(1), second, "a.test", true).unwrap().0;
    let one_at_once = Limits {
        at_once: 1,
        ..limits()
    };
    rooms.set_limits(one_at_once);
    rooms.release(server(1), &here(), ask, Instant::now());
    assert!(rooms.is_open(server(1)));
    rooms.failed(server(1), first);
    assert!(!rooms.is_open(server(1)) && rooms.is_closed(server(1)));
    let mut again = rooms.wait(server(1), first, "a.test", true).unwrap().0;
    rooms.release(server(1), &here(), ask, Instant::now());
    assert!(again.try_recv().is_ok() && turn.try_recv().is_err());
}

#[test]
fn who_has_nothing_to_wait_for_is_sent_away_and_the_others_stay() {
    let mut rooms = Rooms::new(limits());
    let mut turn = |host: &str| {
        let place = rooms.enter(server(1), 0).unwrap();
        rooms.wait(server(1), place, host, true).unwrap().0
    };
    let (mut gone, mut held) = (turn("gone.test"), turn("held.test"));
    let wish = |host: &str| match host {
        "gone.test" => Wish::GiveUp,
        _ => Wish::Wait,
    };
    assert_eq!(rooms.survey(server(1), wish), Survey::Wait);
    assert!(gone.try_recv().is_ok() && held.try_recv().is_err());
    // Nor is anybody let go to where his route does not lead.
    rooms.release(server(1), &here(), wish, Instant::now());
    assert!(held.try_recv().is_err());
    assert_eq!(rooms.survey(server(1), |_| Wish::GiveUp), Survey::Empty);
    assert!(held.try_recv().is_ok());
}

#[test]
fn a_room_has_one_keeper() {
    let mut rooms = Rooms::new(limits());
    let first = rooms.enter(server(1), 0).unwrap();
    let second = rooms.enter(server(1), 0).unwrap();
    assert!(rooms.wait(server(1), first, "a.test", true).unwrap().1);
    assert!(!rooms.wait(server(1), second, "a.test", true).unwrap().1);
    rooms.leave(server(1), first, 0);
    rooms.leave(server(1), second, 0);
    // The keeper ends, and whoever comes then needs another.
    assert_eq!(rooms.survey(server(1), ask), Survey::Empty);
    let third = rooms.enter(server(1), 0).unwrap();
    assert!(rooms.wait(server(1), third, "a.test", true).unwrap().1);
}
