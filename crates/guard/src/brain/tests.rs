//! The brain through good and bad days, on a clock of its own.

use proptest::prelude::*;
use undine_api::guard::Owned;
use undine_model::NodeId;

use super::*;

fn server(number: u64) -> ServerId {
    ServerId::from_parts(number, [0; 10])
}

fn served(number: u64, epoch: u64, local_only: bool) -> Served {
    Served {
        server: server(number),
        epoch,
        guard_socket: format!("/run/{number}").into(),
        local_only,
    }
}

fn peer(number: u8) -> Peer {
    Peer {
        node: NodeId::from_parts(u64::from(number), [0; 10]),
        address: ([10, 0, 0, number], 7300).into(),
        storage: None,
    }
}

fn owned(number: u64, epoch: u64) -> Owned {
    Owned {
        server: server(number),
        epoch,
    }
}

/// A node, its control and two peers, on a clock of their own; what is due is done at once.
struct World {
    brain: Brain,
    now: u64,
    control: bool,
    peers: bool,
    owns: Option<Vec<Owned>>,
    runs: Vec<(ServerId, bool)>,
    /// When control last said that server 1 is ours at epoch 4, and whether it ever denied that.
    confirmed: Option<u64>,
    is_denied: bool,
}

impl World {
    fn new(servers: Vec<Served>) -> Self {
        let runs = servers.iter().map(|it| (it.server, true)).collect();
        let mut brain = Brain::new(10_000, Lease::default(), vec![], Ledger::default());
        brain.serves(servers);
        Self {
            brain,
            now: 10_000,
            control: true,
            peers: true,
            owns: None,
            runs,
            confirmed: None,
            is_denied: false,
        }
    }

    fn runs(&self, number: u64) -> bool {
        self.runs.iter().any(|it| *it == (server(number), true))
    }

    fn set(&mut self, server: ServerId, is_running: bool) {
        for it in &mut self.runs {
            if it.0 == server {
                it.1 = is_running;
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now += 100;
            for due in self.brain.tick(self.now) {
                self.act(due);
            }
        }
    }

    fn act(&mut self, due: Do) {
        match due {
            Do::Ask(request) if self.control => {
                let owns = self.owns.clone().filter(|_| request.confirm);
                if let Some(owns) = &owns {
                    let is_ours = owns.contains(&owned(1, 4));
                    self.confirmed = is_ours.then_some(self.now);
                    self.is_denied |= !is_ours;
                }
                self.brain.answered(LeaseAnswer {
                    number: request.number,
                    lease_ms: LEASE_MS,
                    owns,
                    peers: vec![peer(2), peer(3)],
                });
            }
            Do::Ask(_) => {}
            Do::Probe(peer) => self.brain.probed(&peer, self.now, self.peers),
            Do::Pause(it) => {
                if self.runs.contains(&(it.server, true)) && self.brain.pausing(&it, 1, self.now) {
                    self.set(it.server, false);
                }
            }
            Do::Continue(it, _) => {
                assert!(self.brain.may_continue(it.server, 1, self.now));
                self.set(it.server, true);
                self.brain.settled(it.server);
            }
        }
    }
}

#[test]
fn cut_off_from_all_it_pauses_two_seconds_after_its_last_renewal_and_no_sooner() {
    let mut world = World::new(vec![served(1, 4, false), served(2, 4, true)]);
    world.pass(2_000);
    let last = world.brain.lease().until_ms().unwrap() - LEASE_MS;
    (world.control, world.peers) = (false, false);
    while world.now < last + LEASE_MS - 100 {
        world.pass(100);
        assert!(world.runs(1), "at {} after {last}", world.now);
    }
    world.pass(100);
    assert!(!world.runs(1));
    // Whose disk is nowhere else is never paused.
    world.pass(10_000);
    assert!(world.runs(2) && world.brain.is_isolated());
}

#[test]
fn control_away_alone_pauses_nothing() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.pass(2_000);
    world.control = false;
    world.pass(600_000);
    assert!(world.runs(1) && !world.brain.is_isolated());
    assert_eq!(world.brain.state(world.now), State::Lapsed);
}

#[test]
fn peers_away_alone_pause_nothing() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.pass(2_000);
    world.peers = false;
    world.pass(60_000);
    assert!(world.runs(1));
}

#[test]
fn peers_back_without_control_continue_nothing() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.owns = Some(vec![owned(1, 4)]);
    world.pass(2_000);
    (world.control, world.peers) = (false, false);
    world.pass(3_000);
    world.peers = true;
    world.pass(60_000);
    assert!(!world.brain.is_isolated() && !world.runs(1));
    world.control = true;
    world.pass(700);
    assert!(world.runs(1) && world.brain.ledger().servers().is_empty());
}

