//! The cluster that is measured: the one that runs, or one started for it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::api::{Api, text};
use super::report::Machine;
use super::wire;
use crate::up::{self, layout, supervise};

/// A site of the demo and a text that its page has.
#[derive(Debug, Clone, Deserialize)]
pub struct Site {
    /// Its name.
    pub host: String,
    /// What its page says.
    pub expect: String,
}

#[derive(Deserialize)]
struct Summary {
    sites: Vec<Site>,
    control: Vec<Instance>,
    edges: Vec<Edge>,
    nodes: Vec<Node>,
    token_file: PathBuf,
}

#[derive(Deserialize)]
struct Instance {
    url: String,
}

#[derive(Deserialize)]
struct Edge {
    address: SocketAddr,
}

/// A hardware node of the cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
}

/// The cluster.
pub struct Cluster {
    /// Its control instances.
    pub instances: Vec<Api>,
    /// Its edges, for plain HTTP.
    pub edges: Vec<SocketAddr>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The sites of the demo.
    pub sites: Vec<Site>,
    /// The name that its sites are below.
    pub domain: String,
    /// The machine.
    pub machine: Machine,
}

impl Cluster {
    /// The cluster that runs; without one, one is started.
    pub fn open() -> Result<Self> {
        Self::open_or(&["--detach"])
    }

    /// The cluster that runs; without one, one is started by `up` with these words.
    pub fn open_or(words: &[&str]) -> Result<Self> {
        let path = layout::target().join("summary.json");
        if supervise::pid("supervisor").is_none() || !path.exists() {
            println!("no cluster runs; one is started");
            let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
            up::run(&words)?;
        }
        wake_supervisor();
        let bytes = fs::read(&path).with_context(|| format!("{} is not there", path.display()))?;
        let summary: Summary = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let token = fs::read_to_string(&summary.token_file)
            .with_context(|| format!("{} cannot be read", summary.token_file.display()))?;
        let instances: Vec<Api> = summary
            .control
            .iter()
            .map(|instance| Api::at(&instance.url, token.trim()))
            .collect::<Result<_>>()?;
        ensure!(!summary.edges.is_empty(), "the cluster has no edge");
        let first = instances.first().context("the cluster has no control")?;
        wait_for(&instances, Duration::from_secs(30))?;
        let me = first.get("/v1/whoami")?;
        let accelerator = accelerator(&first.all("/v1/nodes")?);
        Ok(Self {
            domain: text(&me, "domain").to_owned(),
            machine: Machine::of(&accelerator),
            instances,
            edges: summary.edges.iter().map(|edge| edge.address).collect(),
            nodes: summary.nodes,
            sites: summary.sites,
        })
    }

    /// The first instance of control.
    pub fn api(&self) -> &Api {
        &self.instances[0]
    }

    /// The first edge.
    pub fn edge(&self) -> SocketAddr {
        self.edges[0]
    }

    /// Asks again and again until the page has this text; seconds since `begun`.
    pub fn first_answer(&self, host: &str, expect: &str, begun: Instant) -> Result<f64> {
        const PATIENCE: Duration = Duration::from_secs(120);
        const AGAIN: Duration = Duration::from_millis(10);
        loop {
            let trouble = match wire::get(self.edge(), host, "/", Duration::from_secs(30)) {
                Ok(page) if page.status == 200 && page.text().contains(expect) => {
                    return Ok(begun.elapsed().as_secs_f64());
                }
                Ok(page) => format!("status {}", page.status),
                Err(error) => format!("{error:#}"),
            };
            if begun.elapsed() > PATIENCE {
                bail!(
                    "{host} does not answer after {} s: {trouble}",
                    PATIENCE.as_secs()
                );
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Waits until every instance of control answers for itself.
    pub fn wait_for_control(&self, patience: Duration) -> Result<Duration> {
        wait_for(&self.instances, patience)
    }
}

fn wait_for(instances: &[Api], patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    while !instances.iter().all(Api::is_up) {
        ensure!(
            begun.elapsed() < patience,
            "control does not answer within {} s",
            patience.as_secs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(begun.elapsed())
}

/// A bench that was broken off may have left the supervisor, or some of its programs, held still.
fn wake_supervisor() {
    supervise::release_all();
    if let Some(supervisor) = supervise::started("supervisor") {
        supervisor.signal("CONT");
    }
}

fn accelerator(nodes: &[Value]) -> String {
    nodes
        .iter()
        .map(|node| text(&node["inventory"], "accelerator"))
        .find(|word| !word.is_empty())
        .unwrap_or("unknown")
        .to_owned()
}
