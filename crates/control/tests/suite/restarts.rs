//! Restarting what a site runs, by the API and by the panel.

use serde_json::json;
use undine_model::{Bytes, SiteId};
use undine_testkit::node::FakeNode;

use crate::panel::owner;
use crate::world::World;

fn restarted(node: &FakeNode) -> Vec<SiteId> {
    let state = node.state();
    let mut guests = state.servers.values().map(|it| &it.guest);
    guests.next().unwrap().restarted.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_s_program_is_restarted_by_whoever_may_and_that_is_on_record() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, token) = world.account("demo").await;
    let (_, stranger) = world.account("other").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let path = format!("/v1/sites/{site}/restart");
    let any = [("if-match", "*")];

    let refused = world.send(0, &stranger, "POST", &path, None, &any).await;
    refused.expect(404);
    let stale = [("if-match", "\"99\"")];
    let refused = world.send(0, &token, "POST", &path, None, &stale).await;
    refused.expect(412);
    assert!(restarted(&node).is_empty());

    let reply = world.send(0, &token, "POST", &path, None, &any).await;
    assert_eq!(reply.expect(200).text("/id"), site);
    assert_eq!(restarted(&node), [site.parse().unwrap()]);
    let audit = world.get("/v1/audit?limit=100").await.expect(200);
    let rows = audit.body["items"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.filter(|it| it["action"] == "site.restart").collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["subject"], format!("site/{site}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_runs_nothing_or_not_now_says_so_and_nothing_is_restarted() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "web-php").await;
    let (account, _) = world.account("demo").await;
    let php = world.site("php.localhost", &account, "web-1", "php").await;
    let files = world
        .site("files.localhost", &account, "web-1", "static")
        .await;
    let restart = async |site: &str| {
        let path = format!("/v1/sites/{site}/restart");
        world.post(&path, json!({})).await
    };

    let refused = restart(&files).await.expect(409);
    assert!(refused.text("/type").ends_with("nothing-to-restart"));
    assert!(!refused.text("/remedy").is_empty());

    let suspend = format!("/v1/sites/{php}/suspend");
    let reply = world.post(&suspend, json!({})).await.expect(202);
    world.done(&reply).await;
    let refused = restart(&php).await.expect(409);
    assert!(refused.text("/type").ends_with("wrong-state"));
    let again = format!("/v1/sites/{php}/unsuspend");
    let reply = world.post(&again, json!({})).await.expect(202);
    world.done(&reply).await;

    let stop = format!("/v1/servers/{server}/stop");
    let reply = world.post(&stop, json!({})).await.expect(202);
    world.done(&reply).await;
    restart(&php).await.expect(503);
    assert!(
        node.state()
            .servers
            .values()
            .all(|it| it.guest.restarted.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_panel_restarts_what_can_be_restarted_and_offers_nothing_else() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("demo").await;
    let php = world.site("php.localhost", &account, "web-1", "php").await;
    let files = world
        .site("files.localhost", &account, "web-1", "static")
        .await;
    let mut browser = owner(&world).await;
    let button = |site: &str| format!("action=\"/sites/{site}/restart\"");
    let page = browser.get(&format!("/sites/{files}")).await;
    assert!(!page.text.contains(&button(&files)));
    let page = browser.get(&format!("/sites/{php}")).await;
    assert!(page.text.contains(&button(&php)));
    let done = browser.post(&format!("/sites/{php}/restart"), &[]).await;
    assert!(done.text.contains("Its program has ended"), "{}", done.text);
    assert_eq!(restarted(&node), [php.parse().unwrap()]);
}
