//! The roads that people go: a server, a site, content, a database, an application; and back.

use std::time::Duration;

use serde_json::json;
use undine_control::clock::sha256;
use undine_model::Bytes;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_site_goes_from_nothing_to_an_answer_and_away_again() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("static-1", "static").await;
    let shown = world
        .get(&format!("/v1/servers/{server}"))
        .await
        .expect(200);
    assert_eq!(shown.text("/state"), "running");
    assert!(shown.text("/reason").contains("node-1"), "{shown:?}");
    assert_eq!(shown.text("/ipv4"), "10.214.1.1");
    let (account, _) = world.account("demo").await;
    let site = world
        .site("one.localhost", &account, "static-1", "static")
        .await;
    let shown = world.get(&format!("/v1/sites/{site}")).await.expect(200);
    assert_eq!(shown.text("/state"), "active");
    assert_eq!(shown.text("/url"), "http://one.localhost:8080/");
    let update = undine_control::routes::update_after(&world.instances[0].control, 0)
        .await
        .unwrap();
    assert!(update.whole);
    let route = update
        .routes
        .iter()
        .find(|route| route.host == "one.localhost")
        .unwrap();
    // By the address of its epoch, and by no other.
    let only = undine_api::edge::Target::Server {
        addresses: vec!["[fd5e:d1e0:214:0:e00:0:100:101]:80".parse().unwrap()],
    };
    assert_eq!(route.target, only);
    assert!(route.certificate.is_some());
    assert!(update.panel.certificate.is_some());
    assert_eq!(update.panel.hosts, ["panel.up.localhost"]);

    let gone = world
        .change("DELETE", &format!("/v1/servers/{server}"), None)
        .await
        .expect(409);
    assert_eq!(gone.text("/type"), "in-use");
    let gone = world
        .change("DELETE", &format!("/v1/sites/{site}?for_good=true"), None)
        .await
        .expect(202);
    world.done(&gone).await;
    world.get(&format!("/v1/sites/{site}")).await.expect(404);
    assert_eq!(
        node.state()
            .servers
            .values()
            .next()
            .unwrap()
            .guest
            .sites
            .len(),
        0
    );
    let gone = world
        .change("DELETE", &format!("/v1/servers/{server}"), None)
        .await
        .expect(202);
    world.done(&gone).await;
    world
        .get(&format!("/v1/servers/{server}"))
        .await
        .expect(404);
    assert_eq!(node.count("DELETE replicas/"), 1);
    let removed = world
        .change("DELETE", &format!("/v1/nodes/{}", node.id), None)
        .await
        .expect(202);
    let removed = world.ended(&removed.text("/id")).await;
    assert_eq!(removed["state"], "succeeded");
    assert!(node.send_report(world.instances[0].internal).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_kind_spread_over_the_nodes() {
    let world = World::new().await;
    let nodes = [
        world.node("node-1", Bytes::gib(4)).await,
        world.node("node-2", Bytes::gib(4)).await,
        world.node("node-3", Bytes::gib(4)).await,
    ];
    for (name, profile) in [
        ("web-1", "web-php"),
        ("web-2", "web-php"),
        ("static-1", "static"),
    ] {
        world.server(name, profile).await;
    }
    for node in &nodes {
        assert_eq!(node.state().servers.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_deployed_and_rolled_back() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, own) = world.account("demo").await;
    let site = world.site("app.localhost", &account, "web-1", "php").await;
    let mut releases = Vec::new();
    for size in [10, 3_000_000] {
        let archive = vec![7_u8; size];
        let path = format!(
            "/v1/sites/{site}/releases?format=tar-gz&sha256={}",
            sha256(&archive)
        );
        let reply = world
            .send_raw(&path, "application/octet-stream", archive)
            .await
            .expect(202);
        world.done(&reply).await;
        releases.push(reply.text("/release/id"));
    }
    let live = || {
        node.state()
            .servers
            .values()
            .next()
            .unwrap()
            .guest
            .live
            .values()
            .next()
            .copied()
    };
    assert_eq!(live().unwrap().to_string(), releases[1]);
    let path = format!("/v1/sites/{site}/rollback");
    let headers = [("if-match", "*")];
    let back = world
        .send(0, &own, "POST", &path, Some(json!({})), &headers)
        .await
        .expect(202);
    world.done(&back).await;
    assert_eq!(live().unwrap().to_string(), releases[0]);
    let shown = world.get(&format!("/v1/sites/{site}")).await;
    assert_eq!(shown.text("/current_release"), releases[0]);
    let path = format!(
        "/v1/sites/{site}/releases?format=tar-gz&sha256={}",
        sha256("other")
    );
    let bad = world
        .send_raw(&path, "application/octet-stream", b"content".to_vec())
        .await;
    assert_eq!(bad.expect(422).text("/type"), "bad-archive");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_brings_its_database() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("demo").await;
    let site = world.site("blog.localhost", &account, "web-1", "php").await;
    let path = format!("/v1/sites/{site}/app");
    let missing = world
        .post(&path, json!({"app": "wordpress"}))
        .await
        .expect(422);
    assert!(
        missing.text("/field").starts_with("answers."),
        "{missing:?}"
    );
    let app = world.get("/v1/apps").await;
    let questions = app.body["items"][0]["questions"]
        .as_object()
        .unwrap()
        .clone();
    let answers: serde_json::Map<_, _> = questions
        .keys()
        .map(|name| (name.clone(), json!("secret-answer")))
        .collect();
    let reply = world
        .post(&path, json!({"app": "wordpress", "answers": answers}))
        .await
        .expect(202);
    let operation = world.done(&reply).await;
    assert!(!operation.to_string().contains("secret-answer"));
    {
        let state = node.state();
        let guest = &state.servers.values().next().unwrap().guest;
        assert_eq!(guest.databases.len(), 1);
        assert_eq!(guest.installed.len(), 1);
        assert_eq!(guest.installed[0].2.len(), questions.len());
    }
    let database = world
        .post("/v1/databases", json!({"site": site, "name": "more"}))
        .await
        .expect(202);
    assert!(database.text("/password").len() > 20);
    world.done(&database).await;
    let id = database.text("/database/id");
    let gone = world
        .change("DELETE", &format!("/v1/databases/{id}"), None)
        .await
        .expect(202);
    world.done(&gone).await;
    assert_eq!(
        node.state()
            .servers
            .values()
            .next()
            .unwrap()
            .guest
            .databases
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_site_s_fault_stays_its_own_and_can_be_mended() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("demo").await;
    world.site("good.localhost", &account, "web-1", "php").await;
    node.state()
        .bad_domains
        .insert("bad.localhost".to_owned(), "php-fpm: line 3".to_owned());
    let wish = json!({"domain": "bad.localhost", "account": account, "runtime": "php"});
    let reply = world.post("/v1/sites", wish).await.expect(202);
    let operation = world.ended(&reply.text("/operation/id")).await;
    assert_eq!(operation["state"], "failed");
    assert_eq!(operation["error"]["detail"], "Php-fpm: line 3.");
    assert!(
        operation["error"]["remedy"]
            .as_str()
            .unwrap()
            .contains("retry")
    );
    let site = reply.text("/site/id");
    assert_eq!(
        world.get(&format!("/v1/sites/{site}")).await.text("/state"),
        "failed"
    );
    let good = world.get("/v1/sites?domain=good.localhost").await;
    assert_eq!(good.text("/items/0/state"), "active");
    node.state().bad_domains.clear();
    let again = world
        .post(&format!("/v1/sites/{site}/retry"), json!({}))
        .await
        .expect(202);
    world.done(&again).await;
    assert_eq!(
        world.get(&format!("/v1/sites/{site}")).await.text("/state"),
        "active"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sites_at_once_cost_few_pushes_and_a_lost_base_is_mended() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("static-1", "static").await;
    let (account, _) = world.account("demo").await;
    let mut made = Vec::new();
    for number in 0..30 {
        let wish = json!({
            "domain": format!("s{number}.localhost"), "account": account,
            "server": "static-1", "runtime": "static",
        });
        made.push(world.post("/v1/sites", wish).await.expect(202));
    }
    for reply in &made {
        world.done(reply).await;
    }
    assert!(node.count("guest apply_delta") <= 30);
    node.state()
        .servers
        .values_mut()
        .next()
        .unwrap()
        .guest
        .version = 1;
    world
        .site("late.localhost", &account, "static-1", "static")
        .await;
    let state = node.state();
    let guest = &state.servers.values().next().unwrap().guest;
    assert_eq!(guest.sites.len(), 31);
    assert_eq!(
        guest.wholes, 2,
        "once at the start, once because the base was lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_is_waited_for() {
    let world = World::new().await;
    let mut node = world.node("node-1", Bytes::gib(8)).await;
    node.cut();
    let reply = world
        .post(
            "/v1/servers",
            json!({"name": "web-1", "profile": "web-php"}),
        )
        .await
        .expect(202);
    let path = format!("/v1/operations/{}", reply.text("/operation/id"));
    let waiting = loop {
        let shown = world.get(&path).await;
        if shown.body["retries"].as_u64() > Some(0) {
            break shown;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        waiting.text("/error/detail").contains("does not answer"),
        "{waiting:?}"
    );
    node.mend().await.unwrap();
    world.done(&reply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ended_unasked_is_started_again() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "web-php").await;
    node.state().servers.values_mut().next().unwrap().running = false;
    // Reports count once the record has settled.
    tokio::time::sleep(Duration::from_secs(9)).await;
    node.send_report(world.instances[0].internal).await.unwrap();
    let path = format!("/v1/servers/{server}");
    // In the same breath: at no moment is it down for the edges, where visitors wait.
    assert_ne!(world.get(&path).await.text("/state"), "failed");
    for _ in 0..300 {
        if world.get(&path).await.text("/state") == "running" {
            assert!(node.state().servers.values().next().unwrap().running);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it was not started again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_restarts_and_starts() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "web-php").await;
    for (verb, state) in [
        ("stop", "stopped"),
        ("start", "running"),
        ("restart", "running"),
    ] {
        let reply = world
            .post(&format!("/v1/servers/{server}/{verb}"), json!({}))
            .await
            .expect(202);
        world.done(&reply).await;
        assert_eq!(
            world
                .get(&format!("/v1/servers/{server}"))
                .await
                .text("/state"),
            state
        );
    }
    assert_eq!(node.count("POST servers/"), 2);
    // Reports become measurements.
    node.send_report(world.instances[0].internal).await.unwrap();
    let path = format!("/v1/metrics?subject_kind=node&subject={}", node.id);
    let metrics = world.get(&path).await.expect(200);
    assert!(
        metrics.body["series"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["name"] == "cpu")
    );
    assert_eq!(
        world
            .get(&format!("/v1/nodes/{}", node.id))
            .await
            .text("/usage/cpu"),
        "0.25"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_s_sites_say_so() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    world.server("static-1", "static").await;
    let (account, _) = world.account("demo").await;
    world
        .site("one.localhost", &account, "static-1", "static")
        .await;
    world
        .post(&format!("/v1/accounts/{account}/suspend"), json!({}))
        .await
        .expect(200);
    let control = &world.instances[0].control;
    let update = undine_control::routes::update_after(control, 0)
        .await
        .unwrap();
    let suspended = undine_api::edge::Target::Suspended { words: None };
    assert_eq!(update.routes[0].target, suspended);
    // The guest hears of it by the reconciler.
    for _ in 0..150 {
        let told = node
            .state()
            .servers
            .values()
            .next()
            .unwrap()
            .guest
            .sites
            .values()
            .all(|s| s.suspended);
        if told {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the guest was not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_blocks_servers_whose_disks_are_ahead_of_it() {
    use undine_store::{Db, Settings};
    let mut world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let behind = world.server("web-1", "web-php").await;
    let level = world.server("web-2", "web-php").await;
    node.state()
        .replicas
        .get_mut(&behind.parse().unwrap())
        .unwrap()
        .epoch = 5;
    let settings = world.instances[0].control.store.settings();
    settings.put(Settings::RESTORED, &true, 0).await.unwrap();
    world.restart(0).await;
    let path = format!("/v1/servers/{behind}");
    for _ in 0..100 {
        if world.get(&path).await.text("/state") == "failed" {
            let shown = world.get(&path).await;
            assert!(shown.text("/error").contains("epoch 5"), "{shown:?}");
            let other = world.get(&format!("/v1/servers/{level}")).await;
            assert_eq!(other.text("/state"), "running");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server was not blocked");
}

/// A profile of this checkout as `undine profile put` sends it.
fn profile_of_checkout(name: &str) -> serde_json::Value {
    let mut files = std::collections::BTreeMap::new();
    for folder in [name, "common"] {
        let path = crate::world::checkout().join("profiles").join(folder);
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let file = format!("{folder}/{}", entry.file_name().to_string_lossy());
            files.insert(file, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
    json!(undine_manifest::load::profile(name, &files).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_profile_reaches_servers_that_run_and_one_in_use_stays() {
    let world = World::new().await;
    let node = world.node("node-1", Bytes::gib(8)).await;
    let server = world.server("web-1", "static").await;
    let (account, _) = world.account("shop").await;
    world
        .site("one.localhost", &account, "web-1", "static")
        .await;
    let any = [("if-match", "*")];
    let provider = world.provider.clone();
    let change = async |method, name: &str, body| {
        let path = format!("/v1/profiles/{name}");
        world.send(0, &provider, method, &path, body, &any).await
    };
    let wholes = || node.state().servers.values().next().unwrap().guest.wholes;
    let before = wholes();
    let mut profile = profile_of_checkout("static");
    profile["files"]["/run/undine/notice"] = json!("changed");
    change("PUT", "static", Some(profile.clone()))
        .await
        .expect(200);
    let path = format!("/v1/servers/{server}");
    for _ in 0..300 {
        if wholes() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(wholes(), before + 1, "the server was sent everything once");
    assert_eq!(world.get(&path).await.text("/state"), "running");
    // The same again is no change.
    change("PUT", "static", Some(profile.clone()))
        .await
        .expect(200);

    let runtimes = profile["runtimes"].as_object_mut().unwrap();
    let kept = runtimes.remove("static").unwrap();
    runtimes.insert("other".to_owned(), kept);
    let refused = change("PUT", "static", Some(profile)).await.expect(422);
    assert_eq!(refused.text("/field"), "runtimes");
    assert!(
        refused.text("/detail").contains("one.localhost"),
        "{refused:?}"
    );

    let used = change("DELETE", "static", None).await.expect(409);
    assert!(used.text("/detail").contains("web-1"), "{used:?}");
    change("DELETE", "web-php", None).await.expect(204);
    change("DELETE", "web-php", None).await.expect(404);
    let wish = json!({"name": "web-2", "profile": "web-php"});
    assert_eq!(
        world
            .post("/v1/servers", wish)
            .await
            .expect(422)
            .text("/field"),
        "profile"
    );
    assert_eq!(wholes(), before + 1);
}
