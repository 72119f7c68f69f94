//! What is held is bounded, in time, number and bytes, and who leaves frees his place.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use undine_edge::Settings;

use crate::hold::{Recorder, are_held, figure, held, visit};
use crate::support::{World, nobody, route, to};

async fn turned_away(world: &World, host: &str) {
    let since = Instant::now();
    let answer = world.get(host, "/").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    assert!(answer.text().await.unwrap().contains("back soon"));
    assert!(since.elapsed() < Duration::from_millis(700));
}

#[tokio::test]
async fn nobody_waits_for_longer_than_is_allowed() {
    let world = World::with(|settings| settings.hold.time = Duration::from_secs(1)).await;
    // One who waits for a change, and one who is tried again and again.
    for target in [held(&[nobody().await]), to(&[nobody().await])] {
        world.put(route("a.test", target)).await;
        let since = Instant::now();
        let answer = world.get("a.test", "/").await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        let waited = since.elapsed();
        assert!(
            waited > Duration::from_millis(900) && waited < Duration::from_millis(2500),
            "{waited:?}"
        );
    }
    let ended = "held_requests_ended_total{end=\"too_long\"}";
    assert_eq!(figure(&world, ended).await, 2);
    are_held(&world, 0).await;
}

#[tokio::test]
async fn one_server_s_visitors_take_only_their_share_and_all_together_only_so_many() {
    let world = World::with(|settings: &mut Settings| {
        settings.hold.per_server = 2;
        settings.hold.in_all = 3;
    })
    .await;
    let back = Recorder::start().await;
    // Hosts of different length belong to different servers.
    for host in ["a.test", "bb.test", "ccc.test"] {
        world.put(route(host, held(&[back.address]))).await;
    }
    let first = [visit(&world, "/1"), visit(&world, "/2")];
    are_held(&world, 2).await;
    turned_away(&world, "a.test").await;
    let browser = world.browser(&["bb.test"]);
    let other = tokio::spawn(browser.get(world.http_url("bb.test", "/")).send());
    are_held(&world, 3).await;
    turned_away(&world, "ccc.test").await;
    assert_eq!(figure(&world, "hold_refused_total").await, 2);
    world.put(route("a.test", to(&[back.address]))).await;
    for visitor in first {
        assert_eq!(visitor.await.unwrap().status(), 200);
    }
    are_held(&world, 1).await;
    other.abort();
}

#[tokio::test]
async fn waiting_requests_keep_only_so_many_bytes() {
    let world = World::with(|settings| settings.hold.bytes = 30_000).await;
    world.put(route("a.test", held(&[nobody().await]))).await;
    let browser = world.browser(&["a.test"]);
    let large = browser
        .get(world.http_url("a.test", "/"))
        .header("x-large", "x".repeat(20_000));
    let first = tokio::spawn(large.try_clone().unwrap().send());
    are_held(&world, 1).await;
    assert_eq!(large.send().await.unwrap().status(), 503);
    // A body may be taken in up to 64 KiB.
    let post = browser.post(world.http_url("a.test", "/")).body("short");
    assert_eq!(post.send().await.unwrap().status(), 503);
    assert_eq!(figure(&world, "held_requests").await, 1);
    first.abort();
}

#[tokio::test]
async fn who_leaves_frees_his_place() {
    let world = World::with(|settings| settings.hold.per_server = 1).await;
    let back = Recorder::start().await;
    let mut site = route("a.test", held(&[back.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    world.put(site.clone()).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
        // He leaves before he has said everything.
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhe",
    ] {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        are_held(&world, 1).await;
        drop(stream);
        are_held(&world, 0).await;
    }
    // A stream of an HTTP/2 connection that stays, with and without a body.
    let browser = world.browser(&["a.test"]);
    let url = world.https_url("a.test", "/");
    for request in [browser.get(&url), browser.post(&url).body("hello")] {
        let visitor = tokio::spawn(request.send());
        are_held(&world, 1).await;
        visitor.abort();
        are_held(&world, 0).await;
    }
    let left = "held_requests_ended_total{end=\"left\"}";
    assert_eq!(figure(&world, left).await, 5);
    site.target = to(&[back.address]);
    world.put(site).await;
    assert_eq!(world.get("a.test", "/").await.status(), 200);
    assert_eq!(back.asked(), ["GET / 0"], "nobody asks for who has left");
}

#[tokio::test]
async fn where_nothing_is_held_a_server_that_is_away_says_so_at_once() {
    let world = World::with(|settings| settings.hold.time = Duration::ZERO).await;
    world.put(route("a.test", held(&[nobody().await]))).await;
    turned_away(&world, "a.test").await;
    assert_eq!(figure(&world, "held_requests_total").await, 0);
}
