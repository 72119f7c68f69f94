//! undine-guard: renews a node's lease. Flags, environment and the node's settings are read here.

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

/// Renews a hardware node's lease at control.
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
    let settings = Settings {
        control: control(&flags.state_dir)?,
        folder: flags.state_dir.join("guard"),
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
    notify_ready();
    run::run(settings, stop).await
}

fn control(state_dir: &Path) -> anyhow::Result<Vec<SocketAddr>> {
    let path = state_dir.join("node.json");
    let text = std::fs::read(&path).with_context(|| {
        format!(
            "{} has not joined a cluster: run `undine-node join TOKEN` first",
            state_dir.display()
        )
    })?;
    let settings: NodeSettings =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(settings.control)
}

fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd could not be told");
    }
}
