//! What reaches a server, and what comes back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use undine_edge::Settings;

use crate::support::{Server, World, raw, route, to, until};

#[tokio::test]
async fn a_visitor_cannot_pretend_to_be_another() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let answer: Value = world
        .browser(&["a.test"])
        .get(world.http_url("a.test", "/"))
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X_Forwarded_For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=1.2.3.4")
        .header("X-Real-IP", "1.2.3.4")
        .header("X-Undine-Account", "root")
        .header("X-Request-Id", "mine")
        .header("X-Mine", "stays")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let headers = &answer["headers"];
    assert_eq!(headers["x-forwarded-for"], json!(["127.0.0.1"]));
    assert_eq!(headers["x-forwarded-proto"], json!(["http"]));
    let host = format!("a.test:{}", world.http().port());
    assert_eq!(headers["x-forwarded-host"], json!([host]));
    assert_eq!(headers["host"], json!([host]), "the host is kept");
    assert_eq!(headers["x-mine"], json!(["stays"]));
    assert_ne!(headers["x-request-id"], json!(["mine"]));
    assert!(!headers.to_string().contains("1.2.3.4"), "{headers}");
    assert!(!headers.to_string().contains("undine"), "{headers}");
}

#[tokio::test]
async fn ipv6_visitors_and_servers_are_served() {
    let world = World::with(|settings: &mut Settings| {
        settings.http.push("[::1]:0".parse().unwrap());
    })
    .await;
    let one = Server::start_at("six", "[::1]:0").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let answer = raw(
        world.edge.http()[1],
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.contains("\"server\":\"six\""), "{answer}");
    assert!(answer.contains("\"x-forwarded-for\":[\"::1\"]"), "{answer}");
}

#[tokio::test]
async fn bodies_pass_both_ways_whole() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let browser = world.browser(&["a.test"]);
    let sent = browser
        .post(world.http_url("a.test", "/"))
        .body(vec![7_u8; 5 << 20]);
    let answer: Value = sent.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["body_bytes"], 5 << 20);
    let big = browser.get(world.http_url("a.test", "/big"));
    assert_eq!(
        big.send().await.unwrap().bytes().await.unwrap().len(),
        3 << 20
    );
}

/// A server that upgrades and then repeats what it hears.
async fn parrot() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    address
}

#[tokio::test]
async fn a_web_socket_passes() {
    let world = World::new().await;
    world.put(route("a.test", to(&[parrot().await]))).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    for word in [b"hello", b"again"] {
        stream.write_all(word).await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, word);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_visitor_s_trouble() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // One answer a connection, which claims that it stays open and then does not.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
                let _ = stream.read(&mut head[..1]).await;
            });
        }
    });
    world.put(route("a.test", to(&[address]))).await;
    let browser = world.browser(&["a.test"]);
    for _ in 0..10 {
        let answer = browser.get(world.http_url("a.test", "/")).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn visitors_are_counted_by_site_and_for_the_operator() {
    let world = World::new().await;
    let one = Server::start("one").await;
    let site = route("a.test", to(&[one.address]));
    let id = site.site;
    world.put(site).await;
    for path in ["/", "/big"] {
        let answer = world.get("a.test", path).await;
        answer.bytes().await.unwrap();
    }
    assert_eq!(world.get("nobody.test", "/").await.status(), 404);
    until("a report has come with both", || async {
        let reports = world.brain.reports.lock().unwrap();
        let all = || reports.iter().flat_map(|report| &report.sites);
        let mine: Vec<_> = all().filter(|sum| sum.site == Some(id)).collect();
        let requests: u64 = mine.iter().map(|sum| sum.requests).sum();
        let bytes: u64 = mine.iter().map(|sum| sum.bytes_out).sum();
        let strangers = all().any(|sum| sum.site.is_none() && sum.requests == 1);
        requests == 2 && bytes > 3 << 20 && strangers
    })
    .await;
    {
        let reports = world.brain.reports.lock().unwrap();
        let last = reports.last().unwrap();
        assert_eq!(last.addresses, [world.http(), world.https()]);
        assert!(last.version > 0);
    }
    let url = format!("http://{}/metrics", world.edge.metrics().unwrap());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    for line in [
        "undine_edge_requests_total{class=\"2xx\"} 2",
        "undine_edge_requests_total{class=\"4xx\"} 1",
        "undine_edge_routes 1",
        "undine_edge_control_answers 1",
        "undine_edge_control_instances_healthy 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_running_request_ends_before_the_edge_does() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let browser = world.browser(&["a.test"]);
    let idle = browser.get(world.http_url("a.test", "/")).send().await;
    assert_eq!(idle.unwrap().status(), 200);
    let slow = tokio::spawn(browser.get(world.http_url("a.test", "/slow")).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (http, began) = (world.http(), std::time::Instant::now());
    world.edge.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "idle ones are not waited for"
    );
    let answer = slow.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "slow");
    assert!(
        TcpStream::connect(http).await.is_err(),
        "nobody listens any more"
    );
}
