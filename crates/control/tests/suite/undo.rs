//! Deleted sites: off at once, kept for a day, brought back or gone.

use serde_json::json;
use undine_control::app::site_delete::{UNDO_MS, remove_due};
use undine_control::clock::now_ms;
use undine_control::routes::update_after;
use undine_model::Bytes;
use undine_testkit::node::FakeNode;

use crate::panel::{customer, owner};
use crate::world::World;

async fn is_routed(world: &World, host: &str) -> bool {
    let update = update_after(&world.instances[0].control, 0).await.unwrap();
    update.routes.iter().any(|route| route.host == host)
}

/// What the only server runs: of each site whether it is suspended, and how many databases.
fn runs(node: &FakeNode) -> (Vec<bool>, usize) {
    let state = node.state();
    let guest = &state.servers.values().next().unwrap().guest;
    let sites = guest.sites.values().map(|site| site.suspended).collect();
    (sites, guest.databases.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_site_is_off_at_once_and_all_of_it_comes_back() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, own) = world.account("bakery").await;
    let (other, _) = world.account("stranger").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let path = format!("/v1/sites/{site}");
    let wish = json!({"site": site, "name": "shop"});
    let made = world.post("/v1/databases", wish.clone()).await;
    world.done(&made.expect(202)).await;
    assert!(is_routed(&world, "one.localhost").await);

    let before = now_ms();
    let gone = world.change("DELETE", &path, None).await.expect(202);
    assert_eq!(gone.text("/site/state"), "deleted");
    let until = gone.body["site"]["gone_at"].as_i64().unwrap() - before;
    assert!((UNDO_MS..UNDO_MS + 60_000).contains(&until), "{until}");
    assert!(!is_routed(&world, "one.localhost").await, "at once");
    world.done(&gone).await;
    assert_eq!(runs(&node), (vec![true], 1), "kept, and runs nothing");

    let taken = json!({"domain": "one.localhost", "account": other, "runtime": "php"});
    let refused = world.post("/v1/sites", taken).await.expect(409);
    assert_eq!(refused.text("/type"), "domain-taken");
    for (method, path, body) in [
        ("PATCH", path.clone(), Some(json!({"aliases": []}))),
        ("DELETE", path.clone(), None),
        ("POST", format!("{path}/suspend"), Some(json!({}))),
        ("POST", "/v1/databases".to_owned(), Some(wish)),
        ("POST", format!("{path}/rollback"), Some(json!({}))),
    ] {
        let refused = world.change(method, &path, body).await.expect(409);
        assert_eq!(refused.text("/type"), "wrong-state", "{method} {path}");
    }
    let control = &world.instances[0].control;
    let almost = before + UNDO_MS - 1;
    assert_eq!(remove_due(control, almost).await.unwrap(), 0);

    let restore = format!("{path}/restore");
    let headers = [("if-match", "*")];
    let back = world
        .send(0, &own, "POST", &restore, Some(json!({})), &headers)
        .await;
    let back = back.expect(202);
    world.done(&back).await;
    let site = world.get(&path).await.expect(200);
    assert_eq!(site.text("/state"), "active");
    assert!(site.body.get("gone_at").is_none(), "{site:?}");
    assert!(is_routed(&world, "one.localhost").await);
    assert_eq!(runs(&node), (vec![false], 1));
    let again = world.post(&restore, json!({})).await.expect(409);
    assert_eq!(again.text("/type"), "wrong-state");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_was_before_it_is_again_and_a_long_day_changes_nothing() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let path = format!("/v1/sites/{site}");
    let suspended = world.post(&format!("{path}/suspend"), json!({})).await;
    world.done(&suspended.expect(202)).await;
    // Brought back before its server has even heard of the deletion.
    let gone = world.change("DELETE", &path, None).await.expect(202);
    let back = world.post(&format!("{path}/restore"), json!({})).await;
    world.done(&gone).await;
    world.done(&back.expect(202)).await;
    assert_eq!(world.get(&path).await.text("/state"), "suspended");
    let control = &world.instances[0].control;
    let late = now_ms() + 2 * UNDO_MS;
    assert_eq!(remove_due(control, late).await.unwrap(), 0);
    assert_eq!(runs(&node).0, [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_day_one_of_two_instances_removes_it_and_its_names_are_free() {
    let database = undine_testkit::postgres::TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let path = format!("/v1/sites/{site}");
    let gone = world.change("DELETE", &path, None).await.expect(202);
    world.done(&gone).await;
    let late = now_ms() + UNDO_MS + 1;
    let (one, other) = tokio::join!(
        remove_due(&world.instances[0].control, late),
        remove_due(&world.instances[1].control, late)
    );
    assert_eq!(one.unwrap() + other.unwrap(), 1);
    let newest = world.get("/v1/operations").await;
    assert_eq!(newest.text("/items/0/kind"), "site.delete");
    let ended = world.ended(&newest.text("/items/0/id")).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    world.get(&path).await.expect(404);
    let late = world.post(&format!("{path}/restore"), json!({})).await;
    late.expect(404);
    assert_eq!(runs(&node), (vec![], 0));
    world.site("one.localhost", &account, "web-1", "php").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_undoes_a_deletion_on_the_site_s_page_or_ends_the_day_early() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("bakery").await;
    let site = world.site("one.localhost", &account, "web-1", "php").await;
    let mut owner = owner(&world).await;
    let mut baker = customer(&world, &mut owner, &account, "baker@example.com").await;
    let page = format!("/sites/{site}");
    let confirm = [("confirm", "one.localhost")];
    let shown = baker.post(&format!("{page}/delete"), &confirm).await;
    assert_eq!((shown.status, shown.to.as_str()), (303, page.as_str()));
    let text = baker.get(&page).await.text;
    assert!(
        text.contains("Undo the deletion") && text.contains("kept for 2"),
        "{text}"
    );
    assert_eq!(baker.post(&format!("{page}/restore"), &[]).await.to, page);
    let text = baker.get(&page).await.text;
    assert!(!text.contains("Undo the deletion"), "{text}");
    baker.post(&format!("{page}/delete"), &confirm).await;
    let for_good = [("confirm", "one.localhost"), ("for_good", "on")];
    let shown = baker.post(&format!("{page}/delete"), &for_good).await;
    assert!(shown.to.starts_with("/operations/"), "{shown:?}");
    world.ended(shown.to.rsplit('/').next().unwrap()).await;
    world.get(&format!("/v1/sites/{site}")).await.expect(404);
}
