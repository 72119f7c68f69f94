//! Servers: the list, one of them, a new one.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::{
    Adopt, CreateServer, MetricSubject, Node, Replica, ReplicaStanding, Server, UpdateServer,
};
use undine_model::lifecycle::ServerState;
use undine_model::{Bytes, MilliCpu};

use super::cluster::ALL;
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::operations::Which;
use super::sites::Row as SiteRow;
use super::words::{
    Chart, OperationRow, Shown, ago, bytes, charts, cores, operation, percent, server_class, size,
};
use crate::api::extract::Asked;
use crate::app::caller::Expected;
use crate::app::paging::PageWish;
use crate::app::servers::Wish;
use crate::app::sessions::Viewer;
use crate::app::sites::SiteWish;
use crate::app::{
    capacity, catalogue, nodes, operations, server_adopt, server_create, server_scrub, servers,
    sites,
};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    name: String,
    profile: String,
    state: String,
    state_class: &'static str,
    node: String,
    reason: String,
    sites: u32,
    memory: String,
}

fn row(server: &Server, names: &[Node]) -> Row {
    let node = names.iter().find(|node| Some(node.id) == server.node);
    Row {
        id: server.id.to_string(),
        name: server.name.to_string(),
        profile: server.profile.to_string(),
        state: server.state.to_string(),
        state_class: server_class(server.state),
        node: node.map(|node| node.name.to_string()).unwrap_or_default(),
        reason: server.reason.clone(),
        sites: server.sites,
        memory: size(server.memory),
    }
}

#[derive(Template)]
#[template(path = "servers.html")]
struct Servers {
    f: Frame,
    servers: Vec<Row>,
    next: String,
}

/// The list.
pub async fn list(
    State(control): State<Control>,
    viewer: Viewer,
    Asked(which): Asked<Which>,
) -> Result<Response> {
    let wish = PageWish {
        limit: None,
        cursor: which.cursor,
    };
    let all = servers::all(&control, &wish, None).await?;
    let nodes = nodes::all(&control, &ALL, None).await?.items;
    written(&Servers {
        f: Frame::new(&control, &viewer, "Servers", "/servers", 10).await?,
        servers: all.items.iter().map(|server| row(server, &nodes)).collect(),
        next: all.next.unwrap_or_default(),
    })
}

struct Choice {
    name: String,
    title: String,
    size: String,
    room: String,
}

#[derive(Template)]
#[template(path = "server_new.html")]
struct New {
    f: Frame,
    profiles: Vec<Choice>,
}

/// The form; it says how many of each would fit before anybody asks.
pub async fn form(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    let fits = capacity::capacity(&control).await?.fits;
    let choice = |profile: undine_api::public::Profile| Choice {
        size: format!(
            "{} memory, {} disk, {} processors",
            size(profile.memory),
            size(profile.disk),
            profile.vcpus
        ),
        room: match fits.get(profile.name.as_str()) {
            None | Some(0) => "No node has room for one now.".to_owned(),
            Some(n) => format!("Room for {n} more."),
        },
        name: profile.name.to_string(),
        title: profile.title,
    };
    let profiles = catalogue::profiles(&control, &ALL)
        .await?
        .items
        .into_iter()
        .map(choice)
        .collect();
    written(&New {
        f: Frame::new(&control, &viewer, "New server", "/servers", 0).await?,
        profiles,
    })
}

/// Makes one; its operation shows where it goes and why.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect> {
    let wish = CreateServer {
        name: fields.parse("name")?,
        profile: fields.parse("profile")?,
        node: fields.some("node"),
        memory: None,
        vcpus: None,
        cpu: None,
        disk: None,
        template: None,
        smtp: None,
        replicas: None,
        importance: None,
    };
    let made = server_create::create(&control, &viewer.caller, wish).await?;
    Ok(Redirect::to(&format!("/operations/{}", made.operation.id)))
}

