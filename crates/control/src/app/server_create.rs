//! Making a server: its shape from the profile, its node, its addresses, then the operation.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::json;
use undine_api::node::{ImageManifest, Inventory};
use undine_api::public::{CreateServer, Resources, ServerOperation};
use undine_manifest::Profile;
use undine_model::lifecycle::{NodeState, ServerState};
use undine_model::{Bytes, MilliCpu, NodeId, Slug};
use undine_store::{
    Db, ImageFilter, Node, NodeFilter, PageRequest, ProfileFilter, Replica, ReplicaState, Server,
    ServerFilter, Tx, Wanted,
};

use super::caller::Caller;
use super::servers::show;
use super::{nodes, operations};
use crate::clock::{new_id, now_ms};
use crate::control::{Cluster, Control};
use crate::operations::{NewOperation, start, wake};
use crate::placement::{Candidate, OVERHEAD, Places, choose};
use crate::refusal::{Refusal, Result};

/// What a server takes of its node.
pub fn needs(server: &Server) -> Resources {
    Resources {
        cpu: server.cpu,
        memory: Bytes(server.memory.0 + OVERHEAD.0),
        disk: server.disk,
    }
}

/// Sizes that make sense.
pub fn check_shape(memory: Bytes, vcpus: u32, cpu: MilliCpu, disk: Bytes) -> Result<()> {
    if !(Bytes::mib(128)..=Bytes::gib(4096)).contains(&memory) || !memory.0.is_multiple_of(1 << 20)
    {
        return Err(Refusal::invalid(
            "memory",
            "A server has 128 MiB to 4 TiB of memory, in whole MiB.",
        ));
    }
    if !(1..=256).contains(&vcpus) {
        return Err(Refusal::invalid(
            "vcpus",
            "A server has 1 to 256 virtual CPUs.",
        ));
    }
    if !(50..=vcpus * 1000).contains(&cpu.0) {
        return Err(Refusal::invalid(
            "cpu",
            format!("A server with {vcpus} virtual CPUs may use 50m to {vcpus} CPUs."),
        ));
    }
    if !(Bytes::mib(256)..=Bytes::gib(65_536)).contains(&disk) || !disk.0.is_multiple_of(1 << 20) {
        return Err(Refusal::invalid(
            "disk",
            "A server's disk has 256 MiB to 64 TiB, in whole MiB.",
        ));
    }
    Ok(())
}

/// Makes a server and the operation that brings it up.
pub async fn create(
    control: &Control,
    caller: &Caller,
    wish: CreateServer,
) -> Result<ServerOperation> {
    let profile = profile(control, &wish.profile).await?;
    let image = image(control, &profile).await?;
    let memory = wish.memory.unwrap_or(profile.memory);
    let vcpus = wish.vcpus.unwrap_or(profile.vcpus);
    let cpu = wish.cpu.unwrap_or(profile.cpu);
    let disk = wish.disk.unwrap_or(profile.disk);
    check_shape(memory, vcpus, cpu, disk)?;
    let replica_count = replica_count(control, wish.replicas).await?;
    let importance = check_importance(wish.importance.unwrap_or(MIDDLING))?;
    let node = match &wish.node {
        Some(text) => Some(nodes::named(control, text).await?),
        None => None,
    };
    let index = control.store.counters().next_server_index().await?;
    let (ipv4, ipv6, mac) = addresses(&control.cluster, index)?;
    let now = now_ms();
    let mut server = Server {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        name: wish.name,
        profile: wish.profile,
        image_hash: Some(image.hash),
        node: None,
        state: ServerState::Starting,
        wanted: Wanted::Running,
        epoch: 1,
        memory,
        vcpus,
        cpu,
        disk,
        replica_count,
        slots: replica_count,
        importance,
        blank: true,
        template: wish.template.unwrap_or(true),
        smtp: wish.smtp.unwrap_or(false),
        mac,
        ipv4,
        ipv6,
        machine_id: hex::encode(rand::random::<[u8; 16]>()),
        machine: Some(control.cluster.machine.clone()),
        cpu_model: Some(control.cluster.cpu_model.clone()),
        operation: None,
        error: None,
        reason: String::new(),
        scrubbed_at: None,
        manifest_version: 1,
        manifest_applied: 0,
    };
    let tx = control.store.begin().await?;
    if let Some(taken) = tx
        .servers()
        .find_by(&ServerFilter {
            name: Some(server.name.clone()),
            ..ServerFilter::default()
        })
        .await?
    {
        return Err(Refusal::conflict(
            "taken",
            "The name is taken",
            format!("A server whose name is `{}` exists already.", taken.name),
        )
        .field("name")
        .remedy("Choose another one."));
    }
    // Held from here on: it cannot go while a server is made from it.
    if super::catalogue::hold_profile(&tx, &server.profile)
        .await?
        .is_none()
    {
        return Err(no_profile(&server.profile));
    }
    let places = place(control, &tx, &server, node.as_ref()).await?;
    server.node = Some(places.owner);
    server.reason = places.reason;
    tx.servers().insert(&server).await?;
    for node in std::iter::once(places.owner).chain(places.others) {
        tx.replicas().insert(&replica(&server, node)).await?;
    }
    tx.manifests().changed(server.id, &[]).await?;
    let operation = start(
        &tx,
        NewOperation {
            kind: "server.create",
            subjects: vec![server.id.uuid()],
            account: None,
            params: json!({"server": server.id}),
            reason: format!("asked for by {}", caller.who()),
        },
    )
    .await?;
    let mut server = tx.servers().get(server.id).await?;
    server.operation = Some(operation.id);
    let server = tx.servers().update(&server, now).await?;
    let data = json!({"name": server.name, "node": server.node, "reason": server.reason});
    caller
        .did(
            &tx,
            "server.create",
            format!("server/{}", server.id),
            None,
            data,
        )
        .await?;
    let shown = ServerOperation {
        server: show(&tx, server).await?,
        operation: operations::show(&tx, operation).await?,
    };
    tx.commit().await?;
    wake(control);
    Ok(shown)
}

