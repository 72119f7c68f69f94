//! undine-control: reads flags and environment, and does what they say.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use undine_control::commands::import::Imports;
use undine_control::commands::init::Init;
use undine_control::commands::join::Join;
use undine_control::commands::run::Run;
use undine_control::commands::{self, keep};
use undine_control::control::PublicPorts;
use undine_control::failpoint::Failpoints;
use undine_control::state_dir::StateDir;
use undine_link::JoinToken;
use undine_model::Slug;
use undine_store::Joiner;

/// The control program of an Undine cluster: API, operations, reconcilers.
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster with its first instance.
    Init(InitFlags),
    /// Add this machine as a further instance (PostgreSQL only).
    Join(JoinFlags),
    /// Run an instance until told to end.
    Run(RunFlags),
    /// Make a one-time join token and print it.
    Token(TokenFlags),
    /// Make a one-time link by which an owner comes into the panel, and print it.
    OwnerLink(StateFlag),
    /// Take in profiles, applications and images.
    Import(ImportFlags),
    /// Write a backup of the store to a file.
    Backup(KeepFlags),
    /// Put a backup in the store's place, while no instance runs.
    Restore(KeepFlags),
}

#[derive(clap::Args)]
struct StateFlag {
    /// Where the instance keeps its state.
    #[arg(
        long,
        env = "UNDINE_STATE_DIR",
        default_value = "/var/lib/undine-control"
    )]
    state_dir: PathBuf,
}

#[derive(clap::Args)]
struct ImportArgs {
    /// A folder of profiles.
    #[arg(long)]
    profiles: Option<PathBuf>,
    /// A folder of applications.
    #[arg(long)]
    apps: Option<PathBuf>,
    /// A folder with an image.json and its files; may be given more than once.
    #[arg(long)]
    image: Vec<PathBuf>,
}

impl From<ImportArgs> for Imports {
    fn from(args: ImportArgs) -> Self {
        Self {
            profiles: args.profiles,
            apps: args.apps,
            images: args.image,
        }
    }
}

#[derive(clap::Args)]
struct InitFlags {
    #[command(flatten)]
    state: StateFlag,
    /// The store: `sqlite:///path` or `postgres://user:password@host1,host2/db`.
    #[arg(long, env = "UNDINE_STORE_URL", hide_env_values = true)]
    store_url: String,
    /// Name of the first instance.
    #[arg(long, default_value = "control-1")]
    name: Slug,
    /// The panel is at `panel.<domain>`.
    #[arg(long)]
    domain: String,
    /// Where nodes, edges and other instances reach this one.
    #[arg(long)]
    internal_address: SocketAddr,
    /// A network of nodes, control and edges; may be given more than once.
    #[arg(long)]
    management_network: Vec<String>,
    /// The servers' IPv4 network.
    #[arg(long, default_value = "10.214.0.0/16")]
    server_network_ipv4: String,
    /// The servers' IPv6 network.
    #[arg(long, default_value = "fd5e:d1e0:214::/64")]
    server_network_ipv6: String,
    /// An edge's address in the servers' network; may be given more than once.
    #[arg(long)]
    edge_address: Vec<IpAddr>,
    /// Versioned machine type of new servers.
    #[arg(long, default_value = "pc-q35-10.0")]
    machine: String,
    /// CPU baseline of new servers, which every node must have.
    #[arg(long, default_value = "qemu64")]
    cpu_model: String,
    /// Where visitors reach the edges for plain HTTP.
    #[arg(long, default_value_t = 80)]
    public_http_port: u16,
    /// Where visitors reach the edges for TLS.
    #[arg(long, default_value_t = 443)]
    public_https_port: u16,
    #[command(flatten)]
    imports: ImportArgs,
}

#[derive(clap::Args)]
struct JoinFlags {
    /// What `undine-control token control` printed.
    token: JoinToken,
    #[command(flatten)]
    state: StateFlag,
    /// Its name.
    #[arg(long)]
    name: Slug,
    /// Where nodes, edges and other instances reach it.
    #[arg(long)]
    internal_address: SocketAddr,
}

