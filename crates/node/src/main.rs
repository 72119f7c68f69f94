//! undine-node: the hardware node's agent. Flags and environment are read here and nowhere else.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use undine_link::JoinToken;
use undine_model::{Bytes, MilliCpu, NodeId, Slug};
use undine_node::host::{Choice, Host, STORAGE_DAEMON};
use undine_node::run::End;
use undine_node::settings::{Declared, RunSettings, Settings};
use undine_node::{join, run};
use undine_qemu::accel::Accel;

/// How many user ids a node has, unless told otherwise.
const UID_COUNT: u32 = 4_000;

/// The hardware node's agent of Undine.
#[derive(Parser)]
#[command(name = "undine-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let this machine join a cluster with a one-time token.
    Join(JoinFlags),
    /// Run the agent of a machine that has joined.
    Run(RunFlags),
}

#[derive(Args)]
struct JoinFlags {
    /// The one-time token that `undine node token` prints.
    #[arg(env = "UNDINE_JOIN_TOKEN", hide_env_values = true)]
    token: JoinToken,
    /// The node's name in the cluster.
    #[arg(long, env = "UNDINE_NODE_NAME")]
    name: Slug,
    /// Where control and other nodes reach this one.
    #[arg(long, env = "UNDINE_NODE_ADDRESS", value_name = "IP:PORT")]
    address: SocketAddr,
    /// Where everything lasting lies.
    #[arg(
        long,
        env = "UNDINE_NODE_STATE_DIR",
        default_value = "/var/lib/undine-node"
    )]
    state_dir: PathBuf,
    /// CPU that servers may use, such as 4000m or 4; measured when absent.
    #[arg(long, env = "UNDINE_NODE_CPU")]
    cpu: Option<MilliCpu>,
    /// Memory that servers may use, such as 8GiB; measured when absent.
    #[arg(long, env = "UNDINE_NODE_MEMORY")]
    memory: Option<Bytes>,
    /// Disk that replicas may use, such as 100GiB; measured when absent.
    #[arg(long, env = "UNDINE_NODE_DISK")]
    disk: Option<Bytes>,
    /// The interface to the other nodes and the edges; it becomes a port of the servers' bridge.
    #[arg(long, env = "UNDINE_NODE_SERVER_UPLINK", value_name = "INTERFACE")]
    server_uplink: Option<String>,
    /// The interface to the world, for servers' outgoing connections; none without it.
    #[arg(long, env = "UNDINE_NODE_EGRESS_INTERFACE", value_name = "INTERFACE")]
    egress_interface: Option<String>,
}

#[derive(Args)]
struct RunFlags {
    /// Where everything lasting lies.
    #[arg(
        long,
        env = "UNDINE_NODE_STATE_DIR",
        default_value = "/var/lib/undine-node"
    )]
    state_dir: PathBuf,
    /// Sockets and consoles, on a file system that a reboot empties [default: /run/undine/NAME].
    #[arg(long, env = "UNDINE_NODE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// The control group below which servers get theirs [default: undine/NAME].
    #[arg(long, env = "UNDINE_NODE_CGROUP")]
    cgroup: Option<String>,
    /// First of the user ids for VMs and storage daemons; no other program may use them
    /// [default: by the node's id, between 70000 and 470000].
    #[arg(long, env = "UNDINE_NODE_UID_BASE")]
    uid_base: Option<u32>,
    /// How many user ids there are.
    #[arg(long, env = "UNDINE_NODE_UID_COUNT", default_value_t = UID_COUNT)]
    uid_count: u32,
    /// Where Prometheus may ask, such as 127.0.0.1:7390.
    #[arg(long, env = "UNDINE_NODE_METRICS_LISTEN", value_name = "IP:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Further networks that servers may never reach, beside private and management ones.
    #[arg(
        long,
        env = "UNDINE_NODE_EGRESS_DENY",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    egress_deny: Vec<IpNet>,
    /// How guests run; `auto` finds out by starting one.
    #[arg(long, env = "UNDINE_NODE_ACCEL", value_enum, default_value_t = AccelFlag::Auto)]
    accel: AccelFlag,
    /// The program that serves the disks' replicas; for a build of QEMU of your own.
    #[arg(
        long,
        env = "UNDINE_NODE_STORAGE_DAEMON",
        value_name = "PROGRAM",
        default_value = STORAGE_DAEMON
    )]
    storage_daemon: PathBuf,
    /// Spares for each shape of server that other nodes run: VMs that have rehearsed a start, so
    /// that a server of a dead node answers sooner. Kept only where guests are emulated.
    #[arg(
        long,
        env = "UNDINE_NODE_SPARES",
        value_name = "COUNT",
        default_value_t = 2
    )]
    spares: usize,
    /// Set up no network at all: servers get no card. For trying things out.
    #[arg(long, env = "UNDINE_NODE_NO_NETWORK")]
    no_network: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AccelFlag {
    Auto,
    Kvm,
    Tcg,
}

