//! Whose request it is, and what is told when it is nobody's.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use undine_api::edge::Target;

use crate::support::{Server, World, nobody, raw, route, to};

#[tokio::test]
async fn each_name_leads_to_its_own_server() {
    let world = World::new().await;
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    world.put(route("a.test", to(&[one.address]))).await;
    world.put(route("bb.test", to(&[two.address]))).await;
    for (host, server) in [("a.test", "one"), ("bb.test", "two"), ("A.TEST", "one")] {
        let answer: Value = world.get(host, "/x?y=1").await.json().await.unwrap();
        assert_eq!(answer["server"], server);
        assert_eq!(answer["target"], "/x?y=1");
    }
}

#[tokio::test]
async fn a_route_that_changes_or_goes_is_followed_at_once() {
    let world = World::new().await;
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    world.put(route("a.test", to(&[one.address]))).await;
    world.put(route("a.test", to(&[two.address]))).await;
    let answer: Value = world.get("a.test", "/").await.json().await.unwrap();
    assert_eq!(answer["server"], "two");
    let version = world.brain.remove("a.test");
    world.reached(version).await;
    assert_eq!(world.get("a.test", "/").await.status(), 404);
    let polls = world.brain.polls.lock().unwrap().clone();
    assert!(
        polls.len() < 12,
        "long polls, not many short ones: {polls:?}"
    );
}

#[tokio::test]
async fn a_restored_older_table_is_taken_when_control_says_it_is_whole() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    world.brain.go_back_to(7);
    world.reached(7).await;
    assert_eq!(world.get("a.test", "/").await.status(), 200);
}

#[tokio::test]
async fn an_unknown_name_gets_a_friendly_page() {
    let world = World::new().await;
    let answer = world.get("nobody.test", "/").await;
    assert_eq!(answer.status(), 404);
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let text = answer.text().await.unwrap();
    assert!(text.contains("There is no website here"), "{text}");
}

#[tokio::test]
async fn a_program_gets_the_same_as_json() {
    let world = World::new().await;
    let answer = world
        .browser(&["nobody.test"])
        .get(world.http_url("nobody.test", "/"))
        .header("accept", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "unknown-host");
    assert!(problem["request_id"].is_string());
}

#[tokio::test]
async fn states_without_a_server_are_told_in_words() {
    let world = World::new().await;
    world.put(route("down.test", Target::Unavailable)).await;
    world
        .put(route("suspended.test", Target::Suspended { words: None }))
        .await;
    let old = Target::Redirect {
        to: "https://new.test".to_owned(),
    };
    world.put(route("old-name.test", old)).await;

    let down = world.get("down.test", "/").await;
    assert_eq!(down.status(), 503);
    assert!(down.headers().contains_key("retry-after"));
    let suspended = world.get("suspended.test", "/").await;
    assert_eq!(suspended.status(), 503);
    assert!(suspended.text().await.unwrap().contains("suspended"));
    let moved = world.get("old-name.test", "/a?b=c").await;
    assert_eq!(moved.status(), 308);
    assert_eq!(moved.headers()["location"], "https://new.test/a?b=c");
}

#[tokio::test]
async fn a_server_that_refuses_gives_a_friendly_502_where_nothing_is_held() {
    let world = World::with(|settings| settings.hold.time = Duration::ZERO).await;
    world.put(route("a.test", to(&[nobody().await]))).await;
    let answer = world.get("a.test", "/").await;
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("does not answer"));
}

#[tokio::test]
async fn a_server_that_dies_after_100_continue_gives_a_page_all_the_same() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    world.put(route("a.test", to(&[address]))).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        )
        .await
        .unwrap();
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 100");
    stream.write_all(b"hi").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 502"), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world
        .put(route("a.test", to(&[nobody().await, one.address])))
        .await;
    let browser = world.browser(&["a.test"]);
    for _ in 0..3 {
        // Nothing was sent to the first, so that even a POST may be tried at the second.
        let sent = browser.post(world.http_url("a.test", "/")).body("once");
        let answer: Value = sent.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["body_bytes"], 4);
    }
}

#[tokio::test]
async fn damaged_requests_get_a_400_and_reach_nobody() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    for request in [
        // No host, a strange one, two of them, and one that differs from the target.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        // Targets that are no paths: in a redirect they could lead elsewhere.
        "GET @evil.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
        // Lengths that two readers could understand in two ways.
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n",
        "\x16\x03\x01nonsense\r\n\r\n",
    ] {
        let answer = raw(world.http(), request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400"),
            "{request:?}: {answer:?}"
        );
        assert!(!answer.contains("\"server\":"), "{request:?}");
    }
}

#[tokio::test]
async fn length_and_chunks_together_cannot_smuggle_a_request() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let answer = raw(
        world.http(),
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(!answer.contains("smuggled"), "{answer}");
    assert!(!answer.contains("content-length\":[\"4\"]"), "{answer}");
}

#[tokio::test]
async fn an_absolute_target_works_as_its_path() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let answer = raw(
        world.http(),
        b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"target\":\"/x\""), "{answer}");
}