async fn profile(control: &Control, name: &Slug) -> Result<Profile> {
    let filter = ProfileFilter {
        name: Some(name.clone()),
    };
    let kept = control
        .store
        .profiles()
        .find_by(&filter)
        .await?
        .ok_or_else(|| no_profile(name))?;
    serde_json::from_value(kept.definition).map_err(|error| Refusal::internal(&error))
}

fn no_profile(name: &Slug) -> Refusal {
    Refusal::invalid("profile", format!("There is no profile `{name}`."))
        .remedy("List the profiles, or import one with `undine-control import`.")
}

/// The newest image of the name that the profile asks for.
async fn image(control: &Control, profile: &Profile) -> Result<ImageManifest> {
    let filter = ImageFilter {
        name: Some(profile.image.to_string()),
        ..ImageFilter::default()
    };
    let newest = control
        .store
        .images()
        .list(&filter, PageRequest::newest(1))
        .await?;
    let image = newest.items.into_iter().next().ok_or_else(|| {
        Refusal::conflict(
            "no-image",
            "The image is not there",
            format!(
                "The profile {} runs the image {}, which was never imported.",
                profile.name, profile.image
            ),
        )
        .remedy("Import it with `undine-control import --image DIR`.")
    })?;
    serde_json::from_value(image.manifest).map_err(|error| Refusal::internal(&error))
}

/// The first server gets the 257th address, so that the network's first 256 stay for routers,
/// edges and whatever else the provider puts there.
const FIRST_HOST: u64 = 257;

fn addresses(cluster: &Cluster, index: u64) -> Result<(Ipv4Addr, Ipv6Addr, String)> {
    let damaged = |error: ipnet::AddrParseError| Refusal::internal(&error);
    let ipv4: ipnet::Ipv4Net = cluster.network.servers_ipv4.parse().map_err(damaged)?;
    let ipv6: ipnet::Ipv6Net = cluster.network.servers_ipv6.parse().map_err(damaged)?;
    let host = FIRST_HOST + index;
    let last = u64::from(u32::from(ipv4.broadcast()) - u32::from(ipv4.network()));
    if host >= last {
        return Err(Refusal::conflict(
            "addresses-used-up",
            "No address is left",
            format!("The server network {ipv4} has no address left for another server."),
        ));
    }
    let v4 = Ipv4Addr::from(u32::from(ipv4.network()) + host as u32);
    let v6 = Ipv6Addr::from(u128::from(ipv6.network()) + u128::from(host));
    let mac = format!(
        "02:75:6e:{:02x}:{:02x}:{:02x}",
        host >> 16 & 255,
        host >> 8 & 255,
        host & 255
    );
    Ok((v4, v6, mac))
}

const MIDDLING: u32 = 5;

/// How many copies a new server has.
pub async fn replica_count(control: &Control, wish: Option<u32>) -> Result<u32> {
    match wish {
        Some(count) => check_replicas(count),
        None => {
            let filter = NodeFilter {
                state: Some(NodeState::Ready),
                ..NodeFilter::default()
            };
            let ready = control.store.nodes().count(&filter).await?;
            Ok(if ready >= 2 { 2 } else { 1 })
        }
    }
}

/// As many copies as there may be.
pub fn check_replicas(count: u32) -> Result<u32> {
    if (1..=3).contains(&count) {
        return Ok(count);
    }
    Err(Refusal::invalid(
        "replicas",
        "A server's disk has 1 to 3 copies, on as many nodes.",
    )
    .remedy("Choose 2, unless you know why not."))
}

