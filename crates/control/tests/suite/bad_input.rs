//! What people and programs send by mistake or on purpose, and how it is refused.

use serde_json::{Value, json};
use undine_model::Bytes;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_with_its_request() {
    let world = World::new().await;
    let cases = [
        ("GET", "/v1/nothing", None, 404, "no-such-path"),
        ("PUT", "/v1/nodes", None, 405, "method-not-allowed"),
        ("GET", "/v1/nodes/abc", None, 422, "invalid"),
        (
            "GET",
            "/v1/nodes/01890a5d-ac96-774b-bcce-b302099a8057",
            None,
            404,
            "not-found",
        ),
        ("GET", "/v1/nodes?limit=0", None, 422, "invalid"),
        ("GET", "/v1/nodes?limit=x", None, 422, "invalid"),
        ("GET", "/v1/nodes?cursor=x", None, 422, "invalid"),
        ("GET", "/v1/nodes?more=1", None, 422, "invalid"),
        (
            "POST",
            "/v1/accounts",
            Some(json!({"name": "a"})),
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/accounts",
            Some(json!({"name": "a", "plan": "none"})),
            422,
            "invalid",
        ),
        ("POST", "/v1/accounts", Some(json!([1])), 422, "invalid"),
        (
            "POST",
            "/v1/join-tokens",
            Some(json!({"role": "control"})),
            409,
            "one-instance-only",
        ),
        (
            "POST",
            "/v1/join-tokens",
            Some(json!({"role": "node", "ttl_s": 0})),
            422,
            "invalid",
        ),
    ];
    for (method, path, body, status, kind) in cases {
        let reply = world
            .send(0, &world.provider, method, path, body, &[])
            .await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        assert_eq!(reply.text("/type"), kind, "{method} {path}");
        assert!(reply.text("/request_id").len() == 36, "{reply:?}");
        assert!(!reply.text("/detail").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_or_far_too_large_is_refused() {
    let world = World::new().await;
    let json = "application/json";
    let broken = world
        .send_raw("/v1/accounts", json, b"{\"name\": ".to_vec())
        .await;
    assert_eq!(
        (broken.status, broken.text("/type").as_str()),
        (400, "malformed")
    );
    let twice = world
        .send_raw("/v1/accounts", json, b"{} {}".to_vec())
        .await;
    assert!(matches!(twice.status, 400 | 422), "{twice:?}");
    let kind = world
        .send_raw("/v1/accounts", "text/plain", b"{}".to_vec())
        .await;
    assert_eq!(
        (kind.status, kind.text("/type").as_str()),
        (415, "not-json")
    );
    let large = world
        .send_raw("/v1/accounts", json, vec![b' '; 50_000_000])
        .await;
    assert_eq!(
        (large.status, large.text("/type").as_str()),
        (413, "too-large")
    );
    let deep = "[".repeat(100_000).into_bytes();
    let deep = world.send_raw("/v1/accounts", json, deep).await;
    assert!(matches!(deep.status, 400 | 422), "{deep:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_are_refused_with_their_field() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(8)).await;
    world.server("web-1", "web-php").await;
    let (account, _) = world.account("demo").await;
    let site = |domain: &str| json!({"domain": domain, "account": account, "server": "web-1", "runtime": "php"});
    for domain in [
        "com",
        "co.uk",
        "a b.example.com",
        &format!("{}.com", "a".repeat(300)),
        "..",
        "x",
    ] {
        let reply = world.post("/v1/sites", site(domain)).await;
        assert_eq!(
            (reply.status, reply.text("/field").as_str()),
            (422, "domain"),
            "{domain}"
        );
    }
    let reply = world.post("/v1/sites", site("panel.up.localhost")).await;
    assert_eq!(
        (reply.status, reply.text("/field").as_str()),
        (422, "domain")
    );
    world.site("one.localhost", &account, "web-1", "php").await;
    let taken = world
        .post("/v1/sites", site("One.Localhost."))
        .await
        .expect(409);
    assert_eq!(
        (taken.text("/type").as_str(), taken.text("/field").as_str()),
        ("domain-taken", "domain")
    );
    let mut alias = site("two.localhost");
    alias["aliases"] = json!(["one.localhost"]);
    let taken = world.post("/v1/sites", alias).await.expect(409);
    assert_eq!(taken.text("/field"), "aliases");
    // A look-alike is another name, kept in its ASCII form.
    let look_alike = world
        .post("/v1/sites", site("\u{43e}ne.localhost"))
        .await
        .expect(202);
    assert!(look_alike.text("/site/domain").starts_with("xn--"));
    let mut runtime = site("three.localhost");
    runtime["runtime"] = json!("cobol");
    assert_eq!(
        world
            .post("/v1/sites", runtime)
            .await
            .expect(422)
            .text("/field"),
        "runtime"
    );
    let mut escape = site("four.localhost");
    escape["settings"] = json!({"document_root": "../../etc"});
    let escape = world.post("/v1/sites", escape).await.expect(422);
    assert_eq!(escape.text("/field"), "settings.document_root");
    let taken = world
        .post("/v1/servers", json!({"name": "web-1", "profile": "static"}))
        .await;
    assert_eq!((taken.status, taken.text("/field").as_str()), (409, "name"));
    let none = world
        .post("/v1/servers", json!({"name": "web-2", "profile": "none"}))
        .await;
    assert_eq!(
        (none.status, none.text("/field").as_str()),
        (422, "profile")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_full_says_by_what_and_how_much() {
    let world = World::new().await;
    let _node = world.node("node-1", Bytes::gib(1)).await;
    world.server("web-1", "web-php").await;
    let wish = json!({"name": "web-2", "profile": "web-php"});
    let full = world.post("/v1/servers", wish).await.expect(409);
    assert_eq!(full.text("/type"), "no-room");
    assert!(
        full.text("/detail")
            .contains("memory (short by 192 MiB at least)"),
        "{full:?}"
    );

    let mut limits = world.get("/v1/plans").await.body["items"][0]["limits"].clone();
    limits["sites"] = json!(1);
    world
        .post("/v1/plans", json!({"name": "tiny", "limits": limits}))
        .await
        .expect(201);
    let account = world
        .post("/v1/accounts", json!({"name": "small", "plan": "tiny"}))
        .await;
    let account = account.expect(201).text("/id");
    world.site("one.localhost", &account, "web-1", "php").await;
    let wish = json!({"domain": "two.localhost", "account": "small", "runtime": "php"});
    let exceeded = world.post("/v1/sites", wish).await.expect(409);
    assert_eq!(exceeded.text("/type"), "plan-exceeded");
    assert!(
        exceeded.text("/detail").contains("1 of the 1 sites"),
        "{exceeded:?}"
    );

    limits["site"]["disk"] = json!(Bytes::gib(100));
    world
        .post("/v1/plans", json!({"name": "vast", "limits": limits}))
        .await
        .expect(201);
    world
        .post("/v1/accounts", json!({"name": "large", "plan": "vast"}))
        .await
        .expect(201);
    let wish = json!({"domain": "big.localhost", "account": "large", "runtime": "php"});
    let full = world.post("/v1/sites", wish).await.expect(409);
    assert_eq!(full.text("/type"), "server-full");
    assert!(
        full.text("/detail")
            .contains("100 GiB of disk, the whole server has 10 GiB"),
        "{full:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_names_the_version_that_it_saw() {
    let world = World::new().await;
    let (account, _) = world.account("demo").await;
    let path = format!("/v1/accounts/{account}");
    let shown = world.get(&path).await.expect(200);
    let etag = shown.etag.clone().unwrap();
    let wish = || Some(json!({"plan": "standard"}));
    let send = async |headers: &[(&str, &str)]| {
        world
            .send(0, &world.provider, "PATCH", &path, wish(), headers)
            .await
    };
    assert_eq!(
        send(&[]).await.expect(428).text("/type"),
        "precondition-required"
    );
    let first = send(&[("if-match", &etag)]).await.expect(200);
    assert_ne!(first.etag.unwrap(), etag);
    assert_eq!(
        send(&[("if-match", &etag)]).await.expect(412).text("/type"),
        "stale"
    );
    assert_eq!(
        send(&[("if-match", "\"x\"")])
            .await
            .expect(412)
            .text("/type"),
        "stale"
    );
    send(&[("if-match", "*")]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_comes_twice_is_done_once() {
    let world = World::new().await;
    let send = async |key: &str, body: Value| {
        let headers = [("idempotency-key", key)];
        world
            .send(
                0,
                &world.provider,
                "POST",
                "/v1/accounts",
                Some(body),
                &headers,
            )
            .await
    };
    let wish = || json!({"name": "demo", "plan": "standard"});
    let first = send("k-1", wish()).await.expect(201);
    let again = send("k-1", wish()).await.expect(201);
    assert!(again.replayed && !first.replayed);
    assert_eq!(first.body, again.body);
    let other = send("k-1", json!({"name": "other", "plan": "standard"}))
        .await
        .expect(422);
    assert_eq!(other.text("/type"), "idempotency-key-reused");
    // A refusal leaves the key free.
    send("k-2", wish()).await.expect(409);
    send("k-2", json!({"name": "second", "plan": "standard"}))
        .await
        .expect(201);
    send(&"k".repeat(300), wish()).await.expect(422);
    // The store keeps no secret in the clear.
    let wish = json!({"name": "t", "role": "provider"});
    let headers = [("idempotency-key", "k-3")];
    let made = world
        .send(
            0,
            &world.provider,
            "POST",
            "/v1/tokens",
            Some(wish),
            &headers,
        )
        .await;
    let secret = made.expect(201).text("/secret");
    let bytes: Vec<u8> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path()).ok())
        .flatten()
        .collect();
    assert!(
        !bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_miss_nothing() {
    let world = World::new().await;
    for number in 0..7 {
        let wish = json!({"name": format!("a-{number}"), "plan": "standard"});
        world.post("/v1/accounts", wish).await.expect(201);
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/accounts?limit=3".to_owned());
    loop {
        let page = world.get(&path).await.expect(200);
        seen.extend(
            page.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["name"].to_string()),
        );
        match page.body["next"].as_str() {
            Some(next) => path = format!("/v1/accounts?limit=3&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(
        world.get("/v1/accounts?name=a-3").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
