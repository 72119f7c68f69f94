//! The lives of the store: one begins once, every server is in doubt from then on, and a promoted
//! standby is noticed before anything is read from it.

use std::time::{Duration, Instant};

use undine_store::*;

use crate::databases::Postgres;
use crate::fixtures::*;
use crate::on_both;

on_both!(
    of_two_who_begin_a_life_one_does,
    a_doubt_keeps_how_its_server_stood_first,
    a_term_that_nodes_have_heard_is_risen_above,
    the_mark_rises_with_what_happens,
    a_record_s_version_rises_and_never_falls,
);

async fn doubts(store: &Store) -> Vec<Doubt> {
    store.doubts().all(&DoubtFilter::default()).await.unwrap()
}

async fn of_two_who_begin_a_life_one_does(store: Store) {
    store.servers().insert(&server("web-1", 1)).await.unwrap();
    let before = store.life().now().await.unwrap();
    // PostgreSQL notices by itself when it is another place than it says.
    let place = match before.place.as_str() {
        "" => "here".to_owned(),
        its => its.to_owned(),
    };
    let (one, two) = (store.life(), store.life());
    let (one, two) = tokio::join!(
        one.begin(before.term, &place),
        two.begin(before.term, &place)
    );
    assert!(one.unwrap() ^ two.unwrap());
    let after = store.life().now().await.unwrap();
    assert!(after.term > before.term);
    assert_eq!(after.place, place);
    assert_eq!(doubts(&store).await.len(), 1);
}

async fn a_doubt_keeps_how_its_server_stood_first(store: Store) {
    let web = server("web-1", 1);
    store.servers().insert(&web).await.unwrap();
    let first = store.life().now().await.unwrap();
    store.life().begin(first.term, "here").await.unwrap();
    let mut doubt = doubts(&store).await.remove(0);
    assert_eq!((doubt.id, doubt.epoch, doubt.stood), (web.id, 1, NEW));
    doubt.blocked = Some("node-2 knows more".to_owned());
    store.doubts().update(&doubt, T0).await.unwrap();
    let web = store.servers().get(web.id).await.unwrap();
    store.servers().update(&web, T0).await.unwrap();

    // The store goes back again before anybody was asked: what stood then still counts.
    let second = store.life().now().await.unwrap();
    store.life().begin(second.term, "here").await.unwrap();
    let again = doubts(&store).await.remove(0);
    assert_eq!((again.stood, again.blocked), (NEW, None));
    store.servers().delete(web.id, None).await.unwrap();
    assert!(doubts(&store).await.is_empty(), "it goes with its server");
}

async fn a_term_that_nodes_have_heard_is_risen_above(store: Store) {
    store.servers().insert(&server("web-1", 1)).await.unwrap();
    let here = store.life().now().await.unwrap();
    let heard = here.term + 5_000_000_000;
    assert!(store.life().rise_above(here.term, heard).await.unwrap());
    assert!(!store.life().rise_above(here.term, heard).await.unwrap());
    let risen = store.life().now().await.unwrap();
    assert!(risen.term > heard);
    assert_eq!(risen.place, here.place);
    assert_eq!(doubts(&store).await.len(), 1);
}

async fn the_mark_rises_with_what_happens(store: Store) {
    let before = store.life().mark().await.unwrap();
    store.counters().next_of("something").await.unwrap();
    assert!(store.life().mark().await.unwrap() > before);
}

async fn a_record_s_version_rises_and_never_falls(store: Store) {
    let web = server("web-1", 1);
    store.servers().insert(&web).await.unwrap();
    store.servers().rise(web.id, 40).await.unwrap();
    store.servers().rise(web.id, 12).await.unwrap();
    assert_eq!(store.servers().get(web.id).await.unwrap().version, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_merely_restarted_lives_on() {
    let database = Postgres::new().await;
    let store = database.store();
    let life = store.life().now().await.unwrap();
    assert!(
        life.place.starts_with("postgres:"),
        "its first life began by itself: {life:?}"
    );
    store.servers().insert(&server("web-1", 1)).await.unwrap();
    let again = Store::connect(&database.url()).await.unwrap();
    assert_eq!(again.life().now().await.unwrap(), life);
    assert!(doubts(&again).await.is_empty());
}

/// A standby that lacks the last commit takes the first one's place under a store that is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_noticed_before_anything_is_read_from_it() {
    let first = undine_testkit::postgres::Server::start();
    let database = first.create_database();
    let name = database.rsplit('/').next().unwrap().to_owned();
    let before = Store::connect(&database).await.unwrap();
    before.migrate().await.unwrap();
    before.servers().insert(&server("web-1", 1)).await.unwrap();
    let life = before.life().now().await.unwrap();
    let second = first.start_standby();
    let url = format!(
        "postgres://postgres@{},{}/{name}",
        first.host(),
        second.host()
    );
    let (one, two) = (
        Store::connect(&url).await.unwrap(),
        Store::connect(&url).await.unwrap(),
    );
    assert_eq!(one.life().now().await.unwrap(), life);
    first.kill();
    second.promote();

    // Two instances find it at once; whatever they read first, the doubt is there already.
    let (seen, also) = tokio::join!(found(&one), found(&two));
    assert_eq!((seen.len(), also.len()), (1, 1));
    let next = one.life().now().await.unwrap();
    assert!(next.term > life.term && next.place != life.place);
    assert_eq!(two.life().now().await.unwrap(), next, "it began once");
}

async fn found(store: &Store) -> Vec<Doubt> {
    let begun = Instant::now();
    loop {
        // A server read from the new primary, and what was in doubt by then.
        if let Ok(servers) = store.servers().all(&ServerFilter::default()).await {
            assert_eq!(servers.len(), 1);
            return doubts(store).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no new primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
