//! Every path of the description refuses strangers: without a token, with another account's, and
//! without the scope.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use undine_model::Bytes;

use crate::world::World;

/// What paths need to be reached at all, and whose they are.
struct Things {
    ids: BTreeMap<&'static str, String>,
    victim: String,
    stranger: String,
    reader: String,
}

async fn things(world: &World) -> Things {
    let server = world.server("web-1", "web-php").await;
    let (victim, _) = world.account("victim").await;
    let (_, stranger) = world.account("stranger").await;
    let site = world.site("one.localhost", &victim, "web-1", "php").await;
    let reply = world
        .post("/v1/databases", json!({"site": site, "name": "shop"}))
        .await;
    let operation = world.done(&reply.expect(202)).await;
    let databases = world.get("/v1/databases").await;
    let archive = b"archive".to_vec();
    let sha256 = undine_control::clock::sha256(&archive);
    let path = format!("/v1/sites/{site}/releases?format=tar&sha256={sha256}");
    let release = world
        .send_raw(&path, "application/octet-stream", archive)
        .await
        .expect(202);
    world.done(&release).await;
    let token = world.get("/v1/tokens").await;
    let victims = token.body["items"].as_array().unwrap().iter();
    let victims = victims
        .clone()
        .find(|token| token["account"] == victim.as_str())
        .unwrap();
    let wish = json!({"name": "r", "role": "provider", "scopes": ["read"]});
    let reader = world
        .post("/v1/tokens", wish)
        .await
        .expect(201)
        .text("/secret");
    let join = world
        .post("/v1/join-tokens", json!({"role": "node"}))
        .await
        .expect(201);
    let wish = json!({"name": "north", "limits": reseller_limits()});
    let reseller = world.post("/v1/resellers", wish).await.expect(201);
    let reseller = reseller.text("/id");
    let ids = BTreeMap::from([
        ("servers", server),
        ("accounts", victim.clone()),
        ("sites", site),
        ("databases", databases.text("/items/0/id")),
        ("releases", release.text("/release/id")),
        ("tokens", victims["id"].as_str().unwrap().to_owned()),
        ("operations", operation["id"].as_str().unwrap().to_owned()),
        ("nodes", world.get("/v1/nodes").await.text("/items/0/id")),
        ("plans", world.get("/v1/plans").await.text("/items/0/id")),
        ("resellers", reseller),
        ("join-tokens", join.text("/join_token/id")),
        ("profiles", "static".to_owned()),
    ]);
    Things {
        ids,
        victim,
        stranger,
        reader,
    }
}

/// A request that would do something, if its sender might.
fn example(method: &str, path: &str, things: &Things) -> Option<Value> {
    let site = &things.ids["sites"];
    Some(match (method, path) {
        ("POST", "/v1/plans") => json!({"name": "p", "limits": limits()}),
        ("PATCH", "/v1/plans/{id}") => json!({"limits": limits()}),
        ("POST", "/v1/resellers") => json!({"name": "r", "limits": reseller_limits()}),
        ("PATCH", "/v1/resellers/{id}") => json!({"limits": reseller_limits()}),
        ("POST", "/v1/accounts") => json!({"name": "new", "plan": "standard"}),
        ("PATCH", "/v1/accounts/{id}") => json!({"plan": "standard"}),
        ("POST", "/v1/tokens") => {
            json!({"name": "t", "role": "account_owner", "account": things.victim})
        }
        ("POST", "/v1/servers") => json!({"name": "web-9", "profile": "static"}),
        ("PATCH", "/v1/servers/{id}") => json!({"smtp": false}),
        ("POST", "/v1/sites") => {
            json!({"domain": "new.localhost", "account": things.victim, "runtime": "php"})
        }
        ("PATCH", "/v1/sites/{id}") => json!({"aliases": []}),
        ("POST", "/v1/sites/{id}/app") => json!({"app": "wordpress"}),
        ("POST", "/v1/sites/{id}/rollback") => json!({}),
        ("POST", "/v1/sites/{id}/files/folder") => json!({"path": "current/made"}),
        ("POST", "/v1/sites/{id}/files/move") => {
            json!({"from": "current/seen.txt", "to": "current/moved.txt"})
        }
        ("POST", "/v1/sites/{id}/files/pack") => {
            json!({"paths": ["current/seen.txt"], "to": "current/all.zip"})
        }
        ("POST", "/v1/sites/{id}/files/unpack") => {
            json!({"path": "current/seen.txt", "into": "current"})
        }
        ("PUT", "/v1/sites/{id}/files/content") => return None,
        ("POST", "/v1/databases") => json!({"site": site, "name": "more"}),
        ("PATCH", "/v1/nodes/{id}") => json!({"state": "cordoned"}),
        ("PUT", "/v1/nodes/{id}/bmc") => json!({"agent": "fence_test"}),
        ("PATCH", "/v1/settings/failover") => json!({"tls": true}),
        ("PATCH", "/v1/settings/dns") => json!({"addresses": []}),
        ("PATCH", "/v1/settings/mail") => json!({"host": ""}),
        ("POST", "/v1/settings/mail/try") => json!({"to": "ann@example.com"}),
        ("POST", "/v1/nodes/{id}/fence") => json!({"confirm": "node-1"}),
        ("POST", "/v1/servers/{id}/adopt") => json!({"confirm": "web-1"}),
        ("POST", "/v1/servers/{id}/accept-loss") => json!({"confirm": "web-1", "node": "node-1"}),
        ("POST", "/v1/join-tokens") => json!({"role": "node"}),
        ("POST", "/v1/capacity/what-if") => json!({"rebalance": true}),
        ("PUT", "/v1/profiles/{name}") => json!({"name": "static"}),
        ("GET" | "DELETE", _) => return None,
        ("POST", path) if path.ends_with("/releases") => return None,
        ("POST", path) if path.contains("/{id}/") => json!({}),
        other => panic!("no example request for {other:?}: add it here"),
    })
}

