//! Records: written, read, listed, changed by version, refused by name.

use serde_json::json;
use undine_model::lifecycle::NodeState;
use undine_store::*;

use crate::fixtures::*;
use crate::on_both;

on_both!(
    every_record_comes_back_as_it_was_written,
    of_many_writers_one_changes_a_version,
    many_modifications_are_all_kept,
    a_stale_or_missing_record_says_so,
    a_name_that_is_taken_is_told_with_its_field,
    of_many_resellers_one_gets_a_host_name,
    a_name_goes_to_a_site_or_to_a_panel,
    pages_show_everything_once_while_others_insert,
    a_filter_counts_and_lists_only_its_own,
    what_is_in_use_cannot_be_removed,
    a_reference_to_nothing_is_refused,
    a_dropped_transaction_leaves_nothing,
    a_transaction_cannot_go_on_after_an_error,
    reports_leave_the_version_alone,
    a_lock_holds_others_until_the_commit,
    settings_are_made_once_and_changed_by_version,
    a_later_lease_stays,
    a_node_is_asked_for_the_disks_that_its_copies_may_grow_to,
    a_removal_outlives_its_server_and_goes_with_its_node,
);

async fn of_many_resellers_one_gets_a_host_name(store: Store) {
    let mut tries = Vec::new();
    for n in 0..6 {
        let mut own = reseller(&format!("seller-{n}"));
        store.resellers().insert(&own).await.unwrap();
        own.host = Some("panel.example.com".to_owned());
        let store = store.clone();
        tries.push(tokio::spawn(async move {
            let tx = store.begin().await.unwrap();
            tx.resellers().lock(own.id).await.unwrap();
            tx.resellers().update(&own, T0 + 1).await?;
            tx.commit().await
        }));
    }
    let done = futures_util::future::join_all(tries).await;
    let (mut won, mut told) = (0, 0);
    for one in done.into_iter().map(Result::unwrap) {
        match one {
            Ok(()) => won += 1,
            Err(StoreError::Taken { field, value, .. }) => {
                assert_eq!(
                    (field.as_str(), value.as_str()),
                    ("host", "panel.example.com")
                );
                told += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((won, told), (1, 5));
    let filter = ResellerFilter {
        host: Some("panel.example.com".to_owned()),
        ..ResellerFilter::default()
    };
    assert_eq!(store.resellers().count(&filter).await.unwrap(), 1);
}

async fn a_name_goes_to_a_site_or_to_a_panel(store: Store) {
    let (account, server) = tenant(&store).await;
    let own = reseller("north");
    store.resellers().insert(&own).await.unwrap();
    for n in 0..8 {
        let name = format!("n{n}.example.com");
        let site = site(&name, account.id, server.id, 20_000 + n);
        let panel = ResellerFilter {
            host: Some(name.clone()),
            ..ResellerFilter::default()
        };
        let for_site = async {
            let tx = store.begin().await.unwrap();
            tx.names_for_sites().await.unwrap();
            let free = tx.resellers().find_by(&panel).await.unwrap().is_none();
            if free {
                tokio::task::yield_now().await;
                tx.sites().create(&site, &[]).await.unwrap();
            }
            tx.commit().await.unwrap();
            free
        };
        let for_panel = async {
            let tx = store.begin().await.unwrap();
            let mut own = tx.resellers().lock(own.id).await.unwrap();
            tx.names_for_a_panel().await.unwrap();
            let free = tx.sites().by_name(&name).await.unwrap().is_none();
            if free {
                tokio::task::yield_now().await;
                own.host = Some(name.clone());
                tx.resellers().update(&own, T0 + 1).await.unwrap();
            }
            tx.commit().await.unwrap();
            free
        };
        let (site, panel) = tokio::join!(for_site, for_panel);
        assert_ne!(site, panel, "{name} went to both or to nobody");
    }
}

async fn every_record_comes_back_as_it_was_written(store: Store) {
    macro_rules! check {
        ($($table:ident: $record:expr),* $(,)?) => {$({
            let record = $record;
            store.$table().insert(&record).await.unwrap();
            assert_eq!(store.$table().get(record.id).await.unwrap(), record);
            let later = store.$table().update(&record, T0 + 5).await.unwrap();
            assert_eq!((later.version, later.updated_at), (2, T0 + 5));
            assert_eq!(store.$table().get(record.id).await.unwrap(), later);
        })*};
    }
    let (account, server) = tenant(&store).await;
    let here = node("node-1");
    check!(
        instances: instance("one"),
        nodes: here.clone(),
        edges: edge("edge-1"),
        join_tokens: join_token("aa"),
        plans: plan("large"),
        accounts: crate::fixtures::account("other", account.plan),
        tokens: token("bb", Some(account.id)),
        audit: audit("system"),
        profiles: profile("static"),
        images: image("cc"),
        servers: crate::fixtures::server("web-2", 2),
        replicas: replica(server.id, here.id),
        certificates: certificate("a.example.com"),
    );
    let site = site("a.example.com", account.id, server.id, 20_000);
    store.sites().create(&site, &[]).await.unwrap();
    assert_eq!(store.sites().get(site.id).await.unwrap(), site);
    check!(databases: database("a_db", &site), releases: release(site.id));
    let operation = operation(server.id.uuid());
    store.operations().create(&operation, &[]).await.unwrap();
    assert_eq!(
        store.operations().get(operation.id).await.unwrap(),
        operation
    );
}

async fn of_many_writers_one_changes_a_version(store: Store) {
    let node = node("node-1");
    store.nodes().insert(&node).await.unwrap();
    let tries = (0..12).map(|n| {
        let (store, mut node) = (store.clone(), node.clone());
        tokio::spawn(async move {
            node.rack = Some(slug(&format!("rack-{n}")));
            store.nodes().update(&node, T0 + 1).await
        })
    });
    let results = futures_util::future::join_all(tries).await;
    let (won, lost): (Vec<_>, Vec<_>) = results
        .into_iter()
        .map(Result::unwrap)
        .partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter()
            .all(|e| matches!(e, Err(StoreError::Stale { expected: 1, .. })))
    );
    assert_eq!(
        store.nodes().get(node.id).await.unwrap(),
        *won[0].as_ref().unwrap()
    );
}

async fn many_modifications_are_all_kept(store: Store) {
    let plan = Plan {
        limits: json!({ "sites": 0 }),
        ..plan("small")
    };
    store.plans().insert(&plan).await.unwrap();
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .plans()
                .modify(plan.id, T0 + 1, |plan| {
                    let sites = plan.limits["sites"].as_i64().unwrap();
                    plan.limits = json!({ "sites": sites + 1 });
                    Ok(())
                })
                .await
        })
    });
    for result in futures_util::future::join_all(tries).await {
        result.unwrap().unwrap();
    }
    let plan = store.plans().get(plan.id).await.unwrap();
    assert_eq!((plan.limits, plan.version), (json!({ "sites": 8 }), 9));
}

