//! `up`: this machine becomes a small hosting company. Everything is done as a real installation
//! does it: the same programs, the same `init` and `join`, the units' own command lines.

mod cluster;
mod demo;
pub mod http;
pub mod layout;
pub mod mail;
pub mod network;
mod options;
mod phases;
pub mod postgres;
mod summary;
pub mod supervise;
mod undine;
mod unit;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::machine::{self, cargo, require_room, require_root};
use layout::NodePlace;
use options::{Options, StoreKind};
use phases::Phases;

const PROGRAMS: [&str; 5] = [
    "undine-control",
    "undine-node",
    "undine-guard",
    "undine-edge",
    "undine-cli",
];

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{}", options::USAGE);
        return Ok(());
    };
    let fresh = !Path::new(layout::STATE).exists();
    let outcome = bring_up(&options);
    if outcome.is_err() && fresh && !options.keep_failed && Path::new(layout::STATE).exists() {
        keep_logs();
        crate::down::run(&[])
            .context("what was begun could not be removed; run cargo xtask down")?;
    }
    outcome?;
    if options.detach {
        println!("\nIt goes on in the background; `cargo xtask down` removes it.");
        return Ok(());
    }
    println!("\nPress Enter to take everything down (or end this program to leave it running).");
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(read) if read > 0 => crate::down::run(&[]),
        _ => Ok(()),
    }
}

fn bring_up(options: &Options) -> Result<()> {
    let mut phases = Phases::new();
    phases.begin("looking at this machine");
    require_root("for network namespaces, taps and control groups")?;
    let mut wanted = vec![machine::FOR_UP];
    if options.store == StoreKind::Postgres {
        wanted.push(machine::FOR_POSTGRES);
    }
    machine::provide(&wanted, options.install)?;
    require_room(Path::new(layout::STATE), 6)?;
    require_room(&layout::checkout(), 6)?;
    check_ports(options)?;
    phases.begin("building the programs");
    build()?;
    phases.begin("building the server image");
    let image = build_image()?;
    phases.begin("making the network");
    prepare_state()?;
    let nodes: Vec<NodePlace> = (1..=options.nodes).map(layout::node).collect();
    network::ensure(&nodes)?;
    phases.begin("starting control");
    cluster::control(options, &image)?;
    phases.begin("joining nodes and edges");
    cluster::nodes(&nodes, options)?;
    cluster::edges(options)?;
    wait_for_nodes(&nodes)?;
    mail::ensure(options)?;
    let mut sites = Vec::new();
    if options.demo {
        phases.begin("starting servers, making sites");
        sites = demo::ensure(options, &cluster::edge_address(options, 1)?.to_string())?;
    }
    phases.begin("looking at every page through every edge");
    check(options, &sites)?;
    phases.end();
    demo_credentials()?;
    summary::tell(options, &nodes, sites, &phases)
}

/// A port that somebody else has is said before anything is begun.
fn check_ports(options: &Options) -> Result<()> {
    if supervise::pid("supervisor").is_some() {
        return Ok(());
    }
    for port in [options.http_port, options.https_port] {
        if let Err(error) = TcpListener::bind((options.listen.as_str(), port)) {
            bail!(
                "port {port} on {} cannot be had ({error}); choose others with --http-port and --https-port",
                options.listen
            );
        }
    }
    Ok(())
}

fn build() -> Result<()> {
    let mut words = vec!["build"];
    for program in PROGRAMS {
        words.extend(["--package", program]);
    }
    cargo(&words)
}

/// Builds the server image, or finds the one that is built already; answers its folder.
pub fn build_image() -> Result<PathBuf> {
    let checkout = layout::checkout();
    let options = image::Options {
        definition: checkout.join("images/debian12-web"),
        out: checkout.join("target/image"),
        guest: image::build_guest()?,
        program: std::env::current_exe().context("this program's own file is unknown")?,
        mirror: None,
        refresh: false,
        force: false,
    };
    let built = image::build(&options, &|line| println!("           {line}"))?;
    Ok(built.dir)
}

/// Servers run as users of their own, who must be able to walk in here.
fn prepare_state() -> Result<()> {
    for folder in [Path::new(layout::STATE), Path::new(layout::RUNTIME)] {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} could not be made", folder.display()))?;
    }
    fs::create_dir_all(layout::target())?;
    Ok(())
}

fn wait_for_nodes(nodes: &[NodePlace]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let known = undine::list(&["node", "list"])?;
        let ready = |place: &NodePlace| {
            known.iter().any(|node| {
                undine::text(node, "name") == place.name && undine::text(node, "state") == "ready"
            })
        };
        let Some(missing) = nodes.iter().find(|place| !ready(place)) else {
            say_accelerator(&known);
            return Ok(());
        };
        if Instant::now() > deadline {
            bail!(cluster::see_log(&format!("{}-agent", missing.name)));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn say_accelerator(nodes: &[serde_json::Value]) {
    let Some(inventory) = nodes.first().and_then(|node| node.get("inventory")) else {
        return;
    };
    let accelerator = undine::text(inventory, "accelerator");
    let reason = undine::text(inventory, "accelerator_reason");
    println!("           servers run under {accelerator}: {reason}");
}

fn check(options: &Options, sites: &[demo::Site]) -> Result<()> {
    for index in 1..=options.edges {
        let address = cluster::edge_address(options, index)?;
        let panel = format!("panel.{}", options.domain);
        http::wait_for(address, &panel, "/healthz", "", Duration::from_secs(30))?;
        for site in sites {
            http::wait_for(
                address,
                &site.host,
                "/",
                &site.expect,
                Duration::from_secs(60),
            )?;
        }
    }
    Ok(())
}

/// The file that holds every password and token that `up` made.
pub fn credentials_file() -> PathBuf {
    layout::state("credentials.txt")
}

fn demo_credentials() -> Result<()> {
    let known = fs::read_to_string(credentials_file()).unwrap_or_default();
    if known.contains("provider-token") {
        return Ok(());
    }
    let token = fs::read_to_string(cluster::token_file())?;
    demo::keep_credentials(&format!("provider-token {}\n", token.trim()))?;
    // A cluster of an earlier program has none: `undine-control owner-link` makes one.
    match fs::read_to_string(token_beside("owner-link")) {
        Ok(link) => demo::keep_credentials(&format!("owner-link {}\n", link.trim())),
        Err(_) => Ok(()),
    }
}

fn token_beside(name: &str) -> PathBuf {
    cluster::token_file().with_file_name(name)
}

pub use demo::write_private;

/// A password nobody can guess: 96 bits of the kernel's randomness.
pub fn secret() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 12];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// After a failed first try everything is removed; the logs that explain it are kept.
fn keep_logs() {
    let kept = layout::checkout().join("target/up-failed-logs");
    let _ = fs::remove_dir_all(&kept);
    if fs::rename(layout::target().join("logs"), &kept).is_ok() {
        eprintln!("the programs' logs are kept in {}", kept.display());
    }
}
