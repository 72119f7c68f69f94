//! Judgements over nodes that speak and fall silent.

use super::*;
use crate::testing::node;

fn known(number: u64, is_fenced: bool) -> Known {
    Known {
        node: node(number),
        is_fenced,
        silence_ms: Policy::KVM.silence_ms,
        confirmed: 0,
    }
}

/// Nodes 1 to n under one instance; those in `speaking` renew with every step.
struct World {
    watch: Watch,
    now: u64,
    number: u64,
    count: u64,
}

impl World {
    fn new(count: u64) -> Self {
        let mut watch = Watch::new(Policy::KVM, 0);
        let all: Vec<_> = (1..=count).map(|it| known(it, false)).collect();
        watch.know(0, &all);
        let mut world = Self {
            watch,
            now: 0,
            number: 1,
            count,
        };
        world.pass(5_000, &[]);
        world
    }

    fn pass(&mut self, ms: u64, silent: &[u64]) {
        for _ in 0..ms / 250 {
            self.now += 250;
            self.number += 1;
            self.watch.tick(self.now);
            for it in (1..=self.count).filter(|it| !silent.contains(it)) {
                let is_life = self
                    .watch
                    .heard(self.now, node(it), self.number + 1, self.number);
                assert!(is_life);
            }
        }
    }

    fn judge(&mut self, number: u64) -> Judgement {
        self.watch.judge(self.now)[&node(number)].clone()
    }

    fn ask_all(&mut self, about: u64, is_reachable: bool) {
        self.watch.others(self.now, &[]);
        self.watch
            .witness(self.now, node(about), node(1), is_reachable);
    }
}

#[test]
fn a_silent_node_is_dead_only_after_others_and_a_witness_were_asked() {
    let mut world = World::new(3);
    world.pass(1_250, &[3]);
    assert_eq!(world.judge(3), Judgement::Alive);
    world.pass(1_250, &[3]);
    let asks = Judgement::Suspect {
        ask_others: true,
        witnesses: vec![node(1), node(2)],
    };
    assert_eq!(world.judge(3), asks);
    world.watch.others(world.now, &[]);
    assert!(matches!(
        world.judge(3),
        Judgement::Suspect {
            ask_others: false,
            ..
        }
    ));
    world.watch.witness(world.now, node(3), node(1), false);
    assert!(world.judge(3).is_dead());
    assert_eq!(world.judge(1), Judgement::Alive);
}

#[test]
fn witnesses_are_asked_ahead_and_nobody_is_dead_before_the_time_is_over() {
    let mut world = World::new(3);
    world.pass(1_500, &[3]);
    let asks = Judgement::Suspect {
        ask_others: false,
        witnesses: vec![node(1), node(2)],
    };
    assert_eq!(world.judge(3), asks);
    world.ask_all(3, false);
    assert_eq!(world.judge(3), Judgement::Alive);
    world.pass(750, &[3]);
    world.watch.others(world.now, &[]);
    assert_eq!(world.judge(3), Judgement::Alive);
    world.pass(250, &[3]);
    world.watch.others(world.now, &[]);
    assert!(world.judge(3).is_dead());
}

#[test]
fn a_witness_that_reaches_it_holds_the_judgement_back() {
    let mut world = World::new(3);
    world.pass(2_500, &[3]);
    world.ask_all(3, true);
    assert!(matches!(world.judge(3), Judgement::HeldBack(why) if why.contains("reaches it")));
    // An old answer is asked for anew.
    world.pass(2_500, &[3]);
    assert!(matches!(world.judge(3), Judgement::Suspect { .. }));
}

#[test]
fn what_another_instance_has_heard_is_life() {
    let mut world = World::new(3);
    world.pass(2_500, &[3]);
    world.watch.others(world.now, &[(node(3), 700)]);
    assert_eq!(world.judge(3), Judgement::Alive);
}

