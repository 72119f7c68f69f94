//! The schema: built step by step on rows of its time, made once by many, refused when newer.

use undine_model::ResellerId;
use undine_store::*;

use crate::databases::{Empty, Postgres, Sqlite};
use crate::fixtures::*;
use crate::on_both;

on_both!(a_second_migration_does_nothing);

async fn a_second_migration_does_nothing(store: Store) {
    let again = store.migrate().await.unwrap();
    assert_eq!(again.applied, 0);
    assert!(again.schema >= 1);
    store.check_schema().await.unwrap();
}

/// For each step, rows as a program of that time wrote them.
const ROWS: &[&str] = &[
    include_str!("schema/v0001_first.sql"),
    include_str!("schema/v0002_failover.sql"),
    include_str!("schema/v0010_people.sql"),
    include_str!("schema/v0011_second_step.sql"),
    include_str!("schema/v0012_scrub.sql"),
    include_str!("schema/v0013_memory.sql"),
    include_str!("schema/v0015_mail.sql"),
    include_str!("schema/v0016_resellers.sql"),
    include_str!("schema/v0017_narrower.sql"),
    include_str!("schema/v0018_suspended_resellers.sql"),
];

/// Each step is applied to a database that already holds the rows of the steps before.
async fn steps_carry_their_rows_forward(database: impl Empty) {
    let store = Store::connect(&database.url()).await.unwrap();
    assert!(matches!(
        store.check_schema().await,
        Err(StoreError::NotMigrated)
    ));
    for rows in ROWS {
        let done = store.migrate_by(Some(1)).await.unwrap();
        assert_eq!(done.applied, 1, "every step has its rows here");
        let statements = rows.lines().filter(|line| !line.starts_with("--"));
        for statement in statements {
            database.execute(&database.with_uuids(statement)).await;
        }
    }
    assert_eq!(
        store.migrate().await.unwrap().applied,
        0,
        "every step has its rows here"
    );
    store.check_schema().await.unwrap();
    every_row_is_read(&store).await;
}

async fn every_row_is_read(store: &Store) {
    macro_rules! one {
        ($($table:ident: $filter:ident),* $(,)?) => {$(
            let found = store.$table().all(&$filter::default()).await.unwrap();
            assert_eq!(found.len(), 1, stringify!($table));
            store.$table().update(&found[0], T0 + 9).await.unwrap();
        )*};
    }
    one!(
        instances: InstanceFilter, nodes: NodeFilter, edges: EdgeFilter,
        join_tokens: JoinTokenFilter, resellers: ResellerFilter, plans: PlanFilter, accounts: AccountFilter,
        tokens: TokenFilter, audit: AuditFilter, profiles: ProfileFilter, images: ImageFilter,
        servers: ServerFilter, replicas: ReplicaFilter, sites: SiteFilter,
        databases: DatabaseFilter, releases: ReleaseFilter, certificates: SiteCertificateFilter,
        operations: OperationFilter, removals: RemovalFilter,
        people: PersonFilter, memberships: MembershipFilter,
        sessions: LoginFilter, links: LinkFilter, failures: FailuresFilter, doubts: DoubtFilter,
        mails: MailFilter,
    );
    what_the_second_step_added(store).await;
    let account = store.accounts().all(&AccountFilter::default()).await;
    let account = account.unwrap().remove(0);
    let plan = store.plans().get(account.plan).await.unwrap();
    assert!(account.reseller.is_some() && account.reseller == plan.reseller);
    let reseller = store.resellers().get(account.reseller.unwrap()).await;
    let reseller = reseller.unwrap();
    assert_eq!(reseller.state, ResellerState::SuspendedWithCustomers);
    let tokens = store.tokens().all(&TokenFilter::default()).await.unwrap();
    assert_eq!(tokens[0].made_by, Some(reseller.id));
    let people = store.people().all(&PersonFilter::default()).await.unwrap();
    assert_eq!(people[0].second.as_ref().unwrap()["last"], 7);
    let gone = store.sites().all(&SiteFilter::default()).await.unwrap();
    assert_eq!(gone[0].gone_at, Some(1_700_086_400_000));
    let site = store
        .sites()
        .by_name("www.example.com")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((site.domain.as_str(), site.uid), ("a.example.com", 20_041));
    assert_eq!(store.counters().next_site_uid().await.unwrap(), 20_042);
    assert_eq!(store.leases().all().await.unwrap()[0].number, 7);
    let cluster: serde_json::Value = store.settings().get("cluster").await.unwrap().unwrap();
    assert_eq!(cluster["domain"], "old.localhost");
    let taken = store
        .operations()
        .claim(id(), T0 + 9, 5)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        store.operations().steps(taken.id).await.unwrap()[0].name,
        "place"
    );
    let page = store
        .operations()
        .of(taken.subjects[0], PageRequest::first(5))
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(store.events().after(0, None, 9).await.unwrap().len(), 2);
    store.events().announce(vec![event("later")]).await.unwrap();
    assert_eq!(store.events().newest().await.unwrap(), 3);
}

