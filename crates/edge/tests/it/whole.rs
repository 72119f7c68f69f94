//! A server that dies in the middle of an answer: short answers are asked for again, and what is
//! long or comes slowly is passed on as it comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::hold::Recorder;
use crate::support::{World, route, to, until};

/// What a server does after the pieces that it sends.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Not a word more, as a node that lost its power.
    Silent,
    /// Closes the connection.
    Closed,
    /// Waits for the next request.
    Ready,
}

/// A server that answers every request with these pieces, and a pause before each but the first.
struct Pieces {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Pieces {
    async fn start(pieces: Vec<Vec<u8>>, pause: Duration, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, connections): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (heard, opened) = (Arc::clone(&asked), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                let serving = serve(stream, pieces.clone(), pause, then, Arc::clone(&heard));
                tokio::spawn(serving);
                if then == Then::Silent {
                    // Nobody takes connections where the power is gone.
                    return;
                }
            }
        });
        Self {
            address,
            asked,
            connections,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    then: Then,
    heard: Arc<AtomicUsize>,
) {
    let mut request = [0; 65536];
    while let Ok(1..) = stream.read(&mut request).await {
        heard.fetch_add(1, Ordering::SeqCst);
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(pause).await;
            }
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        match then {
            Then::Silent => std::future::pending().await,
            Then::Closed => return,
            Then::Ready => {}
        }
    }
}

fn pieces(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ";
const HALF_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf \r\n";

/// Asks for a page, in the words of a simple browser, and returns all that is answered.
async fn ask(world: &World, method: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = format!("{method} /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n");
    let body = if method == "POST" {
        "Content-Length: 2\r\n\r\nhi"
    } else {
        "\r\n"
    };
    stream.write_all((head + body).as_bytes()).await.unwrap();
    stream
}

async fn all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // An answer that breaks off may end in a reset.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_short_answer_that_breaks_off_is_asked_for_where_its_server_went() {
    for half in [HALF, HALF_CHUNKED] {
        let world = World::new().await;
        let dead = Pieces::start(pieces(&[half]), Duration::ZERO, Then::Silent).await;
        let back = Recorder::start().await;
        world.put(route("a.test", to(&[dead.address]))).await;
        let page = tokio::spawn(all(ask(&world, "GET").await));
        until("it was asked", || async { dead.asked() == 1 }).await;
        world.put(route("a.test", to(&[back.address]))).await;
        let answer = page.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("GET /x 0"), "{answer}");
        assert!(!answer.contains("half"), "{answer}");
        assert_eq!(back.asked(), ["GET /x 0"]);
    }
}

#[tokio::test]
async fn a_server_that_always_breaks_off_is_asked_a_few_times_and_the_visitor_is_told() {
    let world = World::new().await;
    let broken = Pieces::start(pieces(&[HALF]), Duration::ZERO, Then::Closed).await;
    world.put(route("a.test", to(&[broken.address]))).await;
    let answer = all(ask(&world, "GET").await).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(!answer.contains("half"), "{answer}");
    assert_eq!(broken.asked(), 3);
}

#[tokio::test]
async fn what_may_change_something_is_sent_once_even_so() {
    let world = World::new().await;
    let broken = Pieces::start(pieces(&[HALF]), Duration::ZERO, Then::Closed).await;
    world.put(route("a.test", to(&[broken.address]))).await;
    let answer = all(ask(&world, "POST").await).await;
    assert!(answer.ends_with("half "), "{answer}");
    assert_eq!(broken.asked(), 1);
}

#[tokio::test]
async fn what_comes_bit_by_bit_from_a_live_server_is_passed_on_as_it_comes() {
    let world = World::new().await;
    let last = "5\r\nlast!\r\n0\r\n\r\n";
    let texts = pieces(&[HALF_CHUNKED, last]);
    let slow = Pieces::start(texts, Duration::from_secs(2), Then::Ready).await;
    world.put(route("a.test", to(&[slow.address]))).await;
    let since = Instant::now();
    let mut stream = ask(&world, "GET").await;
    let mut answer = String::new();
    let mut part = [0; 4096];
    while !answer.contains("half ") {
        let length = stream.read(&mut part).await.unwrap();
        answer += std::str::from_utf8(&part[..length]).unwrap();
    }
    assert!(since.elapsed() < Duration::from_millis(1500));
    answer += &all(stream).await;
    assert!(answer.contains("last!"), "{answer}");
    assert_eq!(slow.asked(), 1);
}

#[tokio::test]
async fn a_long_answer_is_passed_on_before_its_end() {
    let world = World::new().await;
    let mut long = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n".to_vec();
    long.extend([b'x'; 100_000]);
    let dead = Pieces::start(vec![long], Duration::ZERO, Then::Silent).await;
    world.put(route("a.test", to(&[dead.address]))).await;
    let mut stream = ask(&world, "GET").await;
    let mut got = vec![0; 100_000];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut got));
    read.await.expect("what is there is passed on").unwrap();
    assert!(got.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn answers_without_a_body_end_and_connections_to_servers_are_kept() {
    let world = World::new().await;
    let text = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n";
    let quick = Pieces::start(pieces(&[text]), Duration::ZERO, Then::Ready).await;
    world.put(route("a.test", to(&[quick.address]))).await;
    for method in ["GET", "HEAD", "GET"] {
        let answer = all(ask(&world, method).await).await;
        assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
        assert!(answer.contains("\"a\""), "{answer}");
    }
    assert_eq!(quick.asked(), 3);
    assert_eq!(quick.connections.load(Ordering::SeqCst), 1);
}
