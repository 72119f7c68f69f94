//! undine-guard: renews a node's lease and pauses its servers when it is cut off. Flags,
//! environment and the node's settings are read here.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use undine_guard::run::{self, End, Settings};
use undine_model::NodeId;

/// Renews a hardware node's lease at control, and pauses its servers when it is cut off.
#[derive(Parser)]
#[command(name = "undine-guard", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Renew the lease of a machine that has joined.
    Run(RunFlags),
}

#[derive(Args)]
struct RunFlags {
    /// The state folder of this machine's undine-node.
    #[arg(
        long,
        env = "UNDINE_NODE_STATE_DIR",
        default_value = "/var/lib/undine-node"
    )]
    state_dir: PathBuf,
    /// Where Prometheus may ask, such as 127.0.0.1:7391.
    #[arg(long, env = "UNDINE_GUARD_METRICS_LISTEN", value_name = "IP:PORT")]
    metrics_listen: Option<SocketAddr>,
}

/// The part of the node's settings that the guard needs.
#[derive(Deserialize)]
struct NodeSettings {
    node: NodeId,
    address: SocketAddr,
    control: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    undine_link::install_crypto();
    let Command::Run(flags) = Cli::parse().command;
    // One thread: the guard must stay small, and never waits for a busy one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(guard(flags)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(End::Told) => ExitCode::SUCCESS,
        Ok(End::Renewed) => again(),
        Err(error) => {
            eprintln!("undine-guard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Replaces this process by a fresh one with the new certificate.
fn again() -> ExitCode {
    let mut args = std::env::args_os();
    let Some(program) = args.next() else {
        return ExitCode::FAILURE;
    };
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!("undine-guard: {error}");
    ExitCode::FAILURE
}

async fn guard(flags: RunFlags) -> anyhow::Result<End> {
    let node = node_settings(&flags.state_dir)?;
    let listen = undine_api::guard::listens_at(node.address).with_context(|| {
        let address = node.address;
        format!("the agent's port leaves none for the guard above it: {address}; join anew with a lower one")
    })?;
    let settings = Settings {
        node: node.node,
        control: node.control,
        folder: flags.state_dir.join("guard"),
        listen,
        metrics_listen: flags.metrics_listen,
    };
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let systemd = Systemd::find();
    systemd.tell("READY=1");
    run::run(settings, || systemd.tell("WATCHDOG=1"), stop).await
}

fn node_settings(state_dir: &Path) -> anyhow::Result<NodeSettings> {
    let path = state_dir.join("node.json");
    let text = std::fs::read(&path).with_context(|| {
        format!(
            "{} has not joined a cluster: run `undine-node join TOKEN` first",
            state_dir.display()
        )
    })?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Where systemd listens, if it started this: it kills a guard that hangs.
struct Systemd(Option<(UnixDatagram, PathBuf)>);

impl Systemd {
    fn find() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from);
        let socket = UnixDatagram::unbound().ok();
        if let Some(socket) = &socket {
            // Nobody waits for systemd.
            let _ = socket.set_nonblocking(true);
        }
        Self(socket.zip(path))
    }

    fn tell(&self, word: &str) {
        if let Some((socket, path)) = &self.0
            && let Err(error) = socket.send_to(word.as_bytes(), path)
        {
            tracing::warn!(%error, word, "systemd could not be told");
        }
    }
}
