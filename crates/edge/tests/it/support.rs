//! A fake control over real mutual TLS, real servers on loopback, and a real edge between them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use undine_api::edge::{Certificate, EdgeReport, Panel, PanelInstance, Route, RouteUpdate, Target};
use undine_api::internal::{
    ClusterNetwork, Instances, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, Role,
};
use undine_edge::{Edge, Limits, Settings, join};
use undine_link::{Authority, Credentials, Identity, JoinToken, Peer, csr, install_crypto};
use undine_model::{Id, InstanceId};

pub const PANEL: &str = "panel.test";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// What all instances of the fake control share.
pub struct Brain {
    pub ca: Authority,
    pub sites: Authority,
    table: Mutex<Wanted>,
    version: watch::Sender<u64>,
    pub reports: Mutex<Vec<EdgeReport>>,
    pub polls: Mutex<Vec<u64>>,
}

#[derive(Default)]
struct Wanted {
    routes: BTreeMap<String, (u64, Option<Route>)>,
    panel: Panel,
}

impl Brain {
    pub fn new() -> Arc<Self> {
        install_crypto();
        Arc::new(Self {
            ca: Authority::create("cluster", now()).unwrap().0,
            sites: Authority::create("sites", now()).unwrap().0,
            table: Mutex::default(),
            version: watch::Sender::new(100),
            reports: Mutex::default(),
            polls: Mutex::default(),
        })
    }

    fn credentials(&self, role: Role, id: &str) -> Credentials {
        let (key, request) = csr().unwrap();
        let identity = Identity {
            role,
            id: id.to_owned(),
        };
        Credentials {
            key,
            certificate: self.ca.issue(&request, &identity, now()).unwrap(),
            ca: self.ca.certificate_pem().to_owned(),
        }
    }

    fn change(&self, with: impl FnOnce(&mut Wanted, u64)) -> u64 {
        let version = *self.version.borrow() + 1;
        with(&mut self.table.lock().unwrap(), version);
        self.version.send_replace(version);
        version
    }

    pub fn put(&self, route: Route) -> u64 {
        self.change(|table, version| {
            table
                .routes
                .insert(route.host.clone(), (version, Some(route)));
        })
    }

    pub fn remove(&self, host: &str) -> u64 {
        self.change(|table, version| {
            table.routes.insert(host.to_owned(), (version, None));
        })
    }

    pub fn set_panel(&self, instances: &[&Instance], certificate: Option<Certificate>) -> u64 {
        let instances = instances
            .iter()
            .map(|instance| PanelInstance {
                id: instance.id,
                address: instance.address,
            })
            .collect();
        self.change(|table, _| {
            table.panel = Panel {
                hosts: vec![PANEL.to_owned()],
                certificate,
                instances,
            };
        })
    }

    pub fn certificate(&self, host: &str) -> Certificate {
        let issued = self.sites.issue_site(&[host], now()).unwrap();
        Certificate {
            chain: issued.chain,
            key: issued.key,
        }
    }

    /// As if a backup had been restored.
    pub fn go_back_to(&self, version: u64) {
        self.version.send_replace(version);
    }

    fn update(&self, after: u64) -> RouteUpdate {
        let table = self.table.lock().unwrap();
        let version = *self.version.borrow();
        let whole = after == 0 || after > version;
        let since = if whole { 0 } else { after };
        let changed = || table.routes.iter().filter(|(_, (at, _))| *at > since);
        RouteUpdate {
            version,
            whole,
            routes: changed().filter_map(|(_, (_, it))| it.clone()).collect(),
            removed: changed()
                .filter(|(_, (_, it))| it.is_none())
                .map(|(host, _)| host.clone())
                .collect(),
            panel: table.panel.clone(),
        }
    }
}

/// One running instance of the fake control.
pub struct Instance {
    pub id: InstanceId,
    pub address: SocketAddr,
    running: Vec<AbortHandle>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Clone)]
struct Shared {
    brain: Arc<Brain>,
    id: InstanceId,
}

#[derive(Deserialize)]
struct Poll {
    after: u64,
    wait_s: u64,
}

