//! Nodes: one of them, and how one more joins.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::{CreateJoinToken, JoinRole, MetricSubject, NodeUse, UpdateNode};

use super::cluster::{ALL, Tank, tank};
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::words::{Chart, Shown, ago, bytes, charts, percent, size};
use crate::app::caller::Expected;
use crate::app::sessions::Viewer;
use crate::app::{cluster, nodes, observe, servers};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

#[derive(Template)]
#[template(path = "node.html")]
struct Page {
    f: Frame,
    n: Tank,
    cordoned: bool,
    charts: Vec<Chart>,
    facts: Vec<(&'static str, String)>,
}

fn share(value: f64) -> String {
    format!("{} %", percent(value, 1.0))
}

const SHOWN: &[Shown] = &[
    ("cpu", "Processors", share),
    ("memory_bytes", "Memory", bytes),
    ("disk_bytes", "Disk", bytes),
    ("io_pressure", "Waiting for disks", share),
];

/// One node.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    let node = nodes::get(&control, id(&which)?).await?;
    let servers = servers::all(&control, &ALL, None).await?.items;
    let heats = observe::busy(&control, &servers).await?;
    let mut facts = vec![("Address", node.address.clone())];
    if let Some(it) = &node.inventory {
        facts.push(("Memory", size(it.memory)));
        facts.push(("Disk", size(it.disk)));
        facts.push(("Processor", it.cpu_model.clone()));
        facts.push(("Runs servers by", it.accelerator.clone()));
        facts.push(("Because", it.accelerator_reason.clone()));
        facts.push(("QEMU", it.qemu.clone()));
        facts.push(("Agent", it.agent.clone()));
        facts.push(("Kernel", it.kernel.clone()));
    }
    let when = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), ago);
    facts.push(("Heard of", when(node.last_report_at)));
    facts.push(("Lease renewed", when(node.lease_renewed_at)));
    written(&Page {
        f: Frame::new(&control, &viewer, node.name.as_str(), "/cluster", 5).await?,
        n: tank(&node, &servers, &heats),
        cordoned: node.state.as_str() == "cordoned",
        charts: charts(
            &control,
            &viewer.caller,
            MetricSubject::Node,
            node.id.uuid(),
            SHOWN,
        )
        .await?,
        facts,
    })
}

/// Takes it out of use for new servers, or back into it.
pub async fn use_it(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let state = match fields.text("state") {
        "ready" => NodeUse::Ready,
        "cordoned" => NodeUse::Cordoned,
        _ => {
            return Err(Refusal::invalid(
                "state",
                "A node is `ready` or `cordoned`.",
            ));
        }
    };
    nodes::update(
        &control,
        &viewer.caller,
        id(&which)?,
        Expected::Any,
        UpdateNode { state },
    )
    .await?;
    Ok(Redirect::to(&format!("/nodes/{}", id::<()>(&which)?)))
}

#[derive(Template)]
#[template(path = "join.html")]
struct Join {
    f: Frame,
    token: String,
    nodes: Vec<Tank>,
}

async fn join_page(control: &Control, viewer: &Viewer, token: String) -> Result<Response> {
    let nodes = nodes::all(control, &ALL, None).await?.items;
    written(&Join {
        f: Frame::new(control, viewer, "Add a node", "/cluster", 2).await?,
        token,
        nodes: nodes
            .iter()
            .map(|node| tank(node, &[], &Default::default()))
            .collect(),
    })
}

/// How a node joins, and which have.
pub async fn join(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    join_page(&control, &viewer, String::new()).await
}

/// Makes a token and shows it, once.
pub async fn token(State(control): State<Control>, viewer: Viewer, _: Fields) -> Result<Response> {
    let wish = CreateJoinToken {
        role: JoinRole::Node,
        name: None,
        ttl_s: None,
    };
    let made = cluster::create_join_token(&control, &viewer.caller, wish).await?;
    join_page(&control, &viewer, made.token).await
}
