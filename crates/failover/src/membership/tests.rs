//! Every change of a record, one by one and in any order.

use super::*;
use crate::testing::{ids, node, nodes, record, replica_id as r};
use Worth::{Creating, InSync, Lost, Stale, Syncing};

fn worths(record: &Record) -> Vec<Worth> {
    record.replicas.iter().map(|it| it.worth).collect()
}

#[test]
fn a_failed_replica_leaves_and_the_last_one_never_does() {
    let two = record(&[InSync, InSync]);
    let one = degrade(&two, 3, &[r(2)]).unwrap();
    assert_eq!((worths(&one), one.version), (vec![InSync, Stale], 8));
    assert_eq!(one.replicas[1].left_epoch, Some(3));
    assert_eq!(degrade(&one, 3, &[r(2)]), Err(Refusal::Already));
    assert_eq!(degrade(&one, 3, &[r(1)]), Err(Refusal::LastInSync(r(1))));
    assert_eq!(degrade(&two, 3, &[r(9)]), Err(Refusal::NoSuchReplica(r(9))));
    let other = Refusal::OtherEpoch { said: 2, stands: 3 };
    assert_eq!(degrade(&two, 2, &[r(2)]), Err(other));
}

#[test]
fn a_replica_is_filled_then_joins() {
    let one = degrade(&record(&[InSync, InSync]), 3, &[r(2)]).unwrap();
    assert_eq!(join(&one, 3, r(2)), Err(Refusal::NotSyncing(r(2))));
    let filling = begin_sync(&one, 3, r(2)).unwrap();
    assert_eq!(filling.replicas[1].left_epoch, Some(3));
    assert_eq!(begin_sync(&filling, 3, r(2)), Err(Refusal::Already));
    let two = join(&filling, 3, r(2)).unwrap();
    assert_eq!(two.in_sync_ids(), ids(&[1, 2]));
    assert_eq!(two.version, 10);
    assert_eq!(join(&two, 3, r(2)), Err(Refusal::Already));
}

#[test]
fn a_joined_replica_that_fails_before_its_commit_leaves_by_a_commit() {
    let filling = record(&[InSync, Syncing]);
    let left = degrade(&filling, 3, &[r(2)]).unwrap();
    assert_eq!((worths(&left), left.version), (vec![InSync, Stale], 8));
    // What it lacks is not known any more.
    assert_eq!(left.replicas[1].left_epoch, None);
}

#[test]
fn replicas_that_fail_together_leave_together_and_never_all() {
    let three = record(&[InSync, InSync, InSync]);
    let one = degrade(&three, 3, &[r(2), r(3)]).unwrap();
    assert_eq!((worths(&one), one.version), (vec![InSync, Stale, Stale], 8));
    let all = degrade(&three, 3, &[r(1), r(2), r(3)]);
    assert_eq!(all, Err(Refusal::LastInSync(r(3))));
    let filling = record(&[InSync, Syncing]);
    let left = degrade(&filling, 3, &[r(1), r(2)]).unwrap();
    assert_eq!(worths(&left), [InSync, Stale]);
}

#[test]
fn what_was_just_made_is_in_sync() {
    let it = record(&[Creating, Creating]);
    assert_eq!(worths(&made(&it, 3, &[r(1)]).unwrap()), [InSync, Creating]);
    assert_eq!(made(&record(&[Stale]), 3, &[r(1)]), Err(Refusal::Already));
    let mut small = record(&[InSync, Creating]);
    small.slots = 1;
    assert_eq!(made(&small, 3, &[r(2)]), Err(Refusal::NoSlot(1)));
}

#[test]
fn an_owner_that_is_back_with_the_only_replica_keeps_its_epoch() {
    let one = succeed(&record(&[InSync, Stale]), &nodes(&[]), node(1)).unwrap();
    assert_eq!((one.epoch, one.version), (3, 8));
    let two = succeed(&record(&[InSync, InSync]), &nodes(&[]), node(1)).unwrap();
    assert_eq!((two.epoch, worths(&two)), (4, vec![InSync, InSync]));
    let moved = succeed(&record(&[Stale, InSync]), &nodes(&[]), node(2)).unwrap();
    assert_eq!((moved.epoch, moved.owner), (4, Some(node(2))));
    let dead = succeed(&record(&[InSync, InSync]), &nodes(&[1]), node(2)).unwrap();
    assert_eq!((dead.epoch, worths(&dead)), (4, vec![Stale, InSync]));
}

#[test]
fn no_more_replicas_are_filled_than_there_are_slots() {
    let mut three = record(&[InSync, Syncing, Stale]);
    three.slots = 2;
    assert_eq!(begin_sync(&three, 3, r(3)), Err(Refusal::NoSlot(2)));
}

#[test]
fn the_commit_that_names_a_new_owner_takes_the_dead_node_s_copy_out() {
    let next = promote(&record(&[InSync, InSync]), &nodes(&[1]), node(2)).unwrap();
    assert_eq!(worths(&next), [Stale, InSync]);
    assert_eq!(
        (next.epoch, next.version, next.owner),
        (4, 8, Some(node(2)))
    );
    assert!(next.is_local_only());
}

#[test]
fn only_replicas_in_sync_are_promoted() {
    let waiting = Refusal::NoReplica(vec![node(1)]);
    for other in [Stale, Syncing, Lost, Creating] {
        let it = record(&[InSync, other]);
        assert_eq!(promote(&it, &nodes(&[1]), node(2)), Err(waiting.clone()));
    }
    let one = record(&[InSync]);
    assert_eq!(promote(&one, &nodes(&[1]), node(2)), Err(waiting));
}