impl Instance {
    pub async fn start(brain: &Arc<Brain>, n: u8) -> Self {
        Self::start_at(brain, n, "127.0.0.1:0".parse().unwrap()).await
    }

    /// Each instance has a runtime of its own, so that it can die with all its connections.
    pub async fn start_at(brain: &Arc<Brain>, n: u8, address: SocketAddr) -> Self {
        let id: InstanceId = Id::from_parts(1, [n; 10]);
        let credentials = brain.credentials(Role::Control, &id.to_string());
        let shared = Shared {
            brain: Arc::clone(brain),
            id,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (told, bound) = tokio::sync::oneshot::channel();
        let serving = runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            undine_link::serve(
                listener,
                &credentials,
                router(shared),
                std::future::pending(),
            )
            .await
            .unwrap();
        });
        Self {
            id,
            address: bound.await.unwrap(),
            running: vec![serving.abort_handle()],
            runtime: Some(runtime),
        }
    }

    /// Dies as by `kill -9`.
    pub fn kill(mut self) -> SocketAddr {
        self.running.drain(..).for_each(|task| task.abort());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.address
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/internal/v1/routes", get(routes))
        .route("/internal/v1/edges/report", post(report))
        .route("/internal/v1/renew", post(renew))
        .route("/internal/v1/join", post(welcome))
        .route("/v1/whoami", any(whoami))
        .route("/v1/events", get(events))
        .route("/v1/upload", post(upload))
        .with_state(shared)
}

async fn routes(
    State(it): State<Shared>,
    peer: Peer,
    Query(poll): Query<Poll>,
) -> Json<RouteUpdate> {
    assert!(peer.id_as(Role::Edge).is_some());
    it.brain.polls.lock().unwrap().push(poll.after);
    let mut version = it.brain.version.subscribe();
    let news = version.wait_for(|version| *version != poll.after);
    let _ = tokio::time::timeout(Duration::from_secs(poll.wait_s), news).await;
    Json(it.brain.update(poll.after))
}

async fn report(State(it): State<Shared>, peer: Peer, Json(report): Json<EdgeReport>) {
    assert!(peer.id_as(Role::Edge).is_some());
    it.brain.reports.lock().unwrap().push(report);
}

async fn renew(
    State(it): State<Shared>,
    peer: Peer,
    Json(request): Json<RenewRequest>,
) -> Json<RenewAnswer> {
    let identity = peer.identity.unwrap();
    let certificate = it.brain.ca.issue(&request.csr, &identity, now()).unwrap();
    Json(RenewAnswer { certificate })
}

async fn welcome(State(it): State<Shared>, Json(request): Json<JoinRequest>) -> Json<JoinAnswer> {
    assert_eq!(request.role, Role::Edge);
    let identity = Identity {
        role: Role::Edge,
        id: "0190e0a0-0000-7000-8000-000000000001".to_owned(),
    };
    Json(JoinAnswer {
        certificate: it.brain.ca.issue(&request.csr, &identity, now()).unwrap(),
        id: identity.id,
        guard_certificate: None,
        ca: it.brain.ca.certificate_pem().to_owned(),
        instances: Instances::default(),
        network: ClusterNetwork {
            management: vec![],
            servers_ipv4: String::new(),
            servers_ipv6: String::new(),
            gateways: vec![],
            gateway_mac: String::new(),
            edges: vec![],
        },
        control: None,
    })
}

async fn whoami(State(it): State<Shared>, peer: Peer, headers: HeaderMap) -> Json<Value> {
    Json(json!({
        "instance": it.id,
        "role": peer.role(),
        "headers": as_json(&headers),
    }))
}

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = futures_util::stream::unfold(0, |n| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        Some((Ok(Event::default().data(n.to_string())), n + 1))
    });
    Sse::new(ticks)
}

async fn upload(request: Request) -> String {
    let mut body = request.into_body().into_data_stream();
    let mut bytes = 0;
    while let Some(part) = body.next().await {
        bytes += part.unwrap().len();
    }
    bytes.to_string()
}

pub fn as_json(headers: &HeaderMap) -> Value {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.to_string()).or_default().push(value);
    }
    json!(all)
}

