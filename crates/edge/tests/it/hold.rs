//! Requests wait for a server that is away for a moment: that it comes back, and to whom it does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use undine_api::edge::Target;

use crate::support::{World, nobody, route, to, until};

/// A server that writes down what it was asked.
pub struct Recorder {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<String>>>,
    /// The most that it answered at the same time.
    pub most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Duration::ZERO).await
    }

    pub async fn start_at(address: SocketAddr, takes: Duration) -> Self {
        // As a server that comes back does: whatever else the port was used for is over.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, peak) = (Arc::clone(&asked), Arc::clone(&most));
        let answer = move |request: Request| {
            let (seen, peak, now) = (Arc::clone(&seen), Arc::clone(&peak), Arc::clone(&now));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
                let line = format!("{} {} {}", parts.method, parts.uri, body.len());
                seen.lock().unwrap().push(line.clone());
                tokio::time::sleep(takes).await;
                now.fetch_sub(1, Ordering::SeqCst);
                line
            }
        };
        let router = Router::new().fallback(any(answer));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            asked,
            most,
            task,
        }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that takes one request on each connection and then never says a word, as a node does
/// that lost its power. Tells how many requests it took and how many connections were closed.
pub struct Mute {
    pub address: SocketAddr,
    pub took: Arc<AtomicUsize>,
    pub closed: Arc<AtomicUsize>,
}

impl Mute {
    /// Answers so many requests on each connection before it falls silent.
    pub async fn after(answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (took, closed): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (took_in, gone) = (Arc::clone(&took), Arc::clone(&closed));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (took, closed) = (Arc::clone(&took_in), Arc::clone(&gone));
                tokio::spawn(async move {
                    let mut part = [0; 65536];
                    let mut heard = 0;
                    while let Ok(1..) = stream.read(&mut part).await {
                        took.fetch_add(1, Ordering::SeqCst);
                        heard += 1;
                        if heard <= answers {
                            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold";
                            stream.write_all(answer).await.unwrap();
                        }
                    }
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            took,
            closed,
        }
    }
}

/// An address that lets packets vanish: nothing is accepted, and the queue is full.
pub async fn vanished() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    (address, listener, queued)
}

pub fn held(addresses: &[SocketAddr]) -> Target {
    Target::Held {
        addresses: addresses.to_vec(),
    }
}

/// A figure of the edge's own.
pub async fn figure(world: &World, name: &str) -> u64 {
    let url = format!("http://{}/metrics", world.edge.metrics().unwrap());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| {
        line.strip_prefix("undine_edge_")?
            .strip_prefix(name)?
            .strip_prefix(' ')
    });
    line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
        .parse()
        .unwrap()
}

pub async fn are_held(world: &World, many: u64) {
    until("so many are held", || async {
        figure(world, "held_requests").await == many
    })
    .await;
}

/// GET in the background.
pub fn visit(world: &World, path: &str) -> JoinHandle<reqwest::Response> {
    let browser = world.browser(&["a.test"]);
    let request = browser.get(world.http_url("a.test", path));
    tokio::spawn(async move { request.send().await.unwrap() })
}

#[tokio::test]
async fn a_visitor_waits_while_nobody_listens_and_is_answered_once() {
    let world = World::new().await;
    let address = nobody().await;
    world.put(route("a.test", to(&[address]))).await;
    let visitor = visit(&world, "/x");
    are_held(&world, 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!visitor.is_finished(), "he waits");
    let back = Recorder::start_at(address, Duration::ZERO).await;
    let came = Instant::now();
    let answer = visitor.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        came.elapsed() < Duration::from_secs(1),
        "{:?}",
        came.elapsed()
    );
    assert_eq!(back.asked(), ["GET /x 0"]);
    are_held(&world, 0).await;
    assert_eq!(figure(&world, "held_requests_total").await, 1);
    let ended = "held_requests_ended_total{end=\"answered\"}";
    assert_eq!(figure(&world, ended).await, 1);
    assert!(figure(&world, "held_milliseconds_total").await >= 700);
}

