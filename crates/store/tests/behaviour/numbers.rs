//! Numbers that are given out once, in order, whoever asks at the same time.

use std::collections::BTreeSet;

use undine_store::*;

use crate::fixtures::*;
use crate::on_both;

on_both!(
    no_number_is_given_out_twice,
    events_are_numbered_in_the_order_of_the_commits,
    an_account_sees_its_own_events_only,
    edges_learn_what_changed_or_that_they_need_everything,
    a_server_learns_what_changed_or_that_it_needs_everything,
    changes_wake_who_waits,
    a_join_token_admits_one,
    a_refused_token_says_why,
    a_bearer_token_ends,
    the_same_request_is_done_once,
    a_key_is_free_again_after_its_time,
);

async fn no_number_is_given_out_twice(store: Store) {
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut got = Vec::new();
            for _ in 0..10 {
                got.push((
                    store.counters().next_site_uid().await.unwrap(),
                    store.counters().next_server_index().await.unwrap(),
                    store.counters().next_of("mine").await.unwrap(),
                ));
            }
            got
        })
    });
    let all: Vec<_> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let uids: BTreeSet<u32> = all.iter().map(|n| n.0).collect();
    assert_eq!(uids, (20_000..20_080).collect());
    assert_eq!(
        all.iter().map(|n| n.1).collect::<BTreeSet<_>>(),
        (0..80).collect()
    );
    assert_eq!(
        all.iter().map(|n| n.2).collect::<BTreeSet<_>>(),
        (1..81).collect()
    );
}

async fn events_are_numbered_in_the_order_of_the_commits(store: Store) {
    let writers = (0..6).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..10 {
                let tx = store.begin().await.unwrap();
                let kind = format!("w{writer}.{n}");
                tx.events()
                    .announce(vec![event(&kind), event(&kind)])
                    .await
                    .unwrap();
                tx.plans()
                    .insert(&plan(&format!("p{writer}-{n}")))
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
        })
    });
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            // Whoever asks for what comes after the last one it saw never misses any.
            let mut seen = Vec::new();
            while seen.len() < 120 {
                let last = seen.last().copied().unwrap_or(0);
                let new = store.events().after(last, None, 7).await.unwrap();
                seen.extend(new.iter().map(|event| event.seq));
            }
            seen
        }
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(reader.await.unwrap(), (1..=120).collect::<Vec<u64>>());
    assert_eq!(store.events().newest().await.unwrap(), 120);
    assert_eq!(store.events().trim(T0 + 1).await.unwrap(), 120);
    store.events().announce(vec![event("later")]).await.unwrap();
    assert_eq!(store.events().after(0, None, 7).await.unwrap()[0].seq, 121);
}

async fn an_account_sees_its_own_events_only(store: Store) {
    let (account, _) = tenant(&store).await;
    let mine = NewEvent {
        account: Some(account.id),
        ..event("mine")
    };
    store
        .events()
        .announce(vec![event("other"), mine.clone()])
        .await
        .unwrap();
    let seen = store.events().after(0, Some(account.id), 10).await.unwrap();
    assert_eq!(
        seen,
        [Event {
            seq: 2,
            event: mine
        }]
    );
}