/// Rows of the first schema got what fail-over needs: one slot, middling importance.
async fn what_the_second_step_added(store: &Store) {
    let server = store.servers().all(&ServerFilter::default()).await.unwrap();
    assert_eq!((server[0].slots, server[0].importance), (1, 5));
    assert_eq!(server[0].scrubbed_at, Some(1_700_000_000_009));
    let node = store.nodes().all(&NodeFilter::default()).await.unwrap();
    assert_eq!((node[0].cordoned, node[0].fenced_at), (false, None));
    assert_eq!(node[0].bmc, None);
    let replica = store.replicas().all(&ReplicaFilter::default()).await;
    let replica = replica.unwrap().remove(0);
    assert_eq!((replica.left_epoch, replica.left_at), (None, None));
}

/// Many instances that start at once: one migrates, the others wait and find it done.
async fn of_many_that_start_at_once_one_migrates(database: impl Empty) {
    let url = database.url();
    let tries = (0..4).map(|_| {
        let url = url.clone();
        tokio::spawn(async move {
            let store = Store::connect(&url).await.unwrap();
            store.migrate().await.unwrap().applied
        })
    });
    let applied: usize = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(applied, ROWS.len());
}

async fn a_newer_database_is_refused(database: impl Empty) {
    let store = Store::connect(&database.url()).await.unwrap();
    store.migrate().await.unwrap();
    database
        .execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('v9999_far', 1)")
        .await;
    for error in [store.migrate().await.map(drop), store.check_schema().await] {
        let said = error.unwrap_err().to_string();
        assert!(
            said.contains("`v9999_far`") && said.contains("newer version"),
            "{said}"
        );
    }
}

macro_rules! on_both_empty {
    ($($name:ident),* $(,)?) => {
        mod sqlite_empty {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::databases::EmptySqlite::new()).await;
            })*
        }
        mod postgres_empty {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::databases::EmptyPostgres::new()).await;
            })*
        }
    };
}
on_both_empty!(
    steps_carry_their_rows_forward,
    of_many_that_start_at_once_one_migrates,
    a_newer_database_is_refused,
    of_two_resellers_with_one_host_name_the_older_keeps_it,
);

/// A released step is never edited: a change of the schema is a new step.
#[tokio::test]
async fn the_first_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(1))
        .await
        .unwrap();
    insta::assert_snapshot!("v0001_first", database.schema().await);
}

#[tokio::test]
async fn the_second_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(2))
        .await
        .unwrap();
    insta::assert_snapshot!("v0002_failover", database.schema().await);
}

#[tokio::test]
async fn the_third_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(3))
        .await
        .unwrap();
    insta::assert_snapshot!("v0010_people", database.schema().await);
}

#[tokio::test]
async fn the_fourth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(4))
        .await
        .unwrap();
    insta::assert_snapshot!("v0011_second_step", database.schema().await);
}

#[tokio::test]
async fn the_fifth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(5))
        .await
        .unwrap();
    insta::assert_snapshot!("v0012_scrub", database.schema().await);
}

#[tokio::test]
async fn the_sixth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(6))
        .await
        .unwrap();
    insta::assert_snapshot!("v0013_memory", database.schema().await);
}

#[tokio::test]
async fn the_seventh_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(7))
        .await
        .unwrap();
    insta::assert_snapshot!("v0015_mail", database.schema().await);
}

#[tokio::test]
async fn the_eighth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(8))
        .await
        .unwrap();
    insta::assert_snapshot!("v0016_resellers", database.schema().await);
}

#[tokio::test]
async fn the_ninth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(9))
        .await
        .unwrap();
    insta::assert_snapshot!("v0017_narrower", database.schema().await);
}

#[tokio::test]
async fn the_tenth_schema_is_as_it_was_released() {
    let database = crate::databases::EmptySqlite::new();
    Store::connect(&database.url())
        .await
        .unwrap()
        .migrate_by(Some(10))
        .await
        .unwrap();
    insta::assert_snapshot!("v0018_suspended_resellers", database.schema().await);
}

