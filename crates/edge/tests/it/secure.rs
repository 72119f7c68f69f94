//! TLS by name, HTTP/2, and the way from HTTP to HTTPS.

use std::time::Duration;

use reqwest::Version;
use serde_json::Value;

use crate::support::{PANEL, Server, World, raw, route, to, until};

#[tokio::test]
async fn a_certificate_added_live_is_used_with_http_2() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let browser = world.browser(&["a.test"]);
    let url = world.https_url("a.test", "/x");
    // The stand-in is signed by nobody: a browser warns.
    assert!(browser.get(&url).send().await.is_err());

    let mut site = route("a.test", to(&[one.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    world.put(site).await;
    let answer = browser.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["headers"]["x-forwarded-proto"][0], "https");
    let host = format!("a.test:{}", world.https().port());
    assert_eq!(answer["headers"]["host"][0], host);
    assert_eq!(answer["target"], "/x");
}

#[tokio::test]
async fn http_1_works_on_tls_too_and_many_streams_share_http_2() {
    let world = World::new().await;
    let one = Server::start("one").await;
    let mut site = route("a.test", to(&[one.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    world.put(site).await;
    let ca = world.brain.sites.certificate_pem().as_bytes();
    let old = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca).unwrap()])
        .resolve("a.test", world.https())
        .http1_only()
        .build()
        .unwrap();
    let answer = old
        .get(world.https_url("a.test", "/"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.version(), Version::HTTP_11);

    let browser = world.browser(&["a.test"]);
    let many = (0..20).map(|_| {
        let sent = browser
            .post(world.https_url("a.test", "/"))
            .body(vec![1; 200_000]);
        tokio::spawn(async move {
            let answer: Value = sent.send().await.unwrap().json().await.unwrap();
            assert_eq!(answer["body_bytes"], 200_000);
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_name_without_a_certificate_gets_a_page_past_the_warning() {
    let world = World::new().await;
    let careless = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .resolve("nobody.test", world.https())
        .build()
        .unwrap();
    let url = world.https_url("nobody.test", "/");
    let answer = careless.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn plain_requests_are_sent_to_https_when_the_site_wants_it() {
    let world = World::new().await;
    let one = Server::start("one").await;
    let mut site = route("a.test", to(&[one.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    site.https_only = true;
    world.put(site).await;
    let answer = world.get("a.test", "/x?y").await;
    assert_eq!(answer.status(), 308);
    let there = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(there, world.https_url("a.test", "/x?y"));
    let browser = world.browser(&["a.test"]);
    assert_eq!(browser.get(there).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_panel_has_its_certificate() {
    let world = World::new().await;
    let browser = world.browser(&[PANEL]);
    until("the panel answers over TLS", || async {
        let answer = browser.get(world.https_url(PANEL, "/v1/whoami")).send();
        answer.await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn nonsense_at_the_tls_door_harms_nobody() {
    let world = World::new().await;
    let began = std::time::Instant::now();
    raw(world.https(), b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let browser = world.browser(&[PANEL]);
    let answer = browser.get(world.https_url(PANEL, "/v1/whoami")).send();
    assert!(answer.await.is_ok());
}