async fn edges_learn_what_changed_or_that_they_need_everything(store: Store) {
    let routes = store.routes();
    assert_eq!(
        routes.after(0).await.unwrap(),
        RouteChanges::Everything { version: 0 }
    );
    routes.changed(["a.example.com"]).await.unwrap();
    let tx = store.begin().await.unwrap();
    tx.routes()
        .changed(["c.example.com", "b.example.com"])
        .await
        .unwrap();
    tx.routes().changed(["b.example.com"]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(routes.version().await.unwrap(), 2);
    assert_eq!(
        routes.after(1).await.unwrap(),
        RouteChanges::Hosts {
            version: 2,
            hosts: vec!["b.example.com".to_owned(), "c.example.com".to_owned()]
        }
    );
    assert_eq!(
        routes.after(2).await.unwrap(),
        RouteChanges::Hosts {
            version: 2,
            hosts: vec![]
        }
    );
    for n in 0..10 {
        routes.changed([format!("s{n}.example.com")]).await.unwrap();
    }
    routes.trim(3).await.unwrap();
    assert_eq!(
        routes.after(5).await.unwrap(),
        RouteChanges::Everything { version: 12 }
    );
    let RouteChanges::Hosts { hosts, .. } = routes.after(9).await.unwrap() else {
        panic!("what is kept is told")
    };
    assert_eq!(hosts.len(), 3);
    // An edge that knows more than we do: the store lost its memory.
    assert_eq!(
        routes.after(99).await.unwrap(),
        RouteChanges::Everything { version: 12 }
    );
}

async fn a_server_learns_what_changed_or_that_it_needs_everything(store: Store) {
    let (_, server) = tenant(&store).await;
    let manifests = store.manifests();
    let (a, b, c) = (id(), id(), id());
    assert_eq!(
        manifests
            .changed(server.id, &[ManifestChange::Site(a)])
            .await
            .unwrap(),
        1
    );
    let both = [
        ManifestChange::Site(b),
        ManifestChange::Database(c),
        ManifestChange::Site(b),
    ];
    assert_eq!(manifests.changed(server.id, &both).await.unwrap(), 2);
    assert_eq!(
        manifests.after(server.id, 1).await.unwrap(),
        ManifestChanges::Delta {
            version: 2,
            changes: vec![both[0], both[1]]
        }
    );
    assert!(matches!(
        manifests.after(server.id, 0).await.unwrap(),
        ManifestChanges::Everything { version: 2 }
    ));
    // No things at all: the whole manifest.
    assert_eq!(manifests.changed(server.id, &[]).await.unwrap(), 3);
    assert!(matches!(
        manifests.after(server.id, 2).await.unwrap(),
        ManifestChanges::Everything { version: 3 }
    ));
    for _ in 0..5 {
        manifests
            .changed(server.id, &[ManifestChange::Site(a)])
            .await
            .unwrap();
    }
    manifests.trim(server.id, 2).await.unwrap();
    assert!(matches!(
        manifests.after(server.id, 5).await.unwrap(),
        ManifestChanges::Everything { version: 8 }
    ));
    assert_eq!(
        manifests.after(server.id, 6).await.unwrap(),
        ManifestChanges::Delta {
            version: 8,
            changes: vec![ManifestChange::Site(a)]
        }
    );
    // What the server said to run only ever grows, and the record's version stays.
    store
        .servers()
        .manifest_applied(server.id, 7)
        .await
        .unwrap();
    store
        .servers()
        .manifest_applied(server.id, 6)
        .await
        .unwrap();
    assert_eq!(manifests.versions(server.id).await.unwrap(), (8, 7));
    let read = store.servers().get(server.id).await.unwrap();
    assert_eq!(
        (read.version, read.manifest_version, read.manifest_applied),
        (1, 8, 7)
    );
    assert!(matches!(
        manifests.changed(id(), &[]).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn changes_wake_who_waits(store: Store) {
    let mut changes = store.changes();
    let waiter = tokio::spawn(async move {
        loop {
            let mark = changes.next().await.unwrap();
            if mark == (Mark { event: 1, route: 1 }) {
                return;
            }
        }
    });
    store.events().announce(vec![event("now")]).await.unwrap();
    store.routes().changed(["a.example.com"]).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), waiter)
        .await
        .unwrap()
        .unwrap();
}

async fn a_join_token_admits_one(store: Store) {
    store
        .join_tokens()
        .insert(&join_token("secret"))
        .await
        .unwrap();
    let tries = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let name = slug(&format!("node-{n}"));
            store
                .join_tokens()
                .consume("secret", Joiner::Node, &name, name.as_str(), T0)
                .await
        })
    });
    let (won, lost): (Vec<_>, Vec<_>) = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter()
            .all(|e| matches!(e, Err(StoreError::Token(TokenRefusal::Used))))
    );
    let token = store
        .join_tokens()
        .get(won[0].as_ref().unwrap().id)
        .await
        .unwrap();
    assert_eq!((token.used_at, token.version), (Some(T0), 2));
    assert_eq!(store.join_tokens().open(T0).await.unwrap(), []);
}

