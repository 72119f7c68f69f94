//! Operations: taken by one, saved by its owner only, resumed by another.

use serde_json::json;
use undine_model::InstanceId;
use undine_model::lifecycle::OperationState;
use undine_store::*;

use crate::fixtures::*;
use crate::on_both;

on_both!(
    of_eight_instances_one_takes_an_operation,
    eight_instances_take_eight_operations,
    an_orphan_is_taken_over_and_its_owner_is_told,
    a_step_happens_with_its_records_or_not_at_all,
    an_operation_waits_for_its_time,
    an_operation_is_found_by_what_it_works_on,
    what_ended_is_forgotten_in_time,
);

const LEASE: i64 = 5_000;

async fn claims(store: &Store, count: usize, now: i64) -> Vec<Option<Operation>> {
    let tries = (0..count).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.operations().claim(id(), now, LEASE).await.unwrap() })
    });
    futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

async fn of_eight_instances_one_takes_an_operation(store: Store) {
    for _ in 0..5 {
        let operation = operation(id::<kind::Server>().uuid());
        store
            .operations()
            .create(&operation, &[Step::new(0, "start")])
            .await
            .unwrap();
        let won: Vec<Operation> = claims(&store, 8, T0).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1);
        assert_eq!(won[0].id, operation.id);
        assert_eq!(won[0].state, OperationState::Running);
        assert_eq!(won[0].lease_until, T0 + LEASE);
        // This one is done with, so that the next round has only its own.
        let done = Operation {
            state: OperationState::Succeeded,
            ..won[0].clone()
        };
        store
            .operations()
            .save(&done, won[0].owner.unwrap(), &[], T0)
            .await
            .unwrap();
    }
}

async fn eight_instances_take_eight_operations(store: Store) {
    for _ in 0..8 {
        let operation = operation(id::<kind::Server>().uuid());
        store.operations().create(&operation, &[]).await.unwrap();
    }
    let mut won: Vec<_> = claims(&store, 8, T0)
        .await
        .into_iter()
        .flatten()
        .map(|op| op.id)
        .collect();
    won.sort();
    won.dedup();
    assert_eq!(
        won.len(),
        8,
        "nobody waits for another, nobody takes the same"
    );
    assert!(claims(&store, 2, T0).await.iter().all(Option::is_none));
}

async fn an_orphan_is_taken_over_and_its_owner_is_told(store: Store) {
    let (first, second): (InstanceId, InstanceId) = (id(), id());
    let operations = store.operations();
    operations
        .create(&operation(id::<kind::Server>().uuid()), &[])
        .await
        .unwrap();
    let mine = operations.claim(first, T0, LEASE).await.unwrap().unwrap();
    assert_eq!(
        operations
            .claim(second, T0 + LEASE - 1, LEASE)
            .await
            .unwrap(),
        None
    );
    operations
        .renew_lease(mine.id, first, T0 + 1_000, LEASE)
        .await
        .unwrap();
    assert_eq!(
        operations.claim(second, T0 + LEASE, LEASE).await.unwrap(),
        None
    );
    let theirs = operations
        .claim(second, T0 + 1_000 + LEASE, LEASE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((theirs.id, theirs.owner), (mine.id, Some(second)));
    for told in [
        operations.renew_lease(mine.id, first, T0, LEASE).await,
        operations.save(&mine, first, &[], T0).await.map(drop),
    ] {
        assert!(matches!(told, Err(StoreError::LostLease(id)) if id == mine.id));
    }
    operations.save(&theirs, second, &[], T0).await.unwrap();
}

async fn a_step_happens_with_its_records_or_not_at_all(store: Store) {
    let (me, other): (InstanceId, InstanceId) = (id(), id());
    let steps = [Step::new(0, "place"), Step::new(1, "start")];
    let made = operation(id::<kind::Server>().uuid());
    store.operations().create(&made, &steps).await.unwrap();
    let mut mine = store
        .operations()
        .claim(me, T0, LEASE)
        .await
        .unwrap()
        .unwrap();

    let done = Step {
        state: StepState::Done,
        started_at: Some(T0),
        ended_at: Some(T0 + 9),
        detail: json!({ "node": "node-1" }),
        ..steps[0].clone()
    };
    mine.step = 1;
    mine.results = json!({ "node": 1 });
    let tx = store.begin().await.unwrap();
    tx.nodes().insert(&node("node-1")).await.unwrap();
    let mine = tx
        .operations()
        .save(&mine, me, std::slice::from_ref(&done), T0 + 9)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        store.operations().steps(made.id).await.unwrap(),
        [done, steps[1].clone()]
    );
    assert_eq!(store.operations().get(made.id).await.unwrap(), mine);

    // Taken over in the meantime: the second step's records must not appear.
    store
        .operations()
        .claim(other, T0 + LEASE, LEASE)
        .await
        .unwrap()
        .unwrap();
    let tx = store.begin().await.unwrap();
    tx.nodes().insert(&node("node-2")).await.unwrap();
    let lost = tx
        .operations()
        .save(&Operation { step: 2, ..mine }, me, &[], T0 + LEASE)
        .await;
    assert!(matches!(lost, Err(StoreError::LostLease(_))));
    drop(tx);
    assert_eq!(
        store.nodes().count(&NodeFilter::default()).await.unwrap(),
        1
    );
    assert_eq!(store.operations().get(made.id).await.unwrap().step, 1);
}