/// A copy of the disk, drawn as what it takes up of the node it is on.
struct Copy {
    node: String,
    href: String,
    runs: bool,
    state: &'static str,
    class: &'static str,
    height: u32,
    bytes: String,
    error: String,
}

fn copy(server: &Server, replica: &Replica, nodes: &[Node]) -> Copy {
    let (state, class) = match replica.state {
        ReplicaStanding::Creating => ("being made", "busy"),
        ReplicaStanding::InSync => ("in sync", ""),
        ReplicaStanding::Syncing => ("being filled", "busy"),
        ReplicaStanding::Stale => ("lacks writes", "warn"),
        ReplicaStanding::Lost => ("gone", "bad"),
    };
    let node = nodes.iter().find(|node| node.id == replica.node);
    Copy {
        node: node.map_or_else(
            || "a node that left".to_owned(),
            |node| node.name.to_string(),
        ),
        href: format!("/nodes/{}", replica.node),
        runs: server.node == Some(replica.node),
        state,
        class,
        height: percent(replica.bytes.0 as f64, server.disk.0 as f64),
        bytes: size(replica.bytes),
        error: replica.error.clone().unwrap_or_default(),
    }
}

/// Whether as many copies as wanted have every write, in words.
fn copies_in_words(server: &Server) -> String {
    format!("{} of {} in sync", in_sync(server), server.replicas_wanted)
}

fn in_sync(server: &Server) -> usize {
    let whole = |replica: &&Replica| replica.state == ReplicaStanding::InSync;
    server.replicas.iter().filter(whole).count()
}

#[derive(Template)]
#[template(path = "server.html")]
struct Page {
    f: Frame,
    s: Row,
    error: String,
    doubt: String,
    actions: &'static [(&'static str, &'static str)],
    charts: Vec<Chart>,
    copies: Vec<Copy>,
    /// Its copies can be compared: it runs, and there are several.
    compares: bool,
    scrubbed: String,
    sites: Vec<SiteRow>,
    operations: Vec<OperationRow>,
    facts: Vec<(&'static str, String)>,
    shape: Shape,
}

/// What can be changed of it.
struct Shape {
    version: i64,
    memory_mib: u64,
    vcpus: u32,
    cpu: u32,
    replicas: u32,
    importance: u32,
}

impl Shape {
    fn of(server: &Server) -> Self {
        Self {
            version: server.version,
            memory_mib: server.memory.0 >> 20,
            vcpus: server.vcpus,
            cpu: server.cpu.0,
            replicas: server.replicas_wanted,
            importance: server.importance,
        }
    }
}

const SHOWN: &[Shown] = &[
    ("cpu", "Processors", cores),
    ("memory_bytes", "Memory", bytes),
    ("net_out_bps", "Sent a second", bytes),
    ("disk_write_bps", "Written a second", bytes),
];

/// One server.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    let server = servers::get(&control, id(&which)?).await?;
    let nodes = nodes::all(&control, &ALL, None).await?.items;
    let caller = &viewer.caller;
    let wish = SiteWish {
        server: Some(server.id),
        ..SiteWish::default()
    };
    let own = sites::all(&control, caller, &ALL, wish).await?.items;
    let last = PageWish {
        limit: Some(10),
        cursor: None,
    };
    let done = operations::all(&control, caller, &last, Some(server.id.uuid()), None)
        .await?
        .items;
    let s = row(&server, &nodes);
    written(&Page {
        f: Frame::new(&control, &viewer, server.name.as_str(), "/servers", 5).await?,
        error: server.error.clone().unwrap_or_default(),
        doubt: server.doubt.clone().unwrap_or_default(),
        actions: match server.state {
            _ if server.doubt.is_some() => &[],
            ServerState::Running => &[("restart", "Restart"), ("stop", "Stop")],
            ServerState::Stopped | ServerState::Failed => &[("start", "Start")],
            _ => &[],
        },
        charts: charts(
            &control,
            caller,
            MetricSubject::Server,
            server.id.uuid(),
            SHOWN,
        )
        .await?,
        compares: server.state == ServerState::Running && in_sync(&server) > 1,
        scrubbed: match server.scrubbed_at {
            Some(at) => format!("They were last compared {}.", ago(at)),
            None => "They were not compared yet.".to_owned(),
        },
        copies: server
            .replicas
            .iter()
            .map(|replica| copy(&server, replica, &nodes))
            .collect(),
        sites: own.into_iter().map(SiteRow::from).collect(),
        operations: done.into_iter().map(operation).collect(),
        facts: vec![
            ("Runs on", s.node.clone()),
            ("Why there", server.reason.clone()),
            ("Profile", s.profile.clone()),
            ("Memory", s.memory.clone()),
            ("Processors", server.vcpus.to_string()),
            ("Disk", size(server.disk)),
            ("Copies", copies_in_words(&server)),
            ("Importance", server.importance.to_string()),
            ("Address", format!("{}, {}", server.ipv4, server.ipv6)),
            ("Epoch", server.epoch.to_string()),
        ],
        shape: Shape::of(&server),
        s,
    })
}

