//! A running edge: its parts put together, started and stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use undine_link::CredentialsError;

use crate::access_log::AccessLog;
use crate::cluster::Cluster;
use crate::connection::Connections;
use crate::disk::Disk;
use crate::door::{Door, ListenError, listen};
use crate::feed::Feed;
use crate::hold::{Holds, Limits};
use crate::instances::Instances;
use crate::join::{JoinError, Joined};
use crate::lines::Lines;
use crate::metrics::{self, Metrics};
use crate::proxy::Gate;
use crate::table::Routes;
use crate::tls::{self, TlsError};
use crate::traffic::Traffic;
use crate::whole::Asker;

/// How an edge runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its credentials and its table lie.
    pub state_dir: PathBuf,
    /// Where it listens for plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Where it listens for HTTPS.
    pub https: Vec<SocketAddr>,
    /// The port at which visitors find HTTPS, if it is not the first one of `https`.
    pub https_port: Option<u16>,
    /// Where Prometheus finds its figures.
    pub metrics: Option<SocketAddr>,
    /// One line of JSON a request on standard output.
    pub access_log: bool,
    /// The most connections that one visitor may hold; 0 for no limit.
    pub connections_per_client: u32,
    /// Let another edge listen on the same addresses.
    pub share: bool,
    /// How long running requests may take to end when it stops.
    pub patience: Duration,
    /// How much is held for servers that are away for a moment.
    pub hold: Limits,
}

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing to listen on.
    #[error("give at least one address with --listen-http or --listen-https")]
    NoDoor,
    /// It has not joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its credentials are damaged.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The access log cannot be written.
    #[error("the access log cannot be written")]
    AccessLog(#[source] std::io::Error),
}

/// A running edge.
pub struct Edge {
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
    routes: Arc<Routes>,
    disk: Disk,
    door: Arc<Door>,
    stop: watch::Sender<bool>,
    patience: Duration,
    /// Doors end by themselves when told to stop.
    doors: JoinSet<()>,
    /// Everything else ends when this is dropped.
    tasks: JoinSet<()>,
}

/// The parts that more than one task needs.
struct Parts {
    cluster: Arc<Cluster>,
    routes: Arc<Routes>,
    instances: Arc<Instances>,
    traffic: Arc<Traffic>,
    metrics: Arc<Metrics>,
    lines: Arc<Lines>,
}

impl Edge {
    /// Starts an edge: it serves when this returns.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        if settings.http.is_empty() && settings.https.is_empty() {
            return Err(StartError::NoDoor);
        }
        undine_link::install_crypto();
        let joined = Joined::load(&settings.state_dir)?;
        let (http, http_at) = listen_all(&settings.http, settings.share)?;
        let (https, https_at) = listen_all(&settings.https, settings.share)?;
        let (scraped, scraped_at) = listen_all(settings.metrics.as_slice(), false)?;
        let disk = Disk::new(&settings.state_dir);
        let parts = Parts {
            cluster: Arc::new(Cluster::load(&settings.state_dir, &joined.control)?),
            routes: Arc::new(Routes::new(disk.load().unwrap_or_default())),
            instances: Arc::default(),
            traffic: Arc::default(),
            metrics: Arc::default(),
            lines: Arc::default(),
        };
        let (stop, stopping) = watch::channel(false);
        let https_port = settings
            .https_port
            .or_else(|| https_at.first().map(SocketAddr::port));
        let door = Arc::new(parts.door(&settings, https_port.unwrap_or(443), stopping)?);
        let visible = http_at.iter().chain(&https_at).copied().collect();
        let tasks = parts.spawn(&disk, joined, visible, scraped);
        let mut doors = JoinSet::new();
        for (listeners, secure) in [(http, false), (https, true)] {
            for listener in listeners {
                doors.spawn(Arc::clone(&door).open(listener, secure));
            }
        }
        Ok(Self {
            http: http_at,
            https: https_at,
            metrics: scraped_at.first().copied(),
            routes: parts.routes,
            disk,
            door,
            stop,
            patience: settings.patience,
            doors,
            tasks,
        })
    }

    /// Where it listens for plain HTTP.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where it listens for HTTPS.
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Where Prometheus finds its figures.
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The version of the table that it serves.
    pub fn version(&self) -> u64 {
        self.routes.current().version()
    }

    /// Waits until it has a table, from its disk or from control, but no longer than this.
    pub async fn has_routes(&self, patience: Duration) -> bool {
        let mut changes = self.routes.subscribe();
        let heard = changes.wait_for(|_| !self.routes.current().is_blank());
        tokio::time::timeout(patience, heard).await.is_ok()
    }

    /// Takes no more visitors in, lets running requests end, keeps the table.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.doors.join_next().await.is_some() {}
        self.door.close(self.patience).await;
        self.tasks.shutdown().await;
        let table = self.routes.current();
        if !table.is_blank()
            && let Err(error) = self.disk.save(&table)
        {
            tracing::error!(%error, "the routes cannot be kept");
        }
    }
}

