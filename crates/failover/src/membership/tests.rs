use proptest::prelude::*;
use undine_model::Id;

use super::*;

fn node(n: u8) -> NodeId {
    Id::from_parts(1, [n; 10])
}

fn replica(n: u8) -> ReplicaId {
    Id::from_parts(2, [n; 10])
}

fn record(worths: &[Worth]) -> Record {
    let replicas = worths
        .iter()
        .zip(1..)
        .map(|(worth, n)| Replica::new(replica(n), node(n), *worth))
        .collect();
    Record {
        server: Id::from_parts(3, [0; 10]),
        epoch: 1,
        version: 1,
        owner: Some(node(1)),
        replicas,
    }
}

#[test]
fn the_last_copy_never_leaves() {
    let two = record(&[Worth::InSync, Worth::InSync]);
    let one = two.degrade(replica(2), Some("abc")).unwrap();
    assert_eq!(one.version, 2);
    assert_eq!(one.epoch, 1);
    assert_eq!(
        one.on(node(2)).unwrap().left,
        Some(Left {
            epoch: 1,
            source: "abc".to_owned()
        })
    );
    assert_eq!(one.degrade(replica(2), None), Err(Refused::NotAMember));
    assert_eq!(one.degrade(replica(1), None), Err(Refused::LastCopy));
}

#[test]
fn only_what_was_filled_under_this_epoch_joins() {
    let stale = record(&[Worth::InSync, Worth::Stale]);
    assert_eq!(stale.join(1, replica(2)), Err(Refused::NotSyncing));
    let filling = stale.refill(replica(2)).unwrap();
    assert_eq!(filling.members().count(), 1, "filling is no membership");
    let moved = filling.promote(node(1)).unwrap();
    assert!(matches!(
        moved.join(1, replica(2)),
        Err(Refused::OtherEpoch { asked: 1, now: 2 })
    ));
    assert_eq!(filling.join(1, replica(2)).unwrap().members().count(), 2);
}

#[test]
fn a_promotion_leaves_one_member_and_forgets_the_dead_node_s_copy() {
    let three = record(&[Worth::InSync, Worth::InSync, Worth::InSync]);
    let next = three.promote(node(2)).unwrap();
    assert_eq!(next.owner, Some(node(2)));
    assert_eq!(next.epoch, 2);
    let members: Vec<_> = next.members().map(|member| member.id).collect();
    assert_eq!(members, [replica(2)]);
    assert_eq!(next.on(node(1)).unwrap().worth, Worth::Stale);
}

#[test]
fn a_stale_copy_is_promoted_by_an_operator_s_word_only() {
    let record = record(&[Worth::InSync, Worth::Stale, Worth::Syncing]);
    assert_eq!(record.promote(node(2)), Err(Refused::NoMemberThere));
    assert_eq!(record.promote(node(3)), Err(Refused::NoMemberThere));
    assert_eq!(record.accept_loss(replica(2)).unwrap().owner, Some(node(2)));
    assert_eq!(record.accept_loss(replica(3)), Err(Refused::NothingThere));
}

#[test]
fn a_server_waits_for_whom_it_needs() {
    let one = record(&[Worth::InSync]);
    assert_eq!(one.candidates(|_| false), Err(Waits::OnlyCopy));
    let two = record(&[Worth::InSync, Worth::Stale]);
    let alive = |id| id == node(2);
    assert_eq!(two.candidates(alive), Err(Waits::ForReplica { away: 1 }));
    let two = record(&[Worth::InSync, Worth::InSync]);
    assert_eq!(two.candidates(alive), Ok(vec![node(2)]));
}

#[test]
fn a_store_that_forgot_an_owner_is_found_out() {
    let record = record(&[Worth::InSync]);
    assert_eq!(record.still_newest([1, 0]), Ok(()));
    assert_eq!(record.still_newest([1, 3]), Err(3));
}

#[derive(Debug, Clone)]
enum Change {
    Degrade(u8),
    Refill(u8),
    Join(u64, u8),
    Promote(u8),
    Restart,
}

fn change() -> impl Strategy<Value = Change> {
    let copy = 1_u8..4;
    prop_oneof![
        copy.clone().prop_map(Change::Degrade),
        copy.clone().prop_map(Change::Refill),
        (0_u64..4, copy.clone()).prop_map(|(epoch, n)| Change::Join(epoch, n)),
        copy.prop_map(Change::Promote),
        Just(Change::Restart),
    ]
}

proptest! {
    #[test]
    fn there_is_always_a_member_and_nothing_goes_back(
        changes in proptest::collection::vec(change(), 0..60),
    ) {
        let mut now = record(&[Worth::InSync, Worth::InSync, Worth::Stale]);
        for change in changes {
            let next = match change {
                Change::Degrade(n) => now.degrade(replica(n), None),
                Change::Refill(n) => now.refill(replica(n)),
                Change::Join(back, n) => now.join(now.epoch.saturating_sub(back), replica(n)),
                Change::Promote(n) => now.promote(node(n)),
                Change::Restart => now.restart_uncleanly(),
            };
            let Ok(next) = next else { continue };
            prop_assert_eq!(next.version, now.version + 1);
            prop_assert!(next.epoch >= now.epoch);
            prop_assert_eq!(next.owner != now.owner, next.epoch != now.epoch && next.owner != now.owner);
            prop_assert!(next.members().count() > 0);
            // Nothing becomes a member but what was one or was being filled.
            for member in next.members() {
                let before = now.on(member.node).unwrap().worth;
                prop_assert!(matches!(before, Worth::InSync | Worth::Syncing));
            }
            now = next;
        }
    }
}
