//! A server moves to another address while requests are on their way to where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::hold::{Mute, Recorder, are_held, figure, held, vanished, visit};
use crate::support::{World, route, to, until};

const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn packets_that_vanish_are_noticed_and_the_new_address_answers() {
    let world = World::new().await;
    let (old, _listener, _queued) = vanished().await;
    world.put(route("a.test", to(&[old]))).await;
    let visitor = visit(&world, "/x");
    let browser = world.browser(&["a.test"]);
    let post = browser.post(world.http_url("a.test", "/form")).body("once");
    let post = tokio::spawn(post.send());
    let began = Instant::now();
    are_held(&world, 2).await;
    assert!(
        began.elapsed() < SOON,
        "noticed after {:?}",
        began.elapsed()
    );
    let new = Recorder::start().await;
    // First it is only known where it will be.
    world.put(route("a.test", held(&[new.address]))).await;
    world.put(route("a.test", to(&[new.address]))).await;
    let moved = Instant::now();
    assert_eq!(visitor.await.unwrap().status(), 200);
    assert_eq!(post.await.unwrap().unwrap().status(), 200);
    assert!(moved.elapsed() < SOON, "{:?}", moved.elapsed());
    let mut asked = new.asked();
    asked.sort();
    assert_eq!(asked, ["GET /x 0", "POST /form 4"]);
}

#[tokio::test]
async fn a_request_that_a_dead_node_had_taken_is_asked_again_when_the_route_moves() {
    let world = World::new().await;
    let old = Mute::after(0).await;
    world.put(route("a.test", to(&[old.address]))).await;
    let visitor = visit(&world, "/x");
    until("the old one took it", || async {
        old.took.load(Ordering::SeqCst) == 1
    })
    .await;
    let new = Recorder::start().await;
    world.put(route("a.test", held(&[new.address]))).await;
    // From now on the old one could not answer any more, even if it woke up.
    are_held(&world, 1).await;
    assert_eq!(figure(&world, "cut_connections_total").await, 1);
    world.put(route("a.test", to(&[new.address]))).await;
    let moved = Instant::now();
    let answer = visitor.await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "GET /x 0");
    assert!(moved.elapsed() < SOON, "{:?}", moved.elapsed());
    assert_eq!(new.asked().len(), 1);
    assert_eq!(old.took.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_post_that_a_dead_node_had_taken_is_never_repeated_and_told_at_once() {
    let world = World::new().await;
    let old = Mute::after(0).await;
    world.put(route("a.test", to(&[old.address]))).await;
    let browser = world.browser(&["a.test"]);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        world.put(route("a.test", to(&[old.address]))).await;
        let before = old.took.load(Ordering::SeqCst);
        let url = world.http_url("a.test", "/form");
        let request = browser.request(method.parse().unwrap(), url).body("once");
        let visitor = tokio::spawn(request.send());
        until("the old one took it", || async {
            old.took.load(Ordering::SeqCst) > before
        })
        .await;
        let new = Recorder::start().await;
        let moved = Instant::now();
        world.put(route("a.test", to(&[new.address]))).await;
        let answer = visitor.await.unwrap().unwrap();
        assert_eq!(answer.status(), 502, "{method}");
        assert!(answer.text().await.unwrap().contains("interrupted"));
        assert!(moved.elapsed() < SOON, "{:?}", moved.elapsed());
        assert!(new.asked().is_empty(), "{:?}", new.asked());
    }
}

#[tokio::test]
async fn kept_connections_to_where_a_server_was_are_closed_when_it_moves() {
    let world = World::new().await;
    let old = Mute::after(1).await;
    world.put(route("a.test", to(&[old.address]))).await;
    assert_eq!(world.get("a.test", "/").await.text().await.unwrap(), "old");
    assert_eq!(old.closed.load(Ordering::SeqCst), 0, "it is kept");
    let new = Recorder::start().await;
    world.put(route("a.test", to(&[new.address]))).await;
    until("the old connection is closed", || async {
        old.closed.load(Ordering::SeqCst) == 1
    })
    .await;
    // A server that stops is another matter: what runs there may end.
    let kept = Mute::after(1).await;
    world
        .put(route("b.test.example", to(&[kept.address])))
        .await;
    world.get("b.test.example", "/").await.text().await.unwrap();
    let stops = undine_api::edge::Target::Unavailable;
    world.put(route("b.test.example", stops)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(kept.closed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_post_never_goes_by_a_kept_connection_that_may_be_dead() {
    let world = World::new().await;
    // It answers the first request of a connection and is dead for the second.
    let old = Mute::after(1).await;
    world.put(route("a.test", to(&[old.address]))).await;
    let browser = world.browser(&["a.test"]);
    let url = world.http_url("a.test", "/");
    browser.get(&url).send().await.unwrap();
    let post = browser.post(&url).body("once").send();
    let answer = tokio::time::timeout(SOON, post).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    // Nor is its own connection kept for others.
    until("the connection of the POST is closed", || async {
        old.closed.load(Ordering::SeqCst) == 1
    })
    .await;
}

/// Says this to every request and closes; tells how many came.
async fn says(words: String) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (count, words) = (Arc::clone(&count), words.clone());
            tokio::spawn(async move {
                if let Ok(1..) = stream.read(&mut [0; 4096]).await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(words.as_bytes()).await;
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_is_not_asked_for_again() {
    let world = World::new().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n";
    let (address, asked) = says(format!("{head}{}half", "x".repeat(300_000))).await;
    world.put(route("a.test", to(&[address]))).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "the visitor's connection ends");
    assert!(answer.ends_with("half"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_breaks_its_server_each_time_is_not_repeated_for_long() {
    let world = World::new().await;
    let (address, asked) = says(String::new()).await;
    world.put(route("a.test", to(&[address]))).await;
    let began = Instant::now();
    let answer = world.get("a.test", "/").await;
    assert_eq!(answer.status(), 502);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let browser = world.browser(&["a.test"]);
    let post = browser.post(world.http_url("a.test", "/")).body("once");
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("interrupted"));
    assert_eq!(asked.load(Ordering::SeqCst), 4, "a POST goes once");
}