#[test]
fn what_was_taken_over_meanwhile_stays_paused_and_counts_as_down() {
    let mut world = World::new(vec![served(1, 4, false), served(2, 4, false)]);
    world.owns = Some(vec![owned(1, 5), owned(2, 4)]);
    world.pass(2_000);
    (world.control, world.peers) = (false, false);
    world.pass(4_000);
    (world.control, world.peers) = (true, true);
    world.pass(60_000);
    assert!(!world.runs(1) && world.runs(2));
    assert_eq!(world.brain.ledger().servers(), [server(1)]);
    // The agent ends it, or starts it under its new epoch: then there is nothing left to say.
    assert!(world.brain.serves(vec![served(1, 6, false)]));
    assert!(world.brain.ledger().servers().is_empty());
}

#[test]
fn control_that_cannot_tell_ownership_continues_nothing() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.pass(2_000);
    (world.control, world.peers) = (false, false);
    world.pass(4_000);
    (world.control, world.peers) = (true, true);
    world.pass(60_000);
    assert!(!world.runs(1) && world.brain.ledger().is_waiting());
    world.owns = Some(vec![owned(1, 4)]);
    world.pass(700);
    assert!(world.runs(1));
}

#[test]
fn whatever_runs_again_while_isolated_is_stopped_again() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.pass(2_000);
    (world.control, world.peers) = (false, false);
    world.pass(3_000);
    world.set(server(1), true);
    world.pass(600);
    assert!(!world.runs(1));
}

#[test]
fn a_guard_that_was_stalled_first_asks() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.pass(2_000);
    // Everything else is well; only this process got no CPU for a minute.
    world.now += 60_000;
    world.pass(100);
    assert!(world.runs(1) && !world.brain.is_isolated());
}

#[test]
fn a_restarted_guard_goes_on_where_the_one_before_it_ended() {
    let mut world = World::new(vec![served(1, 4, false), served(2, 4, false)]);
    world.pass(2_000);
    (world.control, world.peers) = (false, false);
    world.pass(3_000);
    let old = world.brain.clone();
    // Meanwhile server 2 was continued by somebody.
    world.set(server(2), true);
    let lease = Lease::remembered(old.lease().until_ms().unwrap());
    world.brain = Brain::new(world.now, lease, old.peers(), old.ledger().clone());
    world
        .brain
        .serves(vec![served(1, 4, false), served(2, 4, false)]);
    world.pass(300);
    assert!(world.brain.is_isolated() && !world.runs(2));
    world.owns = Some(vec![owned(1, 4), owned(2, 4)]);
    (world.control, world.peers) = (true, true);
    world.pass(700);
    assert!(world.runs(1) && world.runs(2));
}

#[test]
fn a_new_guard_that_reaches_nobody_pauses_after_a_lease_of_its_own() {
    let mut world = World::new(vec![served(1, 4, false)]);
    world.brain = Brain::new(
        world.now,
        Lease::default(),
        vec![peer(2), peer(3)],
        Ledger::default(),
    );
    world.brain.serves(vec![served(1, 4, false)]);
    (world.control, world.peers) = (false, false);
    world.pass(1_900);
    assert!(world.runs(1));
    world.pass(200);
    assert!(!world.runs(1));
}

proptest! {
    /// Whatever happens in whatever order: paused only when it was cut off from all as late as its
    /// last probes, continued only what it had paused, is confirmed at this very epoch, and under
    /// a lease.
    #[test]
    fn nothing_runs_on_without_a_word_and_nothing_stops_without_a_reason(
        steps in proptest::collection::vec(
            (1_u64..25, any::<bool>(), any::<bool>(), 0_u64..4, any::<bool>()), 1..40),
    ) {
        let mut world = World::new(vec![served(1, 4, false), served(2, 4, true)]);
        world.pass(1_000);
        let mut highest = 4;
        let mut cut_off_ms = 0;
        for (hundreds, control, peers, owner, foreign_stop) in steps {
            (world.control, world.peers) = (control, peers);
            highest = highest.max(4 + owner / 3);
            world.owns = (owner != 1).then(|| vec![owned(1, highest), owned(2, 4)]);
            if foreign_stop && world.brain.ledger().entry(server(1)).is_none() {
                // Somebody else stopped it: that is no business of the guard's.
                world.set(server(1), false);
            }
            let stopped_by_others = !world.runs(1)
                && world.brain.ledger().entry(server(1)).is_none();
            for _ in 0..hundreds {
                let before = world.runs(1);
                world.pass(100);
                if !control && !peers {
                    cut_off_ms = world.now;
                }
                if before && !world.runs(1) {
                    prop_assert!(world.now <= cut_off_ms + ASK_EVERY_MS);
                    world.is_denied = false;
                }
                if !before && world.runs(1) {
                    prop_assert!(!stopped_by_others && !world.is_denied);
                    prop_assert!(world.confirmed.is_some_and(|at| world.now < at + LEASE_MS));
                }
                prop_assert!(world.runs(2));
            }
        }
    }
}
