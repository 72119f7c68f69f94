//! Control, nodes and edges: initialised, joined and kept running, by the programs' own commands.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::{self, NodePlace};
use super::options::{Options, StoreKind};
use super::supervise::{self, Process};
use super::{http, postgres, unit};
use crate::command::{command, output};
use crate::machine;

/// Declared room for data disks on each node. Disks are sparse files: what they promise may be more
/// than this machine has, and there is room for servers beside the first ones and for their copies.
const DISK: &str = "64GiB";

/// Memory that stays with the machine itself when nodes declare theirs.
const HOST_SHARE_MIB: u64 = 4096;
/// Emulated nodes rarely need more.
const NODE_MIB: u64 = 6144;

/// The loopback address of instance `index`'s API, from 1.
pub fn api_address(index: usize) -> String {
    format!("127.0.0.1:{}", 7100 + index)
}

fn internal_address(index: usize) -> String {
    format!("{}:{}", layout::MANAGEMENT_HOST, 7200 + index)
}

/// Where the first provider's token lies.
pub fn token_file() -> std::path::PathBuf {
    layout::state("control-1").join("provider-token")
}

/// Starts the instances of control; the first makes the cluster, the others join it.
pub fn control(options: &Options, image: &Path) -> Result<()> {
    let store_url = match options.store {
        StoreKind::Sqlite => {
            format!(
                "sqlite:{}",
                layout::state("control-1").join("undine.db").display()
            )
        }
        StoreKind::Postgres => {
            postgres::ensure()?;
            postgres::url()
        }
    };
    for index in 1..=options.control {
        let state = layout::state(&format!("control-{index}"));
        if !state.join("instance.json").exists() {
            if index == 1 {
                initialise(options, &state, &store_url, image)?;
            } else {
                let token = token("control", &format!("control-{index}"))?;
                ours(
                    "undine-control",
                    &[
                        "join",
                        &token,
                        "--state-dir",
                        &state.to_string_lossy(),
                        "--name",
                        &format!("control-{index}"),
                        "--internal-address",
                        &internal_address(index),
                    ],
                )?;
            }
        }
        let variables = variables(
            &state,
            &[
                ("API_LISTEN", &api_address(index)),
                ("INTERNAL_LISTEN", &internal_address(index)),
            ],
        );
        keep(
            &format!("control-{index}"),
            "undine-control.service",
            None,
            &variables,
        )?;
        let address: SocketAddr = api_address(index).parse()?;
        http::wait_for(
            address,
            "localhost",
            "/healthz",
            "",
            Duration::from_secs(60),
        )
        .with_context(|| see_log(&format!("control-{index}")))?;
    }
    Ok(())
}

fn initialise(options: &Options, state: &Path, store_url: &str, image: &Path) -> Result<()> {
    let checkout = layout::checkout();
    ours(
        "undine-control",
        &[
            "init",
            "--state-dir",
            &state.to_string_lossy(),
            "--store-url",
            store_url,
            "--name",
            "control-1",
            "--domain",
            &options.domain,
            "--public-http-port",
            &options.http_port.to_string(),
            "--public-https-port",
            &options.https_port.to_string(),
            "--internal-address",
            &internal_address(1),
            "--management-network",
            layout::MANAGEMENT_NETWORK,
            "--server-network-ipv4",
            layout::SERVER_NETWORK,
            "--server-network-ipv6",
            layout::SERVER_NETWORK6,
            "--edge-address",
            layout::SERVER_HOST,
            "--edge-address",
            layout::SERVER_HOST6,
            "--profiles",
            &checkout.join("profiles").to_string_lossy(),
            "--apps",
            &checkout.join("apps").to_string_lossy(),
            "--image",
            &image.to_string_lossy(),
        ],
    )
    .map(drop)
}

/// Joins the nodes that have not joined yet and keeps agent and guard of each running.
pub fn nodes(places: &[NodePlace], options: &Options) -> Result<()> {
    let memory = ((machine::memory_mib().saturating_sub(HOST_SHARE_MIB)) / places.len() as u64)
        .min(NODE_MIB);
    for place in places {
        if !place.state.join("node.json").exists() {
            join_node(place, memory)?;
        }
        let mut extra = format!(
            "--cgroup {}/{} --run-dir {}/{}",
            layout::CGROUP,
            place.name,
            layout::RUNTIME,
            place.name
        );
        if let Some(program) = &options.storage_daemon {
            extra = format!("{extra} --storage-daemon {program}");
        }
        let node = variables(&place.state, &[("EXTRA", &extra)]);
        let name = |part: &str| format!("{}-{part}", place.name);
        keep_as(
            options.agent.as_deref(),
            &name("agent"),
            "undine-node.service",
            Some(&place.namespace),
            &node,
        )?;
        let guard = variables(&place.state, &[]);
        keep(
            &name("guard"),
            "undine-guard.service",
            Some(&place.namespace),
            &guard,
        )?;
    }
    Ok(())
}

