//! Fail-overs from the first step to the last, in a cluster that does what it is told.

use super::*;
use crate::membership::Worth::{self, InSync, Stale};
use crate::testing::{node, nodes, record, replica_id as r};

/// A cluster that does what it is told.
struct World {
    record: Record,
    dead: BTreeSet<NodeId>,
    target: Option<NodeId>,
    opened: BTreeMap<ReplicaId, Opened>,
    vm: Option<Vm>,
    route: Option<u64>,
    accepted: Option<(ReplicaId, &'static str)>,
    steps: Vec<&'static str>,
}

impl World {
    fn new(worths: &[Worth], dead: &[u64], target: u64) -> Self {
        Self {
            record: record(worths),
            dead: nodes(dead),
            target: Some(node(target)),
            opened: BTreeMap::new(),
            vm: None,
            route: Some(3),
            accepted: None,
            steps: Vec::new(),
        }
    }

    fn next(&self) -> Next {
        next(&Seen {
            record: &self.record,
            dead: &self.dead,
            target: self.target,
            opened: &self.opened,
            vm: self.vm,
            route: self.route,
            accepted: self.accepted,
        })
    }

    /// Does one step; tells whether there was one. Whoever asks twice is told the same.
    fn step(&mut self) -> bool {
        let next = self.next();
        assert_eq!(next, self.next());
        let word = match next {
            Next::Commit(record, why) => {
                assert_eq!(record.version, self.record.version + 1, "{why}");
                self.record = record;
                "commit"
            }
            Next::Open { replica, epoch, .. } => {
                self.opened.insert(replica, Opened::Open(epoch));
                "open"
            }
            Next::Start { epoch, replica, .. } => {
                assert_eq!(self.opened[&replica], Opened::Open(epoch));
                let ids: Vec<_> = self.record.in_sync_ids().into_iter().collect();
                assert_eq!(ids, [replica]);
                let phase = Phase::Starting;
                self.vm = Some(Vm { epoch, phase });
                "start"
            }
            Next::WaitGuest(_) => {
                let epoch = self.record.epoch;
                let phase = Phase::Answers;
                self.vm = Some(Vm { epoch, phase });
                "wait"
            }
            Next::MoveRoute { epoch, .. } => {
                self.route = Some(epoch);
                "route"
            }
            Next::Waiting(_) | Next::Done { .. } => return false,
        };
        self.steps.push(word);
        true
    }

    fn run(&mut self) -> Next {
        while self.step() {
            assert!(self.steps.len() < 50, "it goes round in circles");
        }
        self.next()
    }
}

#[test]
fn a_dead_node_s_server_runs_elsewhere_in_six_steps() {
    let mut world = World::new(&[InSync, InSync], &[1], 2);
    assert_eq!(world.run(), Next::Done { missing: 1 });
    assert_eq!(world.steps, ["commit", "open", "start", "wait", "route"]);
    assert_eq!((world.record.epoch, world.route), (4, Some(4)));
}

#[test]
fn of_two_survivors_one_is_kept() {
    let mut world = World::new(&[InSync; 3], &[1], 3);
    assert_eq!(world.run(), Next::Done { missing: 2 });
    assert_eq!(
        world.steps,
        ["commit", "open", "open", "commit", "start", "wait", "route"]
    );
    assert_eq!(world.record.replicas[2].worth, InSync);
}

#[test]
fn of_two_survivors_a_lost_one_is_left() {
    let mut world = World::new(&[InSync; 3], &[1], 3);
    world.step();
    world.opened.insert(r(3), Opened::Lost);
    assert_eq!(world.run(), Next::Done { missing: 2 });
    assert_eq!(world.record.in_sync_ids(), BTreeSet::from([r(2)]));
    // The owner is still node 3, which writes to node 2 from afar.
    assert_eq!(world.record.owner, Some(node(3)));
}

#[test]
fn the_target_dies_as_well_at_any_step_and_it_ends_once() {
    for at in 0..8 {
        let mut world = World::new(&[InSync; 3], &[1], 2);
        for _ in 0..at {
            world.step();
        }
        let epoch = world.record.epoch;
        world.dead = nodes(&[1, 2]);
        world.target = Some(node(3));
        world.vm = None;
        let settled = world.record.in_sync_ids() == BTreeSet::from([r(2)]);
        match world.run() {
            Next::Done { .. } => {
                assert!(!settled && world.record.owner == Some(node(3)), "step {at}");
                assert!(world.record.epoch > epoch);
            }
            Next::Waiting(_) => assert!(settled, "step {at}"),
            other => panic!("{other:?} at step {at}"),
        }
    }
}

#[test]
fn without_a_replica_in_sync_it_waits_or_an_operator_accepts_loss() {
    let mut world = World::new(&[InSync, Stale], &[1], 2);
    assert!(matches!(world.run(), Next::Waiting(why) if why.contains("waiting for node")));
    assert_eq!(world.record.version, 7);
    world.accepted = Some((r(2), "node 1 burned"));
    assert_eq!(world.run(), Next::Done { missing: 1 });
}

#[test]
fn a_daemon_that_ends_before_the_start_costs_an_epoch_only() {
    let mut world = World::new(&[InSync, InSync], &[1], 2);
    world.step();
    world.step();
    world.opened.insert(r(2), Opened::Stale(4));
    assert_eq!(world.run(), Next::Done { missing: 1 });
    assert_eq!(world.record.epoch, 5);
}

#[test]
fn a_machine_that_ended_by_itself_starts_under_a_new_epoch() {
    let mut world = World::new(&[InSync, InSync], &[], 1);
    let phase = Phase::Ended;
    world.vm = Some(Vm { epoch: 3, phase });
    assert_eq!(world.run(), Next::Done { missing: 1 });
    assert_eq!((world.record.epoch, world.record.owner), (4, Some(node(1))));
}

#[test]
fn a_node_that_cannot_start_it_gives_it_to_another() {
    let mut world = World::new(&[InSync, InSync], &[], 1);
    let phase = Phase::CannotStart;
    world.vm = Some(Vm { epoch: 3, phase });
    assert!(matches!(world.run(), Next::Waiting(_)));
    world.target = Some(node(2));
    assert_eq!(world.run(), Next::Done { missing: 1 });
    assert_eq!(world.record.owner, Some(node(2)));
}

#[test]
fn what_nobody_wants_to_run_and_what_runs_is_left_alone() {
    let mut world = World::new(&[InSync, InSync], &[1], 2);
    world.record.wanted = false;
    assert_eq!(world.run(), Next::Done { missing: 0 });
    assert!(world.steps.is_empty());
}
