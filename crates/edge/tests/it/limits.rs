//! Visitors who ask for too much.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use undine_edge::Settings;

use crate::support::{Server, World, raw, route, to};

#[tokio::test]
async fn oversized_headers_are_refused() {
    let world = World::new().await;
    let one = Server::start("one").await;
    world.put(route("a.test", to(&[one.address]))).await;
    let cookie = "x".repeat(40_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n");
    let answer = raw(world.http(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let fits = "x".repeat(20_000);
    let request =
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: {fits}\r\nConnection: close\r\n\r\n");
    assert!(
        raw(world.http(), request.as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    // Even larger ones are not read to their end.
    let many = "X-Header: y\r\n".repeat(100_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n");
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn one_visitor_cannot_hold_every_connection() {
    let world = World::with(|settings: &mut Settings| settings.connections_per_client = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(world.http()).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let refused = raw(world.http(), b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    assert!(refused.is_empty(), "{refused}");
    held.clear();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let served = raw(world.http(), b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    assert!(served.starts_with("HTTP/1.1 404"), "{served}");
}

#[tokio::test]
async fn tunnels_are_refused() {
    let world = World::new().await;
    let answer = raw(
        world.http(),
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}