impl From<AccelFlag> for Choice {
    fn from(flag: AccelFlag) -> Self {
        match flag {
            AccelFlag::Auto => Self::Probe,
            AccelFlag::Kvm => Self::Fixed(Accel::Kvm),
            AccelFlag::Tcg => Self::Fixed(Accel::Tcg),
        }
    }
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    undine_link::install_crypto();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = match cli.command {
        Command::Join(flags) => runtime.block_on(joined(flags)),
        Command::Run(flags) => runtime.block_on(served(flags)),
    };
    match result {
        Ok(End::Told) => ExitCode::SUCCESS,
        Ok(End::Renewed) => again(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("undine-node: {error:#}");
    ExitCode::FAILURE
}

/// Replaces this process by a fresh one; servers go on.
fn again() -> ExitCode {
    let mut args = std::env::args_os();
    let Some(program) = args.next() else {
        return ExitCode::FAILURE;
    };
    let error = std::process::Command::new(program).args(args).exec();
    failed(&error.into())
}

async fn joined(mut flags: JoinFlags) -> anyhow::Result<End> {
    flags.state_dir = std::path::absolute(flags.state_dir)?;
    undine_node::files::make_folder(&flags.state_dir)?;
    let host = Host::open(&flags.state_dir, Choice::Probe)
        .await
        .map_err(|error| {
            anyhow::Error::new(error)
                .context("QEMU is missing: install qemu-system-x86 (10 or newer) and qemu-utils")
        })?;
    let wish = join::Wish {
        token: flags.token,
        name: flags.name,
        address: flags.address,
        state_dir: flags.state_dir,
        declared: Declared {
            cpu: flags.cpu,
            memory: flags.memory,
            disk: flags.disk,
        },
        server_uplink: flags.server_uplink,
        egress_interface: flags.egress_interface,
    };
    let state_dir = wish.state_dir.clone();
    let settings = match join::join(wish, &host.fixed()).await {
        Ok(settings) => settings,
        Err(error) => {
            // Only if nothing is in it: a try that failed leaves nothing behind.
            let _ = std::fs::remove_dir(state_dir);
            return Err(error.into());
        }
    };
    println!(
        "{} joined as node {}",
        settings.name.as_str(),
        settings.node
    );
    Ok(End::Told)
}

async fn served(mut flags: RunFlags) -> anyhow::Result<End> {
    // VMs and daemons have another working folder.
    flags.state_dir = std::path::absolute(flags.state_dir)?;
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "undine-node must run as root: it makes taps, users' processes and control groups"
        );
    }
    let settings = Settings::load(&flags.state_dir)?.ok_or_else(|| {
        anyhow::anyhow!(
            "{} has not joined a cluster: run `undine-node join TOKEN` first",
            flags.state_dir.display()
        )
    })?;
    let name = settings.name.as_str();
    let run_settings = RunSettings {
        run_dir: flags
            .run_dir
            .unwrap_or_else(|| PathBuf::from(format!("/run/undine/{name}"))),
        cgroup: flags.cgroup.unwrap_or_else(|| format!("undine/{name}")),
        state_dir: flags.state_dir,
        uid_base: flags.uid_base.unwrap_or_else(|| uid_base(settings.node)),
        uid_count: flags.uid_count,
        metrics_listen: flags.metrics_listen,
        egress_deny: flags.egress_deny,
        storage_daemon: flags.storage_daemon,
        spares: flags.spares,
        no_network: flags.no_network,
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
    run::run(
        settings,
        run_settings,
        flags.accel.into(),
        notify_ready,
        stop,
    )
    .await
}

/// Nodes that share one machine get ranges of their own, most likely; an id in use is passed over
/// in any case. Above stand the ids that systemd gives to containers.
fn uid_base(node: NodeId) -> u32 {
    let [.., a, b] = node.uuid().into_bytes();
    70_000 + u32::from(u16::from_be_bytes([a, b])) % 100 * UID_COUNT
}

/// Tells systemd that the agent serves.
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd could not be told");
    }
}
