//! What is up and where: as a table for people, as `summary.json` for programs.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use super::demo::Site;
use super::layout::{self, NodePlace};
use super::options::Options;
use super::phases::{Phase, Phases};
use super::{cluster, supervise};

#[derive(Serialize)]
struct Summary {
    sites: Vec<Site>,
    panel: String,
    control: Vec<Instance>,
    edges: Vec<Edge>,
    nodes: Vec<Node>,
    credentials_file: String,
    token_file: String,
    mail: String,
    phases: Vec<Phase>,
    total_s: f64,
}

#[derive(Serialize)]
struct Instance {
    url: String,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Edge {
    address: String,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    namespace: String,
    address: String,
    pids: Vec<u32>,
}

/// Writes and prints it.
pub fn tell(
    options: &Options,
    nodes: &[NodePlace],
    sites: Vec<Site>,
    phases: &Phases,
) -> Result<()> {
    let summary = Summary {
        sites,
        panel: format!("http://panel.{}:{}/", options.domain, options.http_port),
        control: (1..=options.control).map(instance).collect(),
        edges: (1..=options.edges)
            .map(|index| edge(options, index))
            .collect::<Result<_>>()?,
        nodes: nodes.iter().map(node).collect(),
        credentials_file: super::credentials_file().display().to_string(),
        token_file: cluster::token_file().display().to_string(),
        mail: super::mail::folder().display().to_string(),
        phases: phases.done().to_vec(),
        total_s: phases.total(),
    };
    let path = layout::target().join("summary.json");
    fs::write(&path, serde_json::to_vec_pretty(&summary)?)
        .with_context(|| format!("{} could not be written", path.display()))?;
    print(&summary);
    println!("\nThe same for programs: {}", path.display());
    Ok(())
}

fn instance(index: usize) -> Instance {
    Instance {
        url: format!("http://{}", cluster::api_address(index)),
        pid: supervise::pid(&format!("control-{index}")),
    }
}

fn edge(options: &Options, index: usize) -> Result<Edge> {
    Ok(Edge {
        address: cluster::edge_address(options, index)?.to_string(),
        pid: supervise::pid(&format!("edge-{index}")),
    })
}

fn node(place: &NodePlace) -> Node {
    let pids = ["agent", "guard"]
        .iter()
        .filter_map(|part| supervise::pid(&format!("{}-{part}", place.name)))
        .collect();
    Node {
        name: place.name.clone(),
        namespace: place.namespace.clone(),
        address: place.address.clone(),
        pids,
    }
}

fn print(summary: &Summary) {
    println!("\n  {:34} answers with", "site");
    for site in &summary.sites {
        println!("  {:34} {}", site.url, site.expect);
    }
    println!("\n  {:34} panel and API, at one name", summary.panel);
    for it in &summary.control {
        println!("  {:34} control instance, pid {}", it.url, shown(it.pid));
    }
    for it in &summary.edges {
        println!("  {:34} edge, pid {}", it.address, shown(it.pid));
    }
    for it in &summary.nodes {
        println!(
            "  {:34} {} in namespace {}",
            it.address, it.name, it.namespace
        );
    }
    println!("\n  credentials: {}", summary.credentials_file);
    println!("  provider's API token: {}", summary.token_file);
    println!("  mail that the panel sends: {}", summary.mail);
    println!("\n  {:34} seconds", "phase");
    for phase in &summary.phases {
        println!("  {:34} {:.1}", phase.name, phase.seconds);
    }
    println!("  {:34} {:.1}", "in all", summary.total_s);
}

fn shown(pid: Option<u32>) -> String {
    pid.map_or_else(|| "none yet".to_owned(), |pid| pid.to_string())
}
