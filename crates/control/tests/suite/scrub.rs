//! The copies of a server's disk are compared: when asked for, and when it is time.

use std::time::Duration;

use serde_json::{Value, json};
use undine_control::background::scrub;
use undine_store::{Db, ServerFilter};

use crate::failover::Three;
use crate::world::World;

async fn three() -> (Three, String) {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    (three, server)
}

async fn newest(three: &Three, server: &str) -> Value {
    let path = format!("/v1/operations?subject={server}");
    let page = three.world.get(&path).await.expect(200);
    let items = page.body["items"].as_array().unwrap().clone();
    let scrub = items.into_iter().find(|it| it["kind"] == "server.scrub");
    scrub.expect("there is one")
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_equal_stay_and_the_time_is_shown() {
    let (three, server) = three().await;
    assert!(three.shown(&server).await.0["scrubbed_at"].is_null());
    let path = format!("/v1/servers/{server}/scrub");
    let reply = three.world.post(&path, json!({})).await.expect(202);
    three.world.done(&reply).await;
    let shown = three.shown(&server).await;
    assert_eq!(shown.copies("in_sync").len(), 2);
    assert!(shown.0["scrubbed_at"].is_i64(), "{:#}", shown.0);
    assert_eq!(three.told_of_differing(&server).await, 0);
    assert_eq!(three.operations(&server, "server.replicate").await.len(), 0);
    let ended = newest(&three, &server).await;
    assert!(ended["reason"].as_str().unwrap().contains("asked for by"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_differs_is_told_of_shown_and_copied_anew_in_full() {
    let (three, server) = three().await;
    let bad = three.spoil_other_copy(&server).await;
    let owner = three.owner(&server).await;
    three.nodes[owner].state().hold_joins = true;
    let path = format!("/v1/servers/{server}/scrub");
    let reply = three.world.post(&path, json!({})).await.expect(202);
    three.world.done(&reply).await;
    let left = three
        .until(&server, |it| it.copies("syncing").len() == 1)
        .await;
    assert!(left.running());
    let said = left.0["replicas"].to_string();
    assert!(said.contains("it differs, says the test"), "{said}");
    three.nodes[owner].state().hold_joins = false;
    three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    let full = format!("PUT servers/{server}/joins/{bad} Full");
    assert!(three.nodes[owner].count(&full) > 0);
    assert_eq!(three.told_of_differing(&server).await, 1);
    let store = &three.world.instances[0].control.store;
    let events = store.events().after(0, None, 500).await.unwrap();
    let told = events
        .iter()
        .filter(|it| it.event.kind == "server.copy_differs")
        .count();
    assert_eq!(told, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_refused_with_what_to_do() {
    let (three, server) = three().await;
    let path = format!("/v1/servers/{server}/scrub");
    let owner = three.owner(&server).await;
    three.nodes[owner].state().hold_scrubs = true;
    let first = three.world.post(&path, json!({})).await.expect(202);
    let again = three.world.post(&path, json!({})).await.expect(409);
    assert!(again.text("/type").ends_with("busy"), "{again:?}");
    three.nodes[owner].state().hold_scrubs = false;
    three.world.done(&first).await;

    let wish = json!({"name": "alone", "profile": "static", "replicas": 1});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let alone = reply.text("/server/id");
    let path = format!("/v1/servers/{alone}/scrub");
    let refused = three.world.post(&path, json!({})).await.expect(409);
    assert!(
        refused.text("/type").ends_with("nothing-to-compare"),
        "{refused:?}"
    );
    let stop = format!("/v1/servers/{alone}/stop");
    let reply = three.world.post(&stop, json!({})).await.expect(202);
    three.world.done(&reply).await;
    let refused = three.world.post(&path, json!({})).await.expect(409);
    assert!(
        refused.text("/type").ends_with("wrong-state"),
        "{refused:?}"
    );
    assert!(!refused.text("/remedy").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_meanwhile_ends_its_comparison_and_nobody_is_accused() {
    let (three, server) = three().await;
    let owner = three.owner(&server).await;
    three.nodes[owner].state().hold_scrubs = true;
    let path = format!("/v1/servers/{server}/scrub");
    three.world.post(&path, json!({})).await.expect(202);
    let asked = format!("PUT servers/{server}/scrubs/");
    while three.nodes[owner].count(&asked) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stop = format!("/v1/servers/{server}/stop");
    let reply = three.world.post(&stop, json!({})).await.expect(202);
    three.world.done(&reply).await;
    three.operation_ends(&server, "server.scrub").await;
    assert_eq!(three.operations(&server, "server.scrub").await, ["failed"]);
    let shown = three.shown(&server).await;
    assert_eq!(shown.copies("in_sync").len(), 2);
    assert!(shown.0["scrubbed_at"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_compared_when_it_is_time_once_and_never_when_that_is_off() {
    let (three, server) = three().await;
    let control = &three.world.instances[0].control;
    scrub::turn(control).await.unwrap();
    assert_eq!(three.operations(&server, "server.scrub").await.len(), 0);
    let long_ago = undine_control::clock::now_ms() - 31 * 86_400_000;
    let all = control.store.servers().all(&ServerFilter::default()).await;
    let mut record = all.unwrap().remove(0);
    record.scrubbed_at = Some(long_ago);
    control.store.servers().update(&record, 1).await.unwrap();

    let off = json!({"scrub_every_days": 0});
    let path = "/v1/settings/failover";
    three
        .world
        .change("PATCH", path, Some(off))
        .await
        .expect(200);
    scrub::turn(control).await.unwrap();
    assert_eq!(three.operations(&server, "server.scrub").await.len(), 0);
    let on = json!({"scrub_every_days": 30});
    three
        .world
        .change("PATCH", path, Some(on))
        .await
        .expect(200);

    // Several instances look at the same time.
    let owner = three.owner(&server).await;
    three.nodes[owner].state().hold_scrubs = true;
    let turns = (0..3).map(|_| scrub::turn(control));
    for turned in futures_util::future::join_all(turns).await {
        turned.unwrap();
    }
    assert_eq!(three.operations(&server, "server.scrub").await.len(), 1);
    three.nodes[owner].state().hold_scrubs = false;
    three.operation_ends(&server, "server.scrub").await;
    let ended = newest(&three, &server).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["reason"], "its copies are compared every 30 days");
    assert!(
        three.shown(&server).await.0["scrubbed_at"]
            .as_i64()
            .unwrap()
            > long_ago
    );
    scrub::turn(control).await.unwrap();
    assert_eq!(three.operations(&server, "server.scrub").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_value_that_makes_no_sense_names_its_field() {
    let world = World::new().await;
    for (field, value) in [("scrub_every_days", 99_999), ("scrub_limit_bytes_s", 7)] {
        let wish = json!({ field: value });
        let refused = world
            .change("PATCH", "/v1/settings/failover", Some(wish))
            .await;
        assert_eq!(refused.expect(422).text("/field"), field);
    }
}