async fn a_refused_token_says_why(store: Store) {
    let tokens = store.join_tokens();
    tokens.insert(&join_token("any")).await.unwrap();
    tokens
        .insert(&JoinToken {
            name: Some(slug("node-1")),
            ..join_token("one")
        })
        .await
        .unwrap();
    let try_it = |secret: &'static str, kind, name: &str, now| {
        let (store, name) = (store.clone(), slug(name));
        async move {
            match store
                .join_tokens()
                .consume(secret, kind, &name, "x", now)
                .await
            {
                Err(StoreError::Token(refusal)) => refusal,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(
        try_it("none", Joiner::Node, "node-1", T0).await,
        TokenRefusal::Unknown
    );
    assert_eq!(
        try_it("any", Joiner::Edge, "edge-1", T0).await,
        TokenRefusal::Unknown
    );
    assert_eq!(
        try_it("one", Joiner::Node, "node-2", T0).await,
        TokenRefusal::Unknown
    );
    assert_eq!(
        try_it("any", Joiner::Node, "node-2", T0 + 1_000).await,
        TokenRefusal::Expired
    );
    tokens
        .consume("one", Joiner::Node, &slug("node-1"), "x", T0)
        .await
        .unwrap();
    assert_eq!(
        try_it("one", Joiner::Node, "node-1", T0).await,
        TokenRefusal::Used
    );
}

async fn a_bearer_token_ends(store: Store) {
    let (account, _) = tenant(&store).await;
    let token = token("secret", Some(account.id));
    store.tokens().insert(&token).await.unwrap();
    let by = |now| {
        let store = store.clone();
        async move { store.tokens().by_secret("secret", now).await.unwrap() }
    };
    assert_eq!(by(T0).await.as_ref(), Some(&token));
    assert_eq!(by(T0 + 1_000).await, None);
    store.tokens().touch(token.id, T0 + 5).await.unwrap();
    store.tokens().touch(token.id, T0 + 59_000).await.unwrap();
    assert_eq!(
        store.tokens().get(token.id).await.unwrap().last_used_at,
        Some(T0 + 5)
    );
    let revoked = Token {
        revoked_at: Some(T0),
        ..token
    };
    store.tokens().update(&revoked, T0).await.unwrap();
    assert_eq!(by(T0).await, None);
    assert_eq!(store.tokens().by_secret("other", T0).await.unwrap(), None);
}

async fn the_same_request_is_done_once(store: Store) {
    let token = id();
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .idempotency()
                .begin("key", token, "hash", T0, 60_000)
                .await
                .unwrap()
        })
    });
    let begun: Vec<Begun> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(begun.iter().filter(|b| **b == Begun::Fresh).count(), 1);
    assert_eq!(begun.iter().filter(|b| **b == Begun::InProgress).count(), 7);
    let saved = SavedResponse {
        status: 201,
        body: r#"{"id":1}"#.to_owned(),
    };
    let keys = store.idempotency();
    keys.finish("key", token, &saved, T0 + 1_000_000)
        .await
        .unwrap();
    let again = keys
        .begin("key", token, "hash", T0 + 1, 60_000)
        .await
        .unwrap();
    assert_eq!(again, Begun::Done(saved));
    let other = keys
        .begin("key", token, "other", T0 + 1, 60_000)
        .await
        .unwrap();
    assert_eq!(other, Begun::OtherRequest);
    // Another token's keys are its own.
    let fresh = keys
        .begin("key", id(), "hash", T0 + 1, 60_000)
        .await
        .unwrap();
    assert_eq!(fresh, Begun::Fresh);
}

async fn a_key_is_free_again_after_its_time(store: Store) {
    let (keys, token) = (store.idempotency(), id());
    assert_eq!(
        keys.begin("key", token, "h", T0, 60).await.unwrap(),
        Begun::Fresh
    );
    keys.abandon("key", token).await.unwrap();
    assert_eq!(
        keys.begin("key", token, "h", T0, 60).await.unwrap(),
        Begun::Fresh
    );
    // Its instance died over it.
    assert_eq!(
        keys.begin("key", token, "h", T0 + 59, 60).await.unwrap(),
        Begun::InProgress
    );
    assert_eq!(
        keys.begin("key", token, "new", T0 + 60, 60).await.unwrap(),
        Begun::Fresh
    );
    assert_eq!(keys.trim(T0 + 120).await.unwrap(), 1);
    let late = SavedResponse {
        status: 200,
        body: String::new(),
    };
    assert!(keys.finish("key", token, &late, T0).await.is_err());
}
