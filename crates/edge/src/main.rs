//! undine-edge: reads the command line and runs the public door.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use undine_edge::{Edge, Limits, Settings, join};
use undine_link::JoinToken;
use undine_model::Slug;

/// Ready is told when there are routes to serve, or after this long without control.
const READY: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(
    name = "undine-edge",
    version,
    about = "The public door of an Undine cluster."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a cluster with a one-time token (`undine-control token edge` makes one).
    Join {
        /// The token.
        #[arg(env = "UNDINE_JOIN_TOKEN", hide_env_values = true)]
        token: JoinToken,
        /// This edge's name in the cluster.
        #[arg(long)]
        name: Slug,
        /// Its address in the management network.
        #[arg(long)]
        address: SocketAddr,
        /// Where it keeps its credentials and its routes.
        #[arg(long, default_value = "/var/lib/undine-edge")]
        state_dir: PathBuf,
    },
    /// Serve visitors.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// Where it keeps its credentials and its routes.
    #[arg(long, default_value = "/var/lib/undine-edge")]
    state_dir: PathBuf,
    /// An address for plain HTTP; may be given more than once.
    #[arg(long)]
    listen_http: Vec<SocketAddr>,
    /// An address for HTTPS; may be given more than once.
    #[arg(long)]
    listen_https: Vec<SocketAddr>,
    /// The port at which visitors find HTTPS, when something in front maps it.
    #[arg(long)]
    public_https_port: Option<u16>,
    /// An address for Prometheus.
    #[arg(long)]
    metrics_listen: Option<SocketAddr>,
    /// Write one line of JSON a request to standard output.
    #[arg(long)]
    access_log: bool,
    /// The most connections that one visitor may hold; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    connections_per_client: u32,
    /// Let a second edge listen on the same addresses, to replace this one without a gap.
    #[arg(long)]
    share_listen: bool,
    /// How long running requests may take to end when it stops, seconds.
    #[arg(long, default_value_t = 30)]
    stop_timeout_s: u64,
    #[command(flatten)]
    hold: Hold,
}

/// Requests for a server that fails over or restarts wait, within these bounds.
#[derive(clap::Args)]
struct Hold {
    /// How long one request waits at most, seconds; 0 holds nothing.
    #[arg(long, default_value_t = 60)]
    hold_s: u64,
    /// How many requests wait for one server.
    #[arg(long, default_value_t = Limits::default().per_server)]
    hold_per_server: usize,
    /// How many requests wait in all.
    #[arg(long, default_value_t = Limits::default().in_all)]
    hold_in_all: usize,
    /// How much waiting requests keep in memory, MiB.
    #[arg(long, default_value_t = 64)]
    hold_mib: usize,
    /// How many are let go at once when a server answers again.
    #[arg(long, default_value_t = Limits::default().at_once, value_parser = at_least_one)]
    hold_release: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a number from 1 up".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl From<Hold> for Limits {
    fn from(hold: Hold) -> Self {
        Self {
            time: Duration::from_secs(hold.hold_s),
            per_server: hold.hold_per_server,
            in_all: hold.hold_in_all,
            bytes: hold.hold_mib.saturating_mul(1 << 20),
            at_once: hold.hold_release,
        }
    }
}

impl From<Run> for Settings {
    fn from(run: Run) -> Self {
        Self {
            state_dir: run.state_dir,
            http: run.listen_http,
            https: run.listen_https,
            https_port: run.public_https_port,
            metrics: run.metrics_listen,
            access_log: run.access_log,
            connections_per_client: run.connections_per_client,
            share: run.share_listen,
            patience: Duration::from_secs(run.stop_timeout_s),
            hold: run.hold.into(),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // What the proxy library says about single requests is told in our own words.
    let filter = EnvFilter::try_from_env("UNDINE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,pingora_core=error,pingora_proxy=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    undine_link::install_crypto();
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("undine-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        match command {
            Command::Join {
                token,
                name,
                address,
                state_dir,
            } => {
                let joined = join::join(&token, name, address, &state_dir).await?;
                println!("joined as {} ({})", joined.name, joined.id);
                Ok(())
            }
            Command::Run(run) => serve(run.into()).await,
        }
    })
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    allow_many_files();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let edge = Edge::start(settings).await?;
    if !edge.has_routes(READY).await {
        tracing::warn!("there are no routes yet; control does not answer");
    }
    tracing::info!(http = ?edge.http(), https = ?edge.https(), version = edge.version(), "serving");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; running requests end first");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    edge.stop().await;
    Ok(())
}

/// Every visitor takes two files: as many as the system allows.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Fewer visitors at once, then: no reason not to start.
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
