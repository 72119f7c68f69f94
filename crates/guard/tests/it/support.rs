//! A node with a real guard, and what stands around it: control, peers, monitors.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use undine_api::guard::{Alive, Owned, Peer};
use undine_api::internal::{LeaseAnswer, LeaseRequest, Role};
use undine_guard::run::{self, Settings};
use undine_guard::served::Served;
use undine_link::{Authority, Credentials, Identity, csr, install_crypto, serve};
use undine_model::{NodeId, ServerId};

pub fn server(number: u64) -> ServerId {
    ServerId::from_parts(number, [0; 10])
}

pub fn node(number: u64) -> NodeId {
    NodeId::from_parts(number, [1; 10])
}

/// The cluster's CA.
pub struct Ca(Authority);

impl Ca {
    pub fn new() -> Self {
        install_crypto();
        Self(
            Authority::create("cluster", OffsetDateTime::now_utc())
                .unwrap()
                .0,
        )
    }

    pub fn credentials(&self, role: Role, id: &str) -> Credentials {
        let (key, request) = csr().unwrap();
        let identity = Identity {
            role,
            id: id.to_owned(),
        };
        let now = OffsetDateTime::now_utc();
        Credentials {
            key,
            certificate: self.0.issue(&request, &identity, now).unwrap(),
            ca: self.0.certificate_pem().to_owned(),
        }
    }
}

/// A program in a runtime of its own, so that it can be killed with all its connections.
pub struct Door {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Door {
    pub async fn open(credentials: Credentials, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            serve(listener, &credentials, router, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What control knows and hears.
#[derive(Default)]
pub struct Control {
    pub is_deaf: AtomicBool,
    pub owns: Mutex<Option<Vec<Owned>>>,
    pub peers: Mutex<Vec<Peer>>,
    pub heard: Mutex<Vec<LeaseRequest>>,
}

async fn lease(
    State(control): State<Arc<Control>>,
    Json(request): Json<LeaseRequest>,
) -> Result<Json<LeaseAnswer>, axum::http::StatusCode> {
    if control.is_deaf.load(Ordering::SeqCst) {
        return Err(axum::http::StatusCode::SERVICE_UNAVAILABLE);
    }
    let answer = LeaseAnswer {
        number: request.number,
        lease_ms: 2_000,
        owns: control
            .owns
            .lock()
            .unwrap()
            .clone()
            .filter(|_| request.confirm),
        peers: control.peers.lock().unwrap().clone(),
    };
    control.heard.lock().unwrap().push(request);
    Ok(Json(answer))
}

/// A peer's guard, and how others are told of it.
pub async fn peer(ca: &Ca, number: u64) -> (Peer, Door) {
    let alive = Alive {
        node: node(number),
        held: true,
        isolated: false,
        paused: vec![],
    };
    let router = Router::new().route("/guard/v1/alive", get(async move || Json(alive)));
    let id = node(number).to_string();
    let door = Door::open(ca.credentials(Role::Guard, &id), router).await;
    let mut agent = door.address();
    agent.set_port(agent.port() - 1);
    let peer = Peer {
        node: node(number),
        address: agent,
        storage: None,
    };
    (peer, door)
}

/// The node: its guard's folder, control, two peers.
pub struct World {
    pub ca: Ca,
    pub dir: tempfile::TempDir,
    pub control: Arc<Control>,
    pub control_door: Door,
    pub peers: Vec<Door>,
    pub listen: SocketAddr,
    guard: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl World {
    pub async fn new(peer_count: u64) -> Self {
        let ca = Ca::new();
        let dir = tempfile::tempdir().unwrap();
        ca.credentials(Role::Guard, &node(1).to_string())
            .save(dir.path())
            .unwrap();
        let control = Arc::new(Control::default());
        let router = Router::new()
            .route("/internal/v1/lease", post(lease))
            .with_state(control.clone());
        let control_door = Door::open(ca.credentials(Role::Control, "c1"), router).await;
        let mut peers = Vec::new();
        for number in 2..2 + peer_count {
            let (peer, door) = peer(&ca, number).await;
            control.peers.lock().unwrap().push(peer);
            peers.push(door);
        }
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            ca,
            dir,
            control,
            control_door,
            peers,
            listen: free.local_addr().unwrap(),
            guard: None,
        }
    }

    pub fn serves(&self, served: &[Served]) {
        let text = serde_json::to_vec(served).unwrap();
        let beside = self.dir.path().join("servers.partial");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.dir.path().join("servers.json")).unwrap();
    }

    pub fn start_guard(&mut self) {
        let settings = Settings {
            node: node(1),
            folder: self.dir.path().to_owned(),
            control: vec![self.control_door.address()],
            listen: self.listen,
            metrics_listen: None,
        };
        let (stop, stopped) = oneshot::channel();
        let guard = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            run::run(settings, || {}, stopped).await.unwrap();
        });
        self.guard = Some((stop, guard));
    }