/// Changes what it is made of, from its next start, which may be now.
pub async fn size_it(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let memory_mib: u64 = fields.parse("memory_mib")?;
    let wish = UpdateServer {
        memory: Some(Bytes(memory_mib.saturating_mul(1 << 20))),
        vcpus: Some(fields.parse("vcpus")?),
        cpu: Some(MilliCpu(fields.parse("cpu")?)),
        replicas: Some(fields.parse("replicas")?),
        importance: Some(fields.parse("importance")?),
        template: None,
        smtp: None,
    };
    let expected = Expected::Version(fields.parse("version")?);
    let server = servers::update(&control, &viewer.caller, id(&which)?, expected, wish).await?;
    if fields.text("now") == "on" && server.state == ServerState::Running {
        return wished(&control, &viewer, &which, Wish::Restart).await;
    }
    Ok(Redirect::to(&format!("/servers/{}", server.id)))
}

async fn wished(control: &Control, viewer: &Viewer, which: &str, wish: Wish) -> Result<Redirect> {
    let done = servers::wish(control, &viewer.caller, id(which)?, Expected::Any, wish).await?;
    Ok(Redirect::to(&match wish {
        Wish::Delete => format!("/operations/{}", done.operation.id),
        _ => format!("/servers/{}", done.server.id),
    }))
}

/// Starts it.
pub async fn start(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    wished(&control, &viewer, &which, Wish::Start).await
}

/// Stops it.
pub async fn stop(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    wished(&control, &viewer, &which, Wish::Stop).await
}

/// Stops and starts it.
pub async fn restart(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    wished(&control, &viewer, &which, Wish::Restart).await
}

/// Compares the copies of its disk; the operation shows how far that is.
pub async fn scrub(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    let caller = &viewer.caller;
    let done = server_scrub::scrub(&control, caller, id(&which)?, Expected::Any).await?;
    Ok(Redirect::to(&format!("/operations/{}", done.operation.id)))
}

/// Its record follows what its nodes know, when its name was written.
pub async fn adopt(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let without = fields.text("without");
    let names = without.split([',', ' ']).filter(|name| !name.is_empty());
    let wish = Adopt {
        confirm: fields.text("confirm").trim().to_owned(),
        without: names.map(str::to_owned).collect(),
    };
    let caller = &viewer.caller;
    let server = server_adopt::accept(&control, caller, id(&which)?, Expected::Any, wish).await?;
    Ok(Redirect::to(&format!("/servers/{}", server.id)))
}

/// Deletes it, when its name was written.
pub async fn delete(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let server = servers::get(&control, id(&which)?).await?;
    fields.confirms(server.name.as_str())?;
    wished(&control, &viewer, &which, Wish::Delete).await
}