#[test]
fn a_living_owner_is_not_taken_over_and_a_dead_target_does_not_take_over() {
    let two = record(&[InSync, InSync]);
    let dead = nodes(&[2]);
    assert_eq!(promote(&two, &dead, node(2)), Err(Refusal::OwnerLives));
    let dead = nodes(&[1, 3]);
    assert_eq!(
        promote(&two, &dead, node(3)),
        Err(Refusal::TargetDead(node(3)))
    );
}

#[test]
fn after_an_unclean_end_one_replica_is_kept_and_the_others_are_filled_again() {
    let next = promote(&record(&[InSync; 3]), &nodes(&[1]), node(2)).unwrap();
    assert_eq!(worths(&next), [Stale, InSync, InSync]);
    let kept = settle(&next, 4, r(3)).unwrap();
    assert_eq!(worths(&kept), [Stale, Stale, InSync]);
    assert_eq!(settle(&kept, 4, r(3)), Err(Refusal::Already));
    assert_eq!(settle(&kept, 4, r(2)), Err(Refusal::NotSyncing(r(2))));
}

#[test]
fn a_restart_raises_the_epoch_and_forgets_what_was_being_filled() {
    let next = restart(&record(&[InSync, Syncing]), &nodes(&[])).unwrap();
    assert_eq!((next.epoch, next.owner), (4, Some(node(1))));
    assert_eq!(worths(&next), [InSync, Stale]);
    let dead = restart(&record(&[InSync]), &nodes(&[1]));
    assert_eq!(dead, Err(Refusal::TargetDead(node(1))));
}

#[test]
fn a_stale_replica_is_promoted_only_by_an_operator_who_says_so() {
    let it = record(&[InSync, Stale]);
    let dead = nodes(&[1]);
    assert_eq!(
        accept_loss(&it, &dead, r(2), node(2), " "),
        Err(Refusal::NoWords)
    );
    let next = accept_loss(&it, &dead, r(2), node(2), "node 1 burned").unwrap();
    assert_eq!((worths(&next), next.epoch), (vec![Stale, InSync], 4));
    let gone = accept_loss(&it, &dead, r(1), node(2), "x");
    assert_eq!(gone, Err(Refusal::NoReplica(vec![node(1)])));
}

#[test]
fn a_source_takes_its_server_back_from_a_dead_target() {
    let mut it = record(&[InSync, InSync]);
    it.owner = Some(node(2));
    let next = took_back(&it, node(2), node(1), &nodes(&[2])).unwrap();
    assert_eq!((next.owner, next.epoch), (Some(node(1)), 4));
    assert_eq!(worths(&next), [InSync, Stale]);
    let twice = took_back(&next, node(2), node(1), &nodes(&[2]));
    assert_eq!(twice, Err(Refusal::Already));
}

#[test]
fn the_invariants_tell_who_breaks_them() {
    let two = record(&[InSync, InSync]);
    assert_eq!(invariant_1(&two, &ids(&[1])), [r(2)]);
    assert!(invariant_1(&two, &ids(&[1, 2, 3])).is_empty());
    assert!(invariant_2(4, 4) && !invariant_2(3, 4));
    assert!(leftover(Some(&two), node(2), 3) && leftover(Some(&two), node(1), 2));
    assert!(leftover(None, node(1), 3) && !leftover(Some(&two), node(1), 3));
    assert!(well_formed(&two).is_ok() && well_formed(&record(&[Stale])).is_err());
}

#[test]
fn nothing_is_confirmed_to_a_dead_node_or_by_a_store_that_is_not_trusted() {
    let it = [record(&[InSync])];
    let owns = vec![(crate::testing::server(1), 3)];
    assert_eq!(confirms(node(1), false, true, &it), Some(owns));
    assert_eq!(confirms(node(2), false, true, &it), Some(vec![]));
    assert_eq!(confirms(node(1), true, true, &it), None);
    assert_eq!(confirms(node(1), false, false, &it), None);
}

#[test]
fn a_replica_whose_file_is_gone_counts_for_nothing() {
    let two = record(&[InSync, InSync]);
    let one = lose(&two, r(2)).unwrap();
    assert_eq!(worths(&one), [InSync, Lost]);
    assert_eq!(lose(&one, r(1)), Err(Refusal::LastInSync(r(1))));
}

mod any_history {
    use super::*;
    use proptest::prelude::*;

    fn change(record: &Record, kind: u8, number: u64, dead: &[u64]) -> Change {
        let (id, dead) = (r(number), nodes(dead));
        match kind {
            0 => degrade(record, record.epoch, &[id]),
            1 => begin_sync(record, record.epoch, id),
            2 => join(record, record.epoch, id),
            3 => promote(record, &dead, node(number)),
            4 => restart(record, &dead),
            5 => settle(record, record.epoch, id),
            _ => lose(record, id),
        }
    }

    proptest! {
        #[test]
        fn keeps_the_record_well_formed_and_the_epoch_and_version_rising(
            count in 1_usize..4,
            steps in proptest::collection::vec(
                (0_u8..7, 1_u64..4, proptest::collection::vec(1_u64..4, 0..3)), 1..60),
        ) {
            let mut now = record(&vec![InSync; count]);
            for (kind, number, dead) in steps {
                let Ok(next) = change(&now, kind, number, &dead) else { continue };
                prop_assert_eq!(well_formed(&next), Ok(()));
                prop_assert_eq!(next.version, now.version + 1);
                prop_assert!(next.epoch >= now.epoch);
                if next.owner != now.owner {
                    prop_assert!(next.epoch > now.epoch);
                }
                // Whoever becomes a member was being filled.
                for id in next.in_sync_ids().difference(&now.in_sync_ids()) {
                    prop_assert_eq!(now.replica(*id).unwrap().worth, Syncing);
                }
                now = next;
            }
        }
    }
}