    /// As a kill does: whatever it was doing ends.
    pub async fn kill_guard(&mut self) {
        let (_stop, guard) = self.guard.take().unwrap();
        guard.abort();
        let _ = guard.await;
    }

    pub fn cut_off(&mut self) {
        self.control.is_deaf.store(true, Ordering::SeqCst);
        for door in &mut self.peers {
            door.kill();
        }
    }

    pub fn owns(&self, owned: &[(u64, u64)]) {
        let owned = owned.iter().map(|(number, epoch)| Owned {
            server: server(*number),
            epoch: *epoch,
        });
        *self.control.owns.lock().unwrap() = Some(owned.collect());
    }

    pub fn reconnect_control(&self) {
        self.control.is_deaf.store(false, Ordering::SeqCst);
    }
}

/// Waits for something to become true; how long it took.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

/// A monitor as QEMU's, of one VM.
#[derive(Clone)]
pub struct FakeVm {
    pub socket: PathBuf,
    state: Arc<Mutex<&'static str>>,
    said: Arc<Mutex<Vec<String>>>,
    is_frozen: Arc<AtomicBool>,
    delay: Duration,
}

impl FakeVm {
    pub fn start(folder: &Path, name: &str, delay: Duration) -> Self {
        let vm = Self {
            socket: folder.join(format!("{name}.sock")),
            state: Arc::new(Mutex::new("running")),
            said: Arc::default(),
            is_frozen: Arc::default(),
            delay,
        };
        let listener = UnixListener::bind(&vm.socket).unwrap();
        let serving = vm.clone();
        tokio::spawn(async move {
            loop {
                // One client at a time, as QEMU does.
                let (stream, _) = listener.accept().await.unwrap();
                let _ = serving.talk(stream).await;
            }
        });
        vm
    }

    pub fn served(&self, number: u64, epoch: u64) -> Served {
        Served {
            server: server(number),
            epoch,
            guard_socket: self.socket.clone(),
            local_only: false,
        }
    }

    pub fn state(&self) -> &'static str {
        *self.state.lock().unwrap()
    }

    pub fn set(&self, state: &'static str) {
        *self.state.lock().unwrap() = state;
    }

    pub fn freeze(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::SeqCst);
    }

    pub fn said(&self, command: &str) -> usize {
        let said = self.said.lock().unwrap();
        said.iter().filter(|it| *it == command).count()
    }

    async fn talk(&self, stream: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        self.pause().await;
        write
            .write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n")
            .await?;
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            self.pause().await;
            let command: serde_json::Value = serde_json::from_str(&line)?;
            let command = command["execute"].as_str().unwrap().to_owned();
            let answer = self.answer(&command);
            self.said.lock().unwrap().push(command);
            // An event may come before any answer.
            let text = format!("{{\"event\": \"NEWS\", \"data\": {{}}}}\r\n{answer}\r\n");
            write.write_all(text.as_bytes()).await?;
        }
        Ok(())
    }

    async fn pause(&self) {
        tokio::time::sleep(self.delay).await;
        while self.is_frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn answer(&self, command: &str) -> String {
        let mut state = self.state.lock().unwrap();
        match (command, *state) {
            ("query-status", word) => return format!("{{\"return\": {{\"status\": \"{word}\"}}}}"),
            ("stop", "running") => *state = "paused",
            ("cont", _) => *state = "running",
            _ => {}
        }
        "{\"return\": {}}".to_owned()
    }
}

/// What the guard has told control that it holds paused, last.
pub fn told_paused(control: &Control) -> HashSet<ServerId> {
    let heard = control.heard.lock().unwrap();
    heard
        .last()
        .map(|it| it.paused.iter().copied().collect())
        .unwrap_or_default()
}