/// An importance that is one.
pub fn check_importance(importance: u32) -> Result<u32> {
    if importance <= 9 {
        return Ok(importance);
    }
    Err(Refusal::invalid(
        "importance",
        "A server's importance is 0 to 9; 9 comes up first.",
    ))
}

/// A new copy of a server's disk.
pub fn replica(server: &Server, node: NodeId) -> Replica {
    Replica {
        id: new_id(),
        version: 1,
        created_at: server.created_at,
        updated_at: server.created_at,
        server: server.id,
        node,
        epoch: server.epoch,
        state: ReplicaState::Creating,
        bytes: Bytes(0),
        left_epoch: None,
        left_at: None,
        error: None,
    }
}

/// Chooses the nodes, holding them so that no other instance promises the same room.
async fn place(control: &Control, tx: &Tx, server: &Server, only: Option<&Node>) -> Result<Places> {
    let ready = NodeFilter {
        state: Some(NodeState::Ready),
        ..NodeFilter::default()
    };
    for node in tx.nodes().all(&ready).await? {
        tx.nodes().lock(node.id).await?;
    }
    let records = super::what_if::records(control, tx).await?;
    let only = only.map(|node| &node.name);
    records.place(server, only).map_err(|lacks| {
        let one = Server {
            replica_count: 1,
            ..server.clone()
        };
        if server.replica_count > 1 && records.place(&one, only).is_ok() {
            let copies = server.replica_count;
            return no_room(&format!(
                "{copies} copies were asked for, but there is no place for all: {lacks}"
            ))
            .field("replicas")
            .remedy("Ask for fewer replicas, add a node, or free disk space.");
        }
        no_room(&lacks)
    })
}

/// The nodes that hold no copy yet and stand in no rack that holds one.
pub fn apart(nodes: &[Node], candidates: &[Candidate], taken: &[NodeId]) -> Vec<Candidate> {
    let racks: Vec<_> = nodes
        .iter()
        .filter(|node| taken.contains(&node.id))
        .filter_map(|node| node.rack.as_ref())
        .collect();
    let may = |id: NodeId| {
        let rack = nodes.iter().find(|node| node.id == id);
        let rack = rack.and_then(|node| node.rack.as_ref());
        !taken.contains(&id) && rack.is_none_or(|rack| !racks.contains(&rack))
    };
    candidates.iter().filter(|it| may(it.id)).cloned().collect()
}

/// What a copy takes of its node.
pub fn copy_needs(server: &Server) -> Resources {
    Resources {
        disk: server.disk,
        ..Resources::default()
    }
}

fn no_room(lacks: &str) -> Refusal {
    Refusal::conflict(
        "no-room",
        "No node has room for the server",
        format!("{}.", crate::refusal::capital(lacks).trim_end_matches('.')),
    )
    .remedy("Add a node, choose a smaller server, or delete one that is not needed.")
}

/// A node as the placement sees it; none when it never said what it is made of.
pub async fn candidate(
    cluster: &Cluster,
    db: &impl Db,
    node: &Node,
    profile: &Slug,
) -> Result<Option<Candidate>> {
    let Ok(inventory) = serde_json::from_value::<Inventory>(node.inventory.clone()) else {
        return Ok(None);
    };
    let servers = db
        .servers()
        .all(&ServerFilter {
            node: Some(node.id),
            ..ServerFilter::default()
        })
        .await?;
    let mut committed = Resources::default();
    for server in &servers {
        let needs = needs(server);
        committed.cpu.0 += needs.cpu.0;
        committed.memory.0 += needs.memory.0;
    }
    committed.disk = db.replicas().promised(node.id).await?;
    Ok(Some(Candidate {
        id: node.id,
        name: node.name.clone(),
        total: Resources {
            cpu: MilliCpu(inventory.cpu.0.saturating_mul(cluster.cpu_overcommit)),
            memory: inventory.memory,
            disk: inventory.disk,
        },
        committed,
        alike: servers
            .iter()
            .filter(|server| server.profile == *profile)
            .count() as u32,
    }))
}

/// The node has room for that much more.
pub async fn fits(control: &Control, tx: &Tx, node: NodeId, more: &Resources) -> Result<()> {
    let node = tx.nodes().lock(node).await?;
    let Some(candidate) = candidate(&control.cluster, tx, &node, &node.name).await? else {
        return Ok(());
    };
    choose(&[candidate], more).map(drop).map_err(|lacks| {
        Refusal::conflict(
            "no-room",
            "The node has no room for that",
            crate::refusal::capital(&lacks),
        )
        .remedy("Choose less, or make a server on another node.")
    })
}