#[derive(clap::Args)]
struct RunFlags {
    #[command(flatten)]
    state: StateFlag,
    /// Where the public API listens, without TLS: a loopback address.
    #[arg(long, default_value = "127.0.0.1:7100")]
    api_listen: SocketAddr,
    /// Where nodes, edges and other instances are served.
    #[arg(long)]
    internal_listen: SocketAddr,
    /// For drills: `kind/step/before=abort`, more with `;` between.
    #[arg(long, env = "UNDINE_FAILPOINTS", default_value = "", hide = true)]
    failpoints: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Node,
    Edge,
    Control,
}

#[derive(clap::Args)]
struct TokenFlags {
    /// What it is to admit.
    role: Role,
    #[command(flatten)]
    state: StateFlag,
    /// The only name that it is to admit.
    #[arg(long)]
    name: Option<Slug>,
    /// How long it admits, such as 30m, 1h or 2d.
    #[arg(long, default_value = "1h", value_parser = seconds)]
    ttl: u32,
}

#[derive(clap::Args)]
struct ImportFlags {
    #[command(flatten)]
    state: StateFlag,
    #[command(flatten)]
    imports: ImportArgs,
}

#[derive(clap::Args)]
struct KeepFlags {
    /// The backup.
    file: PathBuf,
    #[command(flatten)]
    state: StateFlag,
}

fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no duration; write 90s, 30m, 1h or 2d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(wrong)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    undine_link::install_crypto();
    let filter = tracing_subscriber::EnvFilter::try_from_env("UNDINE_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,sqlx=warn,sea_orm_migration=warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("undine-control: no threads could be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(act(flags.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("undine-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(flags) => init(flags).await,
        Command::Join(flags) => {
            commands::join::join(&Join {
                token: flags.token,
                state_dir: flags.state.state_dir,
                name: flags.name,
                internal_address: flags.internal_address,
            })
            .await
        }
        Command::Run(flags) => run(flags).await,
        Command::Token(flags) => {
            let kind = match flags.role {
                Role::Node => Joiner::Node,
                Role::Edge => Joiner::Edge,
                Role::Control => Joiner::Control,
            };
            let state = StateDir::new(flags.state.state_dir);
            let token = commands::token::token(&state, kind, flags.name, Some(flags.ttl)).await?;
            println!("{token}");
            Ok(())
        }
        Command::OwnerLink(flags) => {
            let state = StateDir::new(flags.state_dir);
            println!("{}", commands::owner_link::owner_link(&state).await?);
            Ok(())
        }
        Command::Import(flags) => {
            let state = StateDir::new(flags.state.state_dir);
            let (_, store) = commands::open(&state).await?;
            commands::import::import(&store, &state, &flags.imports.into()).await
        }
        Command::Backup(flags) => {
            keep::backup(&StateDir::new(flags.state.state_dir), &flags.file).await
        }
        Command::Restore(flags) => {
            keep::restore(&StateDir::new(flags.state.state_dir), &flags.file).await
        }
    }
}

async fn init(flags: InitFlags) -> anyhow::Result<()> {
    let wish = Init {
        state_dir: flags.state.state_dir,
        store_url: flags.store_url,
        name: flags.name,
        domain: flags.domain,
        internal_address: flags.internal_address,
        management: flags.management_network,
        servers_ipv4: flags.server_network_ipv4,
        servers_ipv6: flags.server_network_ipv6,
        edges: flags.edge_address,
        machine: flags.machine,
        cpu_model: flags.cpu_model,
        ports: PublicPorts {
            http: flags.public_http_port,
            https: flags.public_https_port,
        },
        imports: flags.imports.into(),
    };
    let token = commands::init::init(&wish).await?;
    eprintln!(
        "The provider's token, shown once; it also lies in {}:",
        StateDir::new(&wish.state_dir).provider_token().display()
    );
    println!("{token}");
    let link = StateDir::new(&wish.state_dir).path().join("owner-link");
    eprintln!("The owner's way into the panel, once, within a week:");
    eprintln!("{}", std::fs::read_to_string(link)?.trim());
    Ok(())
}

async fn run(flags: RunFlags) -> anyhow::Result<()> {
    let failpoints = Failpoints::parse(&flags.failpoints).map_err(anyhow::Error::msg)?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        told.cancel();
    });
    commands::run::run(
        Run {
            state: StateDir::new(flags.state.state_dir),
            api_listen: flags.api_listen,
            internal_listen: flags.internal_listen,
            failpoints,
        },
        shutdown,
    )
    .await
}