fn join_node(place: &NodePlace, memory_mib: u64) -> Result<()> {
    let token = token("node", &place.name)?;
    let program = layout::program("undine-node").display().to_string();
    let namespace = format!("--net=/run/netns/{}", place.namespace);
    let words = [
        namespace.as_str(),
        "--",
        &program,
        "join",
        &token,
        "--name",
        &place.name,
        "--address",
        &format!("{}:7300", place.address),
        "--state-dir",
        &place.state.to_string_lossy(),
        "--server-uplink",
        "srv0",
        "--egress-interface",
        "mgmt0",
        "--cpu",
        "2000m",
        "--memory",
        &format!("{memory_mib}MiB"),
        "--disk",
        DISK,
    ];
    output(&mut command("nsenter", words))
        .map(drop)
        .with_context(|| format!("{} could not join", place.name))
}

/// Joins the edges that have not joined yet and keeps them running.
pub fn edges(options: &Options) -> Result<()> {
    for index in 1..=options.edges {
        let name = format!("edge-{index}");
        let state = layout::state(&name);
        if !state.join("edge.json").exists() {
            let token = token("edge", &name)?;
            ours(
                "undine-edge",
                &[
                    "join",
                    &token,
                    "--name",
                    &name,
                    "--address",
                    &format!("{}:{}", layout::MANAGEMENT_HOST, 7400 + index),
                    "--state-dir",
                    &state.to_string_lossy(),
                ],
            )?;
        }
        let listen: Vec<String> = edge_addresses(options, index)
            .iter()
            .map(|address| {
                format!(
                    "--listen-http {address}:{} --listen-https {address}:{}",
                    options.http_port, options.https_port
                )
            })
            .collect();
        let extra = format!("--public-https-port {}", options.https_port);
        let variables = variables(&state, &[("LISTEN", &listen.join(" ")), ("EXTRA", &extra)]);
        keep(&name, "undine-edge.service", None, &variables)?;
    }
    Ok(())
}

/// The addresses that edge `index` listens on. On loopback every edge has one of its own and the
/// second one takes IPv6 too: a browser that finds one of `localhost`'s two addresses dead takes
/// the other.
fn edge_addresses(options: &Options, index: usize) -> Vec<String> {
    let Some(last) = options.listen.strip_prefix("127.0.0.") else {
        return vec![options.listen.clone()];
    };
    let first: usize = last.parse().unwrap_or(1);
    let mut addresses = vec![format!("127.0.0.{}", first + index - 1)];
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    if has_ipv6 && index == options.edges.min(2) {
        addresses.push("[::1]".to_owned());
    }
    addresses
}

/// The address of edge `index` for plain HTTP.
pub fn edge_address(options: &Options, index: usize) -> Result<SocketAddr> {
    let address = &edge_addresses(options, index)[0];
    format!("{address}:{}", options.http_port)
        .parse()
        .context("--listen takes an IP address")
}

fn token(role: &str, name: &str) -> Result<String> {
    let state = layout::state("control-1").to_string_lossy().into_owned();
    let words = ["token", role, "--name", name, "--state-dir", &state];
    Ok(ours("undine-control", &words)?.trim().to_owned())
}

fn ours(program: &str, words: &[&str]) -> Result<String> {
    output(&mut command(
        &layout::program(program).to_string_lossy(),
        words,
    ))
}

fn variables(state: &Path, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("STATE_DIR".to_owned(), state.display().to_string())]);
    all.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    all
}

fn keep(
    name: &str,
    unit_name: &str,
    namespace: Option<&str>,
    variables: &BTreeMap<String, String>,
) -> Result<()> {
    keep_as(None, name, unit_name, namespace, variables)
}

/// The same with another program than the one that was built here.
fn keep_as(
    other: Option<&str>,
    name: &str,
    unit_name: &str,
    namespace: Option<&str>,
    variables: &BTreeMap<String, String>,
) -> Result<()> {
    let mut words = unit::command_line(unit_name, variables)?;
    let program = words[0].trim_start_matches("/usr/bin/").to_owned();
    let built = || layout::program(&program).display().to_string();
    words[0] = other.map_or_else(built, str::to_owned);
    words.splice(0..0, unit::niceness(unit_name)?);
    let log = layout::target().join(format!("logs/{name}.log"));
    fs::create_dir_all(layout::target().join("logs"))?;
    supervise::keep(&[Process {
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        user: None,
        words,
        environment: BTreeMap::new(),
        log,
    }])
}

/// What to read when a program does not come up.
pub fn see_log(name: &str) -> String {
    format!(
        "{name} does not come up; see {}",
        layout::target().join(format!("logs/{name}.log")).display()
    )
}