impl Parts {
    fn door(
        &self,
        settings: &Settings,
        https_port: u16,
        stop: watch::Receiver<bool>,
    ) -> Result<Door, StartError> {
        let access_log = match settings.access_log {
            true => Some(AccessLog::start().map_err(StartError::AccessLog)?),
            false => None,
        };
        let conf = conf(settings);
        let gate = Gate {
            routes: Arc::clone(&self.routes),
            instances: Arc::clone(&self.instances),
            cluster: Arc::clone(&self.cluster),
            traffic: Arc::clone(&self.traffic),
            metrics: Arc::clone(&self.metrics),
            access_log,
            https_port,
            holds: Arc::new(Holds::new(
                settings.hold,
                Arc::clone(&self.routes),
                Arc::clone(&self.metrics),
            )),
            lines: Arc::clone(&self.lines),
            asker: Asker::new(&conf),
        };
        let mut proxy = HttpProxy::new(gate, Arc::new(conf));
        proxy.handle_init_modules();
        let tls = tls::server_config(Arc::clone(&self.routes))?;
        Ok(Door {
            proxy: Arc::new(proxy),
            acceptor: Acceptor::from_server_config(Arc::new(tls)),
            connections: Arc::new(Connections::new(
                settings.connections_per_client,
                Arc::clone(&self.metrics),
            )),
            stop,
        })
    }

    fn spawn(
        &self,
        disk: &Disk,
        joined: Joined,
        visible: Vec<SocketAddr>,
        scraped: Vec<TcpListener>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let routes = || Arc::clone(&self.routes);
        let cluster = || Arc::clone(&self.cluster);
        tasks.spawn(disk.clone().keep(routes(), self.routes.subscribe()));
        tasks.spawn(Arc::clone(&self.instances).watch(routes(), cluster()));
        tasks.spawn(Arc::clone(&self.traffic).report(cluster(), routes(), visible));
        let (lines, metrics) = (Arc::clone(&self.lines), Arc::clone(&self.metrics));
        tasks.spawn(lines.watch(routes(), metrics));
        let feed = Feed {
            cluster: cluster(),
            routes: routes(),
            metrics: Arc::clone(&self.metrics),
            joined_at: joined.control,
        };
        tasks.spawn(feed.run());
        let renewed = cluster();
        tasks.spawn(async move { renewed.keep_fresh().await });
        for listener in scraped {
            let (metrics, instances) = (Arc::clone(&self.metrics), Arc::clone(&self.instances));
            tasks.spawn(metrics::serve(listener, metrics, routes(), instances));
        }
        tasks
    }
}

fn conf(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        // Whoever is asked again says how often: every address once, or for as long as it is held.
        max_retries: 10_000,
        upstream_keepalive_pool_size: 256,
        // Nobody outside the cluster is called, so the system's own CAs play no part.
        ca_file: Some(
            settings
                .state_dir
                .join("ca.pem")
                .to_string_lossy()
                .into_owned(),
        ),
        ..ServerConf::default()
    }
}

fn listen_all(
    addresses: &[SocketAddr],
    share: bool,
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = listen(*address, share)?;
        bound.push(listener.local_addr().unwrap_or(*address));
        listeners.push(listener);
    }
    Ok((listeners, bound))
}
