//! The provider's first page: the nodes as tanks, what is wrong, what happened.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use undine_api::public::{Instance, Node, Server};
use undine_model::lifecycle::ServerState;

use super::frame::{Frame, page as written};
use super::words::{OperationRow, node_class, operation, percent, server_class, size};
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::app::{cluster, nodes, observe, operations, servers};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// A server within a tank.
pub struct Block {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory: String,
    /// Share of the node's memory, in percent.
    pub height: u32,
    /// How hard its processors work, 0 to 10.
    pub heat: u32,
    /// How it is drawn.
    pub class: &'static str,
    /// All of it in a sentence.
    pub title: String,
    /// Its state.
    pub state: String,
    /// The state's shape.
    pub state_class: &'static str,
}

/// A node as a tank.
pub struct Tank {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// The state's shape.
    pub class: &'static str,
    /// Memory promised to servers, in percent.
    pub filled: u32,
    /// Processors in use, in percent.
    pub cpu: u32,
    /// Memory in use, in percent.
    pub memory: u32,
    /// Disk in use, in percent.
    pub disk: u32,
    /// Its servers.
    pub servers: Vec<Block>,
}

/// How busy a server's processors are, by its id; measured in the last minute.
pub type Heats = BTreeMap<String, f64>;

/// A node with the servers on it.
pub fn tank(node: &Node, all: &[Server], heats: &Heats) -> Tank {
    let inventory = node.inventory.as_ref();
    let memory = inventory.map_or(0.0, |it| it.memory.0 as f64);
    let disk = inventory.map_or(0.0, |it| it.disk.0 as f64);
    let usage = node.usage.as_ref();
    let own = all.iter().filter(|server| server.node == Some(node.id));
    Tank {
        id: node.id.to_string(),
        name: node.name.to_string(),
        state: node.state.to_string(),
        class: node_class(node.state),
        filled: percent(node.committed.memory.0 as f64, memory),
        cpu: usage.map_or(0, |it| percent(it.cpu, 1.0)),
        memory: usage.map_or(0, |it| percent(it.memory.0 as f64, memory)),
        disk: usage.map_or(0, |it| percent(it.disk.0 as f64, disk)),
        servers: own.map(|server| block(server, memory, heats)).collect(),
    }
}

fn block(server: &Server, memory: f64, heats: &Heats) -> Block {
    let heat = heats
        .get(&server.id.to_string())
        .copied()
        .unwrap_or_default();
    let busy = percent(heat, f64::from(server.vcpus));
    let class = match server.state {
        ServerState::Running => "",
        ServerState::Failed => "hurt",
        ServerState::Stopped => "down",
        _ => "moving",
    };
    Block {
        id: server.id.to_string(),
        name: server.name.to_string(),
        memory: size(server.memory),
        height: percent(server.memory.0 as f64, memory),
        heat: busy.div_ceil(10),
        class,
        title: format!(
            "{}, {}: {}, {}, processors {busy} % busy",
            server.name,
            server.profile,
            server.state,
            size(server.memory)
        ),
        state: server.state.to_string(),
        state_class: server_class(server.state),
    }
}

struct Sentence {
    class: &'static str,
    text: String,
    href: String,
    link: &'static str,
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct Cluster {
    f: Frame,
    summary: String,
    sentences: Vec<Sentence>,
    nodes: Vec<Tank>,
    happened: Vec<OperationRow>,
    instances: Vec<Instance>,
}

/// The largest page of a list.
pub const ALL: PageWish = PageWish {
    limit: Some(500),
    cursor: None,
};
/// A node is not heard of when it has been silent for longer.
const SILENT_MS: i64 = 30_000;
const LAST: PageWish = PageWish {
    limit: Some(8),
    cursor: None,
};

/// The page.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    let nodes = nodes::all(&control, &ALL, None).await?.items;
    let servers = servers::all(&control, &ALL, None).await?.items;
    let heats = observe::busy(&control, &servers).await?;
    let happened = operations::all(&control, &viewer.caller, &LAST, None, None)
        .await?
        .items;
    let instances = cluster::instances(&control, &ALL).await?.items;
    let tanks: Vec<Tank> = nodes
        .iter()
        .map(|node| tank(node, &servers, &heats))
        .collect();
    let sites: u32 = servers.iter().map(|server| server.sites).sum();
    written(&Cluster {
        f: Frame::new(&control, &viewer, "Cluster", "/cluster", 5).await?,
        summary: format!(
            "{}, {}, {}",
            count(nodes.len(), "node"),
            count(servers.len(), "server"),
            count(sites as usize, "site")
        ),
        sentences: sentences(&nodes, &tanks, &servers, &instances),
        nodes: tanks,
        happened: happened.into_iter().map(operation).collect(),
        instances,
    })
}

fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// What is wrong and what to do, before any number; one sentence when nothing is.
fn sentences(
    nodes: &[Node],
    tanks: &[Tank],
    servers: &[Server],
    instances: &[Instance],
) -> Vec<Sentence> {
    let mut all = Vec::new();
    let now = now_ms();
    for node in nodes {
        let silent = now - node.last_report_at.unwrap_or(node.created_at);
        if silent > SILENT_MS {
            let text = format!(
                "{} has not been heard of for {} s. Look whether the machine and its network are up; its servers are where they were.",
                node.name,
                silent / 1_000
            );
            all.push(Sentence {
                class: "bad",
                text,
                href: format!("/nodes/{}", node.id),
                link: "The node",
            });
        }
    }
    for server in servers
        .iter()
        .filter(|server| server.state == ServerState::Failed)
    {
        let why = server.error.as_deref().unwrap_or("it does not say why");
        let text = format!(
            "The server {} failed: {why}. Its {} do not answer. Start it again from its page.",
            server.name,
            count(server.sites as usize, "site")
        );
        all.push(Sentence {
            class: "bad",
            text,
            href: format!("/servers/{}", server.id),
            link: "The server",
        });
    }
    for tank in tanks.iter().filter(|tank| tank.memory.max(tank.cpu) > 80) {
        let (what, share) = if tank.memory >= tank.cpu {
            ("memory", tank.memory)
        } else {
            ("processors", tank.cpu)
        };
        let text = format!(
            "{} uses {share} % of its {what}, above the mark of 80 %. Let it take no new servers, or add a node.",
            tank.name
        );
        all.push(Sentence {
            class: "warn",
            text,
            href: format!("/nodes/{}", tank.id),
            link: "The node",
        });
    }
    for instance in instances.iter().filter(|instance| !instance.alive) {
        let text = format!(
            "The panel's instance {} is silent; the others serve in its place.",
            instance.name
        );
        all.push(Sentence {
            class: "warn",
            text,
            href: String::new(),
            link: "",
        });
    }
    if all.is_empty() && !nodes.is_empty() {
        let text =
            "Nothing is wrong: every node reports, every server that should run does.".to_owned();
        let stopped = servers.iter().any(|s| {
            s.wanted == undine_api::public::WantedState::Running && s.state != ServerState::Running
        });
        let text = if stopped {
            "Every node reports; a server is on its way up.".to_owned()
        } else {
            text
        };
        all.push(Sentence {
            class: "",
            text,
            href: String::new(),
            link: "",
        });
    }
    all
}