async fn an_operation_waits_for_its_time(store: Store) {
    let me = id();
    let operations = store.operations();
    let made = operation(id::<kind::Server>().uuid());
    operations.create(&made, &[]).await.unwrap();
    let mut mine = operations
        .claim_this(made.id, me, T0, LEASE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        operations
            .claim_this(made.id, id(), T0, LEASE)
            .await
            .unwrap(),
        None
    );
    mine.state = OperationState::Pending;
    mine.not_before = T0 + 700;
    mine.retries = 1;
    mine.error = Some("the node does not answer".to_owned());
    let waiting = operations.save(&mine, me, &[], T0).await.unwrap();
    assert_eq!((waiting.owner, waiting.lease_until), (None, 0));
    assert_eq!(operations.claim(me, T0 + 699, LEASE).await.unwrap(), None);
    assert_eq!(
        operations
            .claim(me, T0 + 700, LEASE)
            .await
            .unwrap()
            .unwrap()
            .retries,
        1
    );
}

async fn an_operation_is_found_by_what_it_works_on(store: Store) {
    let (a, b) = (id::<kind::Server>().uuid(), id::<kind::Site>().uuid());
    let operations = store.operations();
    let both = Operation {
        subjects: vec![a, b, a],
        ..operation(a)
    };
    let one = operation(a);
    operations.create(&both, &[]).await.unwrap();
    operations.create(&one, &[]).await.unwrap();
    let found = operations.of(a, PageRequest::newest(1)).await.unwrap();
    assert_eq!(found.items[0].id, one.id);
    let found = operations
        .of(a, PageRequest::newest(1).after(found.next))
        .await
        .unwrap();
    assert_eq!((found.items[0].id, found.next), (both.id, None));
    assert_eq!(
        operations
            .of(b, PageRequest::first(10))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let pending = OperationFilter {
        state: Some(OperationState::Pending),
        ..OperationFilter::default()
    };
    assert_eq!(operations.count(&pending).await.unwrap(), 2);
}

async fn what_ended_is_forgotten_in_time(store: Store) {
    let me = id();
    let operations = store.operations();
    for _ in 0..2 {
        let made = operation(id::<kind::Server>().uuid());
        operations
            .create(&made, &[Step::new(0, "start")])
            .await
            .unwrap();
    }
    let mut done = operations.claim(me, T0, LEASE).await.unwrap().unwrap();
    done.state = OperationState::Succeeded;
    operations.save(&done, me, &[], T0).await.unwrap();
    assert_eq!(operations.trim(T0 + 1).await.unwrap(), 1);
    assert_eq!(operations.steps(done.id).await.unwrap(), []);
    assert_eq!(
        operations.count(&OperationFilter::default()).await.unwrap(),
        1
    );
}

use undine_model::id::kind;
