//! Sites and their names.

use undine_store::*;

use crate::fixtures::*;
use crate::on_both;

on_both!(
    a_name_belongs_to_one_site_be_it_domain_or_alias,
    of_many_who_want_a_name_one_gets_it,
    a_site_is_found_by_any_of_its_names,
    a_site_gets_other_names_by_version,
    a_uid_is_never_shared,
    what_a_server_applied_only_grows,
    a_database_name_is_taken_on_its_server_only,
);

async fn a_name_belongs_to_one_site_be_it_domain_or_alias(store: Store) {
    let (account, server) = tenant(&store).await;
    let sites = store.sites();
    let first = site("a.example.com", account.id, server.id, 20_000);
    sites
        .create(&first, &[domain("www.example.com")])
        .await
        .unwrap();
    for (domain_name, alias) in [
        ("a.example.com", None),
        ("www.example.com", None),
        ("b.example.com", Some("a.example.com")),
    ] {
        let other = site(domain_name, account.id, server.id, 20_001);
        let aliases: Vec<_> = alias.into_iter().map(domain).collect();
        let error = sites.create(&other, &aliases).await.unwrap_err();
        let StoreError::Taken {
            record: "site",
            field,
            value,
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(
            (field.as_str(), value.as_str()),
            ("domain", alias.unwrap_or(domain_name))
        );
        assert_eq!(
            sites.find(other.id).await.unwrap(),
            None,
            "nothing is left of it"
        );
    }
}

async fn of_many_who_want_a_name_one_gets_it(store: Store) {
    let (account, server) = tenant(&store).await;
    let tries = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let site = site("a.example.com", account.id, server.id, 20_000 + n);
            store
                .sites()
                .create(&site, &[domain("www.example.com")])
                .await
        })
    });
    let results: Vec<_> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(
        results
            .iter()
            .filter(|r| matches!(r, Err(StoreError::Taken { .. })))
            .count(),
        7,
        "{results:?}"
    );
}

async fn a_site_is_found_by_any_of_its_names(store: Store) {
    let (account, server) = tenant(&store).await;
    let plain = site("plain.example.com", account.id, server.id, 20_000);
    let named = site("a.example.com", account.id, server.id, 20_001);
    let aliases = [
        domain("www.example.com"),
        domain("b.example.com"),
        domain("a.example.com"),
    ];
    store.sites().create(&plain, &[]).await.unwrap();
    store.sites().create(&named, &aliases).await.unwrap();
    for name in ["a.example.com", "www.example.com", "b.example.com"] {
        assert_eq!(
            store.sites().by_name(name).await.unwrap().as_ref(),
            Some(&named)
        );
    }
    assert_eq!(store.sites().by_name("c.example.com").await.unwrap(), None);
    let found = store
        .sites()
        .aliases(&[plain, named.clone()])
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[&named.id],
        [domain("b.example.com"), domain("www.example.com")]
    );
    assert_eq!(store.sites().aliases_of(named.id).await.unwrap().len(), 2);
}

async fn a_site_gets_other_names_by_version(store: Store) {
    let (account, server) = tenant(&store).await;
    let sites = store.sites();
    let site = site("a.example.com", account.id, server.id, 20_000);
    sites
        .create(&site, &[domain("www.example.com")])
        .await
        .unwrap();
    let (to, alias) = (domain("b.example.com"), [domain("a.example.com")]);
    let renamed = sites
        .set_names(site.id, 1, &to, &alias, T0 + 1)
        .await
        .unwrap();
    assert_eq!(
        (renamed.domain.as_str(), renamed.version),
        ("b.example.com", 2)
    );
    assert_eq!(sites.by_name("www.example.com").await.unwrap(), None);
    assert_eq!(sites.aliases_of(site.id).await.unwrap(), alias);
    let stale = sites.set_names(site.id, 1, &to, &[], T0 + 2).await;
    assert!(matches!(stale, Err(StoreError::Stale { expected: 1, .. })));
    // A plain update cannot change the name behind the list's back.
    let sly = Site {
        domain: domain("c.example.com"),
        ..renamed
    };
    sites.update(&sly, T0 + 3).await.unwrap();
    assert_eq!(
        sites.get(site.id).await.unwrap().domain.as_str(),
        "b.example.com"
    );
}

async fn a_uid_is_never_shared(store: Store) {
    let (account, server) = tenant(&store).await;
    let first = site("a.example.com", account.id, server.id, 20_000);
    store.sites().create(&first, &[]).await.unwrap();
    let second = site("b.example.com", account.id, server.id, 20_000);
    let error = store.sites().create(&second, &[]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a site whose uid is `20000` exists already"
    );
}

async fn what_a_server_applied_only_grows(store: Store) {
    let (account, server) = tenant(&store).await;
    let site = site("a.example.com", account.id, server.id, 20_000);
    store.sites().create(&site, &[]).await.unwrap();
    store.sites().applied(&[site.id], 5).await.unwrap();
    store.sites().applied(&[site.id], 4).await.unwrap();
    let read = store.sites().get(site.id).await.unwrap();
    assert_eq!((read.applied_version, read.version), (5, 1));
}

async fn a_database_name_is_taken_on_its_server_only(store: Store) {
    let (account, first) = tenant(&store).await;
    let second = server("web-2", 2);
    store.servers().insert(&second).await.unwrap();
    let here = site("a.example.com", account.id, first.id, 20_000);
    let there = site("b.example.com", account.id, second.id, 20_001);
    store.sites().create(&here, &[]).await.unwrap();
    store.sites().create(&there, &[]).await.unwrap();
    store
        .databases()
        .insert(&database("shop", &here))
        .await
        .unwrap();
    store
        .databases()
        .insert(&database("shop", &there))
        .await
        .unwrap();
    let error = store
        .databases()
        .insert(&database("shop", &here))
        .await
        .unwrap_err();
    let StoreError::Taken { field, value, .. } = error else {
        panic!("{error:?}")
    };
    assert!(["name", "username"].contains(&field.as_str()));
    assert_eq!(value, "shop");
    // A site with databases does not go before them.
    assert!(matches!(
        store.sites().delete(here.id, None).await,
        Err(StoreError::InUse { .. })
    ));
}