#[tokio::test]
async fn whatever_was_not_sent_waits_with_its_body_and_arrives_whole_and_once() {
    let world = World::new().await;
    let back = Recorder::start().await;
    world.put(route("a.test", held(&[back.address]))).await;
    let browser = world.browser(&["a.test"]);
    // One that the edge takes in while it waits, and one that is too long for that.
    let posts: Vec<_> = [5_000, 300_000]
        .map(|size| {
            let post = browser.post(world.http_url("a.test", "/form"));
            tokio::spawn(post.body(vec![b'x'; size]).send())
        })
        .into();
    are_held(&world, 2).await;
    assert!(
        back.asked().is_empty(),
        "nobody asks before the route opens"
    );
    world.put(route("a.test", to(&[back.address]))).await;
    for post in posts {
        assert_eq!(post.await.unwrap().unwrap().status(), 200);
    }
    let mut asked = back.asked();
    asked.sort();
    assert_eq!(asked, ["POST /form 300000", "POST /form 5000"]);
}

#[tokio::test]
async fn a_chunked_body_and_a_web_socket_wait_as_well() {
    let world = World::new().await;
    let back = Recorder::start().await;
    world.put(route("a.test", held(&[back.address]))).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let request = b"PUT /c HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    are_held(&world, 1).await;
    let mut socket = TcpStream::connect(world.http()).await.unwrap();
    let request = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\n\r\n";
    socket.write_all(request).await.unwrap();
    are_held(&world, 2).await;
    world.put(route("a.test", to(&[back.address]))).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("PUT /c 5"), "{answer}");
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(
        &head, b"HTTP/1.1 200",
        "it does not upgrade, but it answers"
    );
}

#[tokio::test]
async fn those_who_waited_go_in_their_order_and_a_few_at_once() {
    let world = World::with(|settings| settings.hold.at_once = 2).await;
    let address = nobody().await;
    world.put(route("a.test", to(&[address]))).await;
    let mut visitors = Vec::new();
    for n in 0..8 {
        visitors.push(visit(&world, &format!("/{n}")));
        are_held(&world, n + 1).await;
    }
    let back = Recorder::start_at(address, Duration::from_millis(100)).await;
    for visitor in visitors {
        assert_eq!(visitor.await.unwrap().status(), 200);
    }
    assert_eq!(back.most.load(Ordering::SeqCst), 2);
    let asked = back.asked();
    assert_eq!(asked.len(), 8, "{asked:?}");
    for (n, line) in asked.iter().enumerate() {
        // Two are on their way at the same time.
        let asked: usize = line["GET /".len()..][..1].parse().unwrap();
        assert!(asked.abs_diff(n) <= 1, "{asked} came as number {n}");
    }
}

#[tokio::test]
async fn a_server_that_will_not_come_is_not_waited_for() {
    let world = World::new().await;
    world.put(route("a.test", held(&[nobody().await]))).await;
    let visitor = visit(&world, "/");
    are_held(&world, 1).await;
    let since = Instant::now();
    world.put(route("a.test", Target::Unavailable)).await;
    let answer = visitor.await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    assert!(since.elapsed() < Duration::from_secs(1));
    are_held(&world, 0).await;
}

#[tokio::test]
async fn twenty_streams_of_one_http2_connection_wait_and_each_is_answered_once() {
    let world = World::new().await;
    let back = Recorder::start().await;
    let mut site = route("a.test", held(&[back.address]));
    site.certificate = Some(world.brain.certificate("a.test"));
    world.put(site.clone()).await;
    let browser = world.browser(&["a.test"]);
    let visitors: Vec<_> = (0..20)
        .map(|n| {
            let request = match n % 2 {
                0 => browser.get(world.https_url("a.test", &format!("/{n}"))),
                _ => browser
                    .post(world.https_url("a.test", &format!("/{n}")))
                    .body("hello"),
            };
            tokio::spawn(request.send())
        })
        .collect();
    are_held(&world, 20).await;
    site.target = to(&[back.address]);
    world.put(site).await;
    for visitor in visitors {
        let answer = visitor.await.unwrap().unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        assert_eq!(answer.status(), 200);
    }
    let mut asked = back.asked();
    asked.sort();
    asked.dedup();
    assert_eq!((asked.len(), back.asked().len()), (20, 20));
    assert!(asked.contains(&"POST /7 5".to_owned()), "{asked:?}");
}