fn reseller_limits() -> Value {
    let mut limits = limits();
    limits["accounts"] = json!(1);
    limits
}

fn limits() -> Value {
    json!({"sites": 1, "databases": 1, "site": {
        "cpu": 500, "memory": 67108864, "processes": 50, "io_bytes_per_s": 1048576, "iops": 100,
        "disk": 1048576, "inodes": 1000,
    }})
}

/// Every method and path of the description, ready to send.
fn all(things: &Things) -> Vec<(String, String, String)> {
    let document = serde_json::to_value(undine_control::api::document()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let resource = path.split('/').nth(2).unwrap();
            let id = things.ids.get(resource).map_or("none", String::as_str);
            let mut url = path.replace("{id}", id).replace("{name}", id);
            if method == "POST" && path.ends_with("/releases") {
                url += &format!("?format=tar&sha256={}", "0".repeat(64));
            }
            if path.ends_with("/files/content") || (method == "DELETE" && path.ends_with("/files"))
            {
                url += "?path=current/seen.txt";
            }
            if path == "/v1/metrics" {
                url += &format!("?subject_kind=site&subject={}", things.ids["sites"]);
            }
            found.push((method, path.clone(), url));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_answers_without_a_token() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let things = things(&world).await;
    for (method, path, url) in all(&things) {
        let body = example(&method, &path, &things);
        for token in ["", "undine_guess"] {
            let reply = world
                .send(0, token, &method, &url, body.clone(), &[("if-match", "*")])
                .await;
            assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
            assert_eq!(reply.text("/type"), "unauthorized");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_asks_for_a_version_where_the_description_says_so() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let things = things(&world).await;
    let document = serde_json::to_value(undine_control::api::document()).unwrap();
    let mut asked = 0;
    for (method, path, url) in all(&things) {
        if method == "GET" {
            continue;
        }
        let described = document["paths"][&path][method.to_lowercase()]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|it| it["name"] == "If-Match" && it["required"] == true);
        let body = example(&method, &path, &things);
        let reply = world
            .send(0, &world.provider, &method, &url, body, &[])
            .await;
        assert_eq!(reply.status == 428, described, "{method} {path}: {reply:?}");
        asked += usize::from(described);
    }
    assert!(asked > 20, "{asked}");
}

/// Streams that do not end while somebody listens.
fn goes_on(path: &str) -> bool {
    path == "/v1/events" || path.ends_with("/logs/stream")
}

/// Lists and streams, and what everybody may see: they show a stranger nothing of the victim's.
const SHOWS_OWN: &[&str] = &[
    "/v1/accounts",
    "/v1/tokens",
    "/v1/sites",
    "/v1/databases",
    "/v1/operations",
    "/v1/audit",
    "/v1/plans",
    "/v1/plans/{id}",
    "/v1/profiles",
    "/v1/profiles/{name}",
    "/v1/apps",
    "/v1/whoami",
];

#[tokio::test(flavor = "multi_thread")]
async fn another_account_s_things_are_not_there_and_asking_is_written_down() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let things = things(&world).await;
    let before = reaches(&world).await;
    let mut hidden = 0;
    for (method, path, url) in all(&things) {
        if path == "/v1/events" {
            continue;
        }
        let body = example(&method, &path, &things);
        let headers = [("if-match", "*")];
        let reply = world
            .send(0, &things.stranger, &method, &url, body, &headers)
            .await;
        if method == "GET" && SHOWS_OWN.contains(&path.as_str()) {
            assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
            let text = reply.body.to_string();
            assert!(!text.contains(&things.victim), "{method} {path}: {text}");
            assert!(
                !text.contains(&things.ids["sites"]),
                "{method} {path}: {text}"
            );
        } else if reply.status == 404 {
            hidden += 1;
        } else {
            assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
        }
    }
    assert!(hidden >= 18, "{hidden}");
    assert_eq!(
        reaches(&world).await - before,
        hidden,
        "each of them has its audit row"
    );
    // Nothing happened.
    let site = world
        .get(&format!("/v1/sites/{}", things.ids["sites"]))
        .await
        .expect(200);
    assert_eq!(site.text("/state"), "active");
}

async fn reaches(world: &World) -> usize {
    let (mut count, mut path) = (0, "/v1/audit?limit=500".to_owned());
    loop {
        let page = world.get(&path).await.expect(200);
        let rows = page.body["items"].as_array().unwrap();
        count += rows
            .iter()
            .filter(|row| row["outcome"] == "not-found")
            .count();
        match page.body["next"].as_str() {
            Some(next) => path = format!("/v1/audit?limit=500&cursor={next}"),
            None => return count,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_only_look_changes_nothing() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let things = things(&world).await;
    for (method, path, url) in all(&things) {
        if goes_on(&path) {
            continue;
        }
        let body = example(&method, &path, &things);
        let headers = [("if-match", "*")];
        let reply = world
            .send(0, &things.reader, &method, &url, body, &headers)
            .await;
        // Files hold passwords: whoever may only look sees their names.
        let looks = method == "GET" && !path.ends_with("/files/content");
        let wanted = if looks { 200 } else { 403 };
        assert_eq!(reply.status, wanted, "{method} {path}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_give_no_more_than_they_have_and_end_at_once() {
    let world = World::new().await;
    let (account, own) = world.account("demo").await;
    let wish = json!({"name": "up", "role": "provider"});
    let reply = world
        .send(0, &own, "POST", "/v1/tokens", Some(wish), &[])
        .await;
    assert_eq!(reply.expect(403).text("/type"), "forbidden");
    let wish = json!({"name": "deployer", "role": "account_owner", "scopes": ["deploy"]});
    let made = world
        .send(0, &own, "POST", "/v1/tokens", Some(wish), &[])
        .await
        .expect(201);
    assert_eq!(made.text("/token/account"), account);
    let deployer = made.text("/secret");
    world
        .send(0, &deployer, "GET", "/v1/sites", None, &[])
        .await
        .expect(200);
    let wish = json!({"domain": "x.localhost", "runtime": "php"});
    world
        .send(0, &deployer, "POST", "/v1/sites", Some(wish), &[])
        .await
        .expect(403);
    let path = format!("/v1/tokens/{}", made.text("/token/id"));
    world
        .send(0, &own, "DELETE", &path, None, &[("if-match", "*")])
        .await
        .expect(204);
    world
        .send(0, &deployer, "GET", "/v1/sites", None, &[])
        .await
        .expect(401);
    // What was done stands in the audit, for the account itself too.
    let audit = world
        .send(0, &own, "GET", "/v1/audit", None, &[])
        .await
        .expect(200);
    let rows = audit.body["items"].as_array().unwrap();
    assert!(
        rows.iter().any(|row| row["action"] == "token.revoke"),
        "{audit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_site_reaches_that_one_and_nothing_else_of_its_account() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    let things = things(&world).await;
    let one = &things.ids["sites"];
    let two = world
        .site("two.localhost", &things.victim, "web-1", "php")
        .await;
    let wish = json!({
        "name": "two", "role": "account_owner", "account": things.victim, "sites": ["Two.localhost", two],
    });
    let made = world.post("/v1/tokens", wish).await.expect(201);
    assert_eq!(made.body["token"]["sites"], json!([two]));
    let secret = made.text("/secret");
    let any = [("if-match", "*")];
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        world.send(0, &secret, method, path, body, &any).await
    };
    for (method, path, url) in all(&things) {
        if path == "/v1/events" {
            continue;
        }
        let reply = ask(&method, &url, example(&method, &path, &things)).await;
        if method == "GET" && SHOWS_OWN.contains(&path.as_str()) {
            assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
            let text = reply.body.to_string();
            for hidden in [one, &things.ids["databases"], &things.ids["releases"]] {
                assert!(!text.contains(hidden), "{method} {path}: {text}");
            }
            assert!(!text.contains("one.localhost"), "{method} {path}: {text}");
        } else {
            assert!(
                matches!(reply.status, 403 | 404),
                "{method} {path}: {reply:?}"
            );
        }
    }
    // What it may: everything, on its own site.
    let sites = ask("GET", "/v1/sites", None).await.expect(200);
    assert_eq!(sites.text("/items/0/id"), two);
    let path = format!("/v1/sites/{two}");
    let lookup = json!({"aliases": ["www.two.localhost"]});
    let changed = ask("PATCH", &path, Some(lookup)).await.expect(202);
    world.done(&changed).await;
    let wish = json!({"site": two, "name": "shop"});
    let database = ask("POST", "/v1/databases", Some(wish)).await.expect(202);
    world.done(&database).await;
    let databases = ask("GET", "/v1/databases", None).await.expect(200);
    assert_eq!(databases.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(databases.text("/items/0/site"), two);
    let operations = ask("GET", "/v1/operations", None).await.expect(200);
    assert!(operations.body.to_string().contains("database.create"));
    let more = json!({"domain": "more.localhost", "runtime": "php"});
    let refused = ask("POST", "/v1/sites", Some(more)).await.expect(403);
    assert!(
        refused.text("/detail").contains("single sites"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_sites_of_its_own_account_and_for_no_more_than_its_scopes_there() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (own, owner) = world.account("own").await;
    let (other, _) = world.account("other").await;
    let site = world.site("own.localhost", &own, "web-1", "php").await;
    world.site("other.localhost", &other, "web-1", "php").await;
    let ask = async |token: &str, wish: Value| {
        world
            .send(0, token, "POST", "/v1/tokens", Some(wish), &[])
            .await
    };
    let of = |sites: Value, scopes: Value| json!({"name": "t", "role": "account_owner", "sites": sites, "scopes": scopes});
    for (wish, field) in [
        (of(json!(["other.localhost"]), json!([])), "sites"),
        (of(json!(["nobody.localhost"]), json!([])), "sites"),
        (of(json!([]), json!([])), "sites"),
        (of(json!(vec!["own.localhost"; 101]), json!([])), "sites"),
        (of(json!(["own.localhost"]), json!(["billing"])), "scopes"),
    ] {
        let refused = ask(&owner, wish.clone()).await;
        assert_eq!(refused.status, 422, "{wish}: {refused:?}");
        assert_eq!(refused.text("/field"), field, "{wish}");
    }
    let wide = json!({"name": "t", "role": "provider", "sites": ["own.localhost"]});
    let refused = ask(&world.provider, wide).await.expect(422);
    assert_eq!(refused.text("/field"), "sites");

    let made = ask(&owner, of(json!([site]), json!(["deploy"]))).await;
    let deployer = made.expect(201).text("/secret");
    let any = [("if-match", "*")];
    let path = format!("/v1/sites/{site}");
    let send = async |method: &str, path: &str, body: Option<Value>| {
        world.send(0, &deployer, method, path, body, &any).await
    };
    send("GET", &path, None).await.expect(200);
    send("PATCH", &path, Some(json!({"aliases": []})))
        .await
        .expect(403);
    send("DELETE", &path, None).await.expect(403);
    let folder = json!({"path": "shared/made"});
    let made = send("POST", &format!("{path}/files/folder"), Some(folder)).await;
    assert!(made.status < 300, "{made:?}");
    // It makes no further tokens, not even one for its own site.
    let again = ask(&deployer, of(json!([site]), json!(["deploy"]))).await;
    assert_eq!(again.status, 403, "{again:?}");
}