/// A server that tells what it was asked.
pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(name: &'static str) -> Self {
        Self::start_at(name, "127.0.0.1:0").await
    }

    pub async fn start_at(name: &'static str, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
            Json(json!({
                "server": name,
                "method": parts.method.as_str(),
                "target": parts.uri.to_string(),
                "headers": as_json(&parts.headers),
                "body_bytes": body.len(),
            }))
        };
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "slow"
        };
        let big = || async { Body::from(vec![b'x'; 3 << 20]) };
        let router = Router::new()
            .route("/slow", get(slow))
            .route("/big", get(big))
            .fallback(any(echo));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub fn route(host: &str, target: Target) -> Route {
    let n = host.len().to_be_bytes()[7];
    Route {
        host: host.to_owned(),
        site: Id::from_parts(3, [n; 10]),
        server: Id::from_parts(4, [n; 10]),
        target,
        certificate: None,
        https_only: false,
    }
}

pub fn to(addresses: &[SocketAddr]) -> Target {
    Target::Server {
        addresses: addresses.to_vec(),
    }
}

pub fn settings(state_dir: &Path) -> Settings {
    Settings {
        state_dir: state_dir.to_owned(),
        http: vec!["127.0.0.1:0".parse().unwrap()],
        https: vec!["127.0.0.1:0".parse().unwrap()],
        https_port: None,
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        access_log: false,
        connections_per_client: 0,
        share: false,
        patience: Duration::from_secs(5),
        hold: Limits::default(),
    }
}

/// An edge that joined the fake control.
pub struct World {
    pub brain: Arc<Brain>,
    pub instance: Instance,
    pub directory: tempfile::TempDir,
    pub edge: Edge,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Settings)) -> Self {
        let brain = Brain::new();
        let instance = Instance::start(&brain, 1).await;
        brain.set_panel(&[&instance], Some(brain.certificate(PANEL)));
        let directory = tempfile::tempdir().unwrap();
        joined(&brain, &instance, directory.path()).await;
        let mut settings = settings(directory.path());
        adjust(&mut settings);
        let edge = Edge::start(settings).await.unwrap();
        assert!(edge.has_routes(Duration::from_secs(10)).await);
        Self {
            brain,
            instance,
            directory,
            edge,
        }
    }

    /// Adds a route and waits until the edge has it.
    pub async fn put(&self, route: Route) {
        let version = self.brain.put(route);
        self.reached(version).await;
    }

    pub async fn reached(&self, version: u64) {
        until("the edge has the routes", || async {
            self.edge.version() == version
        })
        .await;
    }

    pub fn http(&self) -> SocketAddr {
        self.edge.http()[0]
    }

    pub fn https(&self) -> SocketAddr {
        self.edge.https()[0]
    }

    /// A browser that finds every name at this edge and trusts the sites' CA.
    pub fn browser(&self, hosts: &[&str]) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.brain.sites.certificate_pem().as_bytes());
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([ca.unwrap()])
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none());
        for host in hosts {
            builder = builder.resolve(host, self.http());
        }
        builder.build().unwrap()
    }

    pub fn http_url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.http().port())
    }

    pub fn https_url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.https().port())
    }

    /// GET over plain HTTP.
    pub async fn get(&self, host: &str, path: &str) -> reqwest::Response {
        let browser = self.browser(&[host]);
        browser.get(self.http_url(host, path)).send().await.unwrap()
    }
}

pub async fn joined(brain: &Brain, instance: &Instance, state_dir: &Path) {
    let token = JoinToken {
        addresses: vec![instance.address],
        ca_fingerprint: JoinToken::fingerprint(brain.ca.certificate_pem()).unwrap(),
        secret: "s".to_owned(),
    };
    let address = "127.0.0.1:1".parse().unwrap();
    join::join(&token, "edge-1".parse().unwrap(), address, state_dir)
        .await
        .unwrap();
}

/// Sends bytes as they are and reads what comes until the other side closes or falls silent.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 16384];
    while let Ok(Ok(n)) =
        tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut part)).await
    {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&part[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited in vain: {what}");
}