async fn a_stale_or_missing_record_says_so(store: Store) {
    let node = node("node-1");
    let nodes = store.nodes();
    assert!(matches!(
        nodes.get(node.id).await,
        Err(StoreError::NotFound { record: "node", .. })
    ));
    assert!(matches!(
        nodes.update(&node, T0).await,
        Err(StoreError::NotFound { .. })
    ));
    nodes.insert(&node).await.unwrap();
    nodes.update(&node, T0).await.unwrap();
    assert!(matches!(
        nodes.update(&node, T0).await,
        Err(StoreError::Stale { .. })
    ));
    assert!(matches!(
        nodes.delete(node.id, Some(1)).await,
        Err(StoreError::Stale { .. })
    ));
    nodes.delete(node.id, Some(2)).await.unwrap();
    assert!(matches!(
        nodes.delete(node.id, None).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn a_name_that_is_taken_is_told_with_its_field(store: Store) {
    store.nodes().insert(&node("node-1")).await.unwrap();
    let error = store.nodes().insert(&node("node-1")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a node whose name is `node-1` exists already"
    );

    store.servers().insert(&server("web-1", 1)).await.unwrap();
    let other = Server {
        name: slug("web-2"),
        ..server("web-1", 1)
    };
    let StoreError::Taken { field, .. } = store.servers().insert(&other).await.unwrap_err() else {
        panic!("must be taken")
    };
    assert!(["mac", "ipv4", "ipv6"].contains(&field.as_str()), "{field}");

    let third = server("web-3", 3);
    store.servers().insert(&third).await.unwrap();
    let renamed = Server {
        name: slug("web-1"),
        ..third
    };
    let error = store.servers().update(&renamed, T0).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Taken {
                record: "server",
                ..
            }
        ),
        "{error:?}"
    );
}

async fn pages_show_everything_once_while_others_insert(store: Store) {
    let before: Vec<Plan> = (0..25).map(|n| plan(&format!("plan-{n}"))).collect();
    for plan in &before {
        store.plans().insert(plan).await.unwrap();
    }
    let (mut seen, mut page) = (Vec::new(), PageRequest::first(10));
    for round in 0.. {
        let found = store
            .plans()
            .list(&PlanFilter::default(), page)
            .await
            .unwrap();
        assert!(found.items.len() <= 10);
        seen.extend(found.items.iter().map(|plan| plan.id));
        if round < 3 {
            store
                .plans()
                .insert(&plan(&format!("late-{round}")))
                .await
                .unwrap();
        }
        match found.next {
            Some(next) => page = page.after(Some(next)),
            None => break,
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "each once, in order");
    assert!(before.iter().all(|plan| seen.contains(&plan.id)));

    let newest = store
        .plans()
        .list(&PlanFilter::default(), PageRequest::newest(3))
        .await
        .unwrap();
    assert!(newest.items.is_sorted_by(|a, b| a.id > b.id));
    let rest = PageRequest::newest(500).after(newest.next);
    let rest = store
        .plans()
        .list(&PlanFilter::default(), rest)
        .await
        .unwrap();
    assert_eq!(
        rest.items.len() + 3,
        store.plans().count(&PlanFilter::default()).await.unwrap() as usize
    );
    assert_eq!(rest.next, None);
}

async fn a_filter_counts_and_lists_only_its_own(store: Store) {
    for (name, state) in [
        ("a", NodeState::Ready),
        ("b", NodeState::Cordoned),
        ("c", NodeState::Ready),
    ] {
        store
            .nodes()
            .insert(&Node {
                state,
                ..node(name)
            })
            .await
            .unwrap();
    }
    let ready = NodeFilter {
        state: Some(NodeState::Ready),
        ..NodeFilter::default()
    };
    assert_eq!(store.nodes().count(&ready).await.unwrap(), 2);
    let names: Vec<_> = store
        .nodes()
        .all(&ready)
        .await
        .unwrap()
        .into_iter()
        .map(|n| n.name.to_string())
        .collect();
    assert_eq!(names, ["a", "c"]);
    let by_name = NodeFilter {
        name: Some(slug("b")),
        ..NodeFilter::default()
    };
    assert_eq!(
        store
            .nodes()
            .find_by(&by_name)
            .await
            .unwrap()
            .unwrap()
            .state,
        NodeState::Cordoned
    );
}

async fn what_is_in_use_cannot_be_removed(store: Store) {
    let (account, server) = tenant(&store).await;
    let error = store.plans().delete(account.plan, None).await.unwrap_err();
    assert!(
        matches!(error, StoreError::InUse { record: "plan", .. }),
        "{error:?}"
    );
    let site = site("a.example.com", account.id, server.id, 20_000);
    store
        .sites()
        .create(&site, &[domain("www.example.com")])
        .await
        .unwrap();
    assert!(matches!(
        store.servers().delete(server.id, None).await,
        Err(StoreError::InUse { .. })
    ));
    store.sites().delete(site.id, None).await.unwrap();
    // Its names went with it.
    store
        .sites()
        .create(
            &crate::fixtures::site("www.example.com", account.id, server.id, 20_001),
            &[],
        )
        .await
        .unwrap();
}

async fn a_reference_to_nothing_is_refused(store: Store) {
    let error = store
        .accounts()
        .insert(&account("acme", id()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::MissingReference { record: "account" }),
        "{error:?}"
    );
}

async fn a_dropped_transaction_leaves_nothing(store: Store) {
    let tx = store.begin().await.unwrap();
    tx.nodes().insert(&node("node-1")).await.unwrap();
    tx.events()
        .announce(vec![event("node.joined")])
        .await
        .unwrap();
    tx.counters().next_site_uid().await.unwrap();
    drop(tx);
    let tx = store.begin().await.unwrap();
    tx.nodes().insert(&node("node-2")).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(
        store.nodes().count(&NodeFilter::default()).await.unwrap(),
        0
    );
    assert_eq!(store.events().newest().await.unwrap(), 0);
    assert_eq!(store.events().after(0, None, 10).await.unwrap(), []);
}

async fn a_transaction_cannot_go_on_after_an_error(store: Store) {
    store.nodes().insert(&node("node-1")).await.unwrap();
    let tx = store.begin().await.unwrap();
    tx.nodes().insert(&node("node-2")).await.unwrap();
    assert!(matches!(
        tx.nodes().insert(&node("node-1")).await,
        Err(StoreError::Taken { .. })
    ));
    assert!(matches!(tx.commit().await, Err(StoreError::Aborted)));
    assert_eq!(
        store.nodes().count(&NodeFilter::default()).await.unwrap(),
        1
    );
}

async fn reports_leave_the_version_alone(store: Store) {
    let (node, edge, instance) = (node("node-1"), edge("edge-1"), instance("one"));
    store.nodes().insert(&node).await.unwrap();
    store.edges().insert(&edge).await.unwrap();
    store.instances().insert(&instance).await.unwrap();
    let facts = NodeFacts {
        inventory: json!({ "cpu": 8000 }),
        capacity: json!({}),
        accelerator: "kvm".to_owned(),
        versions: json!({}),
    };
    store.nodes().report(node.id, &facts, T0 + 9).await.unwrap();
    store
        .edges()
        .report(edge.id, 7, &["a:1".to_owned()], "0.2.0", T0 + 9)
        .await
        .unwrap();
    store
        .instances()
        .heartbeat(instance.id, T0 + 9)
        .await
        .unwrap();
    // A change by somebody who had read it before keeps what was reported.
    store
        .nodes()
        .update(
            &Node {
                rack: Some(slug("r1")),
                ..node.clone()
            },
            T0,
        )
        .await
        .unwrap();
    let node = store.nodes().get(node.id).await.unwrap();
    assert_eq!((node.version, node.last_report_at), (2, Some(T0 + 9)));
    assert_eq!(
        (node.accelerator.as_str(), &node.inventory),
        ("kvm", &json!({ "cpu": 8000 }))
    );
    assert_eq!(store.edges().get(edge.id).await.unwrap().table_version, 7);
    assert_eq!(
        store
            .instances()
            .get(instance.id)
            .await
            .unwrap()
            .heartbeat_at,
        T0 + 9
    );
    assert!(matches!(
        store.nodes().report(id(), &facts, T0).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn a_lock_holds_others_until_the_commit(store: Store) {
    // Two requests at once on a plan of one site: only one may pass the check.
    let (account, server) = tenant(&store).await;
    let tries = (0..4).map(|n: u32| {
        let (store, account, server) = (store.clone(), account.id, server.id);
        tokio::spawn(async move {
            let tx = store.begin().await.unwrap();
            tx.accounts().lock(account).await.unwrap();
            let mine = SiteFilter {
                account: Some(account),
                ..SiteFilter::default()
            };
            if tx.sites().count(&mine).await.unwrap() >= 1 {
                return false;
            }
            let site = site(&format!("s{n}.example.com"), account, server, 20_000 + n);
            tx.sites().create(&site, &[]).await.unwrap();
            tx.commit().await.unwrap();
            true
        })
    });
    let passed = futures_util::future::join_all(tries).await;
    assert_eq!(
        passed
            .into_iter()
            .filter(|passed| *passed.as_ref().unwrap())
            .count(),
        1
    );
}

async fn settings_are_made_once_and_changed_by_version(store: Store) {
    let tries = (0..6).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.settings().put_new("ca", &n, T0).await.unwrap() })
    });
    let made = futures_util::future::join_all(tries).await;
    assert_eq!(
        made.into_iter()
            .filter(|made| *made.as_ref().unwrap())
            .count(),
        1
    );

    let settings = store.settings();
    settings.put("domain", &"a.localhost", T0).await.unwrap();
    settings
        .put("domain", &"b.localhost", T0 + 1)
        .await
        .unwrap();
    assert_eq!(
        settings.get::<String>("domain").await.unwrap().as_deref(),
        Some("b.localhost")
    );
    assert_eq!(settings.find("domain").await.unwrap().unwrap().version, 2);
    settings
        .update("domain", &"c.localhost", 2, T0 + 2)
        .await
        .unwrap();
    let stale = settings.update("domain", &"d.localhost", 2, T0 + 3).await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
    settings.remove("domain").await.unwrap();
    assert_eq!(settings.get::<String>("domain").await.unwrap(), None);
}

async fn a_later_lease_stays(store: Store) {
    let node = node("node-1");
    store.nodes().insert(&node).await.unwrap();
    let lease = |number, renewed_at| Lease {
        node: node.id,
        number,
        renewed_at,
    };
    store.leases().renew(&[lease(5, T0 + 5)]).await.unwrap();
    store.leases().renew(&[lease(4, T0 + 4)]).await.unwrap();
    store.leases().renew(&[]).await.unwrap();
    assert_eq!(store.leases().all().await.unwrap(), [lease(5, T0 + 5)]);
}

async fn a_node_is_asked_for_the_disks_that_its_copies_may_grow_to(store: Store) {
    let (one, two) = (node("one"), node("two"));
    let (small, big) = (server("small", 41), server("big", 42));
    let big = Server {
        disk: undine_model::Bytes::gib(7),
        ..big
    };
    for node in [&one, &two] {
        store.nodes().insert(node).await.unwrap();
    }
    for server in [&small, &big] {
        store.servers().insert(server).await.unwrap();
        store
            .replicas()
            .insert(&replica(server.id, one.id))
            .await
            .unwrap();
    }
    store
        .replicas()
        .insert(&replica(big.id, two.id))
        .await
        .unwrap();
    let promised = async |node: &Node| store.replicas().promised(node.id).await.unwrap();
    assert_eq!(promised(&one).await, undine_model::Bytes::gib(9));
    assert_eq!(promised(&two).await, undine_model::Bytes::gib(7));
}

async fn a_removal_outlives_its_server_and_goes_with_its_node(store: Store) {
    let (node, server) = (node("away"), server("gone", 43));
    store.nodes().insert(&node).await.unwrap();
    store
        .removals()
        .insert(&removal(server.id, node.id))
        .await
        .unwrap();
    let twice = store.removals().insert(&removal(server.id, node.id)).await;
    assert!(matches!(twice, Err(StoreError::Taken { .. })), "{twice:?}");
    let filter = RemovalFilter {
        node: Some(node.id),
        ..RemovalFilter::default()
    };
    assert_eq!(store.removals().all(&filter).await.unwrap()[0].epoch, 3);
    store.nodes().delete(node.id, None).await.unwrap();
    assert_eq!(store.removals().count(&filter).await.unwrap(), 0);
}