#[test]
fn a_confirmation_that_was_committed_is_life_whoever_gave_it() {
    let mut world = World::new(3);
    world.pass(2_500, &[3]);
    let mut nodes: Vec<_> = (1..=3).map(|it| known(it, false)).collect();
    nodes[2].confirmed = 1;
    world.watch.know(world.now, &nodes);
    world.ask_all(3, false);
    assert_eq!(world.judge(3), Judgement::Alive);
    // Read once more it is nothing new.
    world.pass(2_500, &[3]);
    world.watch.know(world.now, &nodes);
    world.ask_all(3, false);
    assert!(matches!(world.judge(3), Judgement::Dead(_)));
}

#[test]
fn words_without_an_echo_are_no_life() {
    let mut world = World::new(3);
    let (last, echoed) = (world.number + 1, world.number);
    for step in 1..=10 {
        world.pass(250, &[3]);
        assert!(!world.watch.heard(world.now, node(3), last + step, echoed));
    }
    assert!(matches!(world.judge(3), Judgement::Suspect { .. }));
}

#[test]
fn late_renewals_are_no_life_and_a_guard_that_counts_anew_is_believed_after_a_silence() {
    let mut world = World::new(3);
    assert!(!world.watch.heard(world.now, node(3), 2, 1));
    world.pass(2_500, &[3]);
    assert!(!world.watch.heard(world.now, node(3), 1, 0));
    assert!(world.watch.heard(world.now, node(3), 2, 1));
    assert_eq!(world.judge(3), Judgement::Alive);
}

#[test]
fn an_instance_that_was_stalled_declares_nobody_dead_for_one_lease() {
    let mut world = World::new(3);
    world.now += 3_000;
    world.watch.tick(world.now);
    world.ask_all(3, false);
    assert!(matches!(world.judge(3), Judgement::HeldBack(why) if why.contains("stalled")));
    world.pass(2_000, &[3]);
    world.ask_all(3, false);
    assert!(world.judge(3).is_dead());
}

#[test]
fn too_many_at_once_are_braked_until_the_operator_says_so() {
    let mut world = World::new(4);
    world.pass(500, &[3]);
    world.pass(2_250, &[3, 4]);
    // Node 4 is not silent for long enough to be judged, but for long enough to count.
    world.ask_all(3, false);
    assert!(matches!(world.judge(3), Judgement::Braked(why) if why.contains("2 of 4")));
    world.watch.allow(node(3));
    assert!(world.judge(3).is_dead());
    assert!(!world.judge(4).is_dead());
    // Once it is fenced it counts on neither side.
    let all = [
        known(1, false),
        known(2, false),
        known(3, true),
        known(4, false),
    ];
    world.watch.know(world.now, &all);
    world.pass(1_000, &[3, 4]);
    world.ask_all(4, false);
    assert!(world.judge(4).is_dead());
    assert_eq!(world.judge(3), Judgement::Fenced);
}

#[test]
fn the_operator_s_word_is_for_one_silence_only() {
    let mut world = World::new(4);
    world.watch.allow(node(3));
    assert_eq!(world.judge(3), Judgement::Alive);
    world.pass(2_500, &[3, 4]);
    world.ask_all(3, false);
    assert!(matches!(world.judge(3), Judgement::Braked(_)));
}

#[test]
fn nodes_that_fell_silent_long_apart_do_not_brake_each_other() {
    let mut world = World::new(4);
    world.pass(2_500, &[3]);
    world.ask_all(3, true);
    world.pass(61_000, &[3]);
    world.pass(2_500, &[3, 4]);
    world.ask_all(4, false);
    assert!(world.judge(4).is_dead());
}

#[test]
fn with_nobody_to_ask_nobody_is_declared_dead() {
    let mut world = World::new(1);
    world.pass(3_000, &[1]);
    world.watch.others(world.now, &[]);
    assert!(matches!(world.judge(1), Judgement::HeldBack(_)));
}