/// Before there was a guard, two resellers could get one name: the oldest keeps it, the schema's
/// step does not fail on the others.
async fn of_two_resellers_with_one_host_name_the_older_keeps_it(database: impl Empty) {
    let store = Store::connect(&database.url()).await.unwrap();
    store.migrate_by(Some(8)).await.unwrap();
    let ids: Vec<ResellerId> = (0..3).map(|_| id()).collect();
    for (n, own) in ids.iter().enumerate() {
        let host = if n < 2 {
            "one.example.com"
        } else {
            "two.example.com"
        };
        let insert = format!(
            "INSERT INTO resellers (id, version, created_at, updated_at, name, limits, brand) \
             VALUES (uuid:{own}, 1, 1, 1, 'n{n}', '{{}}', '{{\"host\": \"{host}\"}}')"
        );
        database.execute(&database.with_uuids(&insert)).await;
    }
    store.migrate().await.unwrap();
    let mut hosts = Vec::new();
    for own in ids {
        hosts.push(store.resellers().get(own).await.unwrap().host);
    }
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(
        hosts,
        [some("one.example.com"), None, some("two.example.com")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_while_it_runs_and_put_back_while_it_does_not() {
    let database = Sqlite::new().await;
    let (store, url) = (database.store(), database.url());
    store.nodes().insert(&node("before")).await.unwrap();
    let backup = database.folder().join("backup.db");
    let busy = store.begin().await.unwrap();
    busy.nodes().insert(&node("uncommitted")).await.unwrap();
    store.backup(&backup).await.unwrap();
    busy.commit().await.unwrap();
    let again = store.backup(&backup).await.unwrap_err().to_string();
    assert!(again.contains("never overwrites"), "{again}");

    let running = backup::restore(&backup, &url)
        .await
        .unwrap_err()
        .to_string();
    assert!(running.contains("stop undine-control"), "{running}");
    assert_eq!(
        store.nodes().count(&NodeFilter::default()).await.unwrap(),
        2
    );

    store.close().await;
    backup::restore(&backup, &url).await.unwrap();
    let store = Store::connect(&url).await.unwrap();
    store.check_schema().await.unwrap();
    let nodes = store.nodes().all(&NodeFilter::default()).await.unwrap();
    assert_eq!(
        nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(),
        ["before"]
    );
    assert_eq!(
        store.settings().get(Settings::RESTORED).await.unwrap(),
        Some(true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_backup_of_this_program_is_refused() {
    let database = Sqlite::new().await;
    let folder = database.folder();
    let target = format!("sqlite://{}", folder.join("new.db").display());
    let garbage = folder.join("garbage");
    std::fs::write(&garbage, "no database").unwrap();
    let error = backup::restore(&garbage, &target).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");

    let newer = folder.join("newer.db");
    database.store().backup(&newer).await.unwrap();
    let url = format!("sqlite://{}", newer.display());
    crate::databases::execute(
        &url,
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('v9999_far', 1)",
    )
    .await;
    let error = backup::restore(&newer, &target).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NewerDatabase { .. }),
        "{error:?}"
    );

    let older = folder.join("older.db");
    database.store().backup(&older).await.unwrap();
    let url = format!("sqlite://{}", older.display());
    crate::databases::execute(&url, "DELETE FROM seaql_migrations").await;
    let error = backup::restore(&older, &target)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("older program"), "{error}");
    assert!(!folder.join("new.db").exists(), "nothing is left behind");
    assert!(
        !folder.join("new.db.restoring").exists(),
        "nothing is left behind"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgres_is_put_into_an_empty_database_only() {
    let database = Postgres::new().await;
    database
        .store()
        .nodes()
        .insert(&node("before"))
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("control.dump");
    backup::dump_postgres(&database.url(), &dump).await.unwrap();
    let full = backup::restore_postgres(&dump, &database.url())
        .await
        .unwrap_err()
        .to_string();
    assert!(full.contains("not empty"), "{full}");

    let empty = database.server().create_database();
    backup::restore_postgres(&dump, &empty).await.unwrap();
    let store = Store::connect(&empty).await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(
        store.nodes().count(&NodeFilter::default()).await.unwrap(),
        1
    );
    assert_eq!(
        store.settings().get(Settings::RESTORED).await.unwrap(),
        Some(true)
    );
}

/// A real standby: the first host dies, the second is promoted, the same store goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fail_over_the_store_follows_the_new_primary() {
    use std::time::{Duration, Instant};
    let first = undine_testkit::postgres::Server::start();
    let database = first.create_database();
    let name = database.rsplit('/').next().unwrap().to_owned();
    let second = first.start_standby();
    // The standby stands first in the URL: what takes writes is found all the same.
    let url = format!(
        "postgres://postgres@{},{}/{name}",
        second.host(),
        first.host()
    );
    let store = Store::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    store.nodes().insert(&node("before")).await.unwrap();
    let caught_up = Instant::now();
    while second.replayed(&name, "SELECT count(*) FROM nodes") != Some("1".to_owned()) {
        assert!(
            caught_up.elapsed() < Duration::from_secs(30),
            "the standby does not follow"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.kill();
    second.promote();
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        match store.nodes().insert(&node("after")).await {
            Ok(()) | Err(StoreError::Taken { .. }) => break,
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no new primary after {tries} tries"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = store.nodes().all(&NodeFilter::default()).await.unwrap();
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn an_unreachable_database_says_so() {
    let error = Store::connect("postgres://u:secret@127.0.0.1:1/db")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the database cannot be reached");
    let error = Store::connect("sqlite:///nonexistent/folder/x.db")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/folder/x.db"),
        "{error}"
    );
}
