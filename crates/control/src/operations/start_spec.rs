//! What a node must be told to start a server: its image, its disk, its network, its manifest.

use undine_api::internal::ClusterNetwork;
use undine_api::node::{
    ImageManifest, ReplicaSpec, ReplicaStatus, ReplicaTarget, ServerNetwork, StartSpec,
};
use undine_manifest::Manifest;
use undine_store::{Db, ImageFilter, InstanceFilter, Node, Replica, ReplicaState, Server};

use super::trouble::{Outcome, Trouble};
use super::work::Work;
use crate::control::Control;
use crate::copies::{self, is_live};
use crate::nodes::NodeClient;
use crate::policy::Policy;

/// The image of a server, as its nodes know it.
pub(crate) async fn image_of(control: &Control, server: &Server) -> Outcome<ImageManifest> {
    let gone =
        |detail: &str| Trouble::stop(detail, "Import the image with `undine-control import`.");
    let filter = ImageFilter {
        hash: server.image_hash.clone(),
        ..ImageFilter::default()
    };
    let image = match &server.image_hash {
        Some(_) => control.store.images().find_by(&filter).await?,
        None => None,
    };
    let image = image.ok_or_else(|| gone("the server's image is not in the store"))?;
    serde_json::from_value(image.manifest).map_err(|error| gone(&error.to_string()))
}

/// Where nodes fetch images from: every instance; one that lacks a file gets it from the others.
pub(crate) async fn sources(control: &Control) -> Outcome<Vec<String>> {
    let instances = control
        .store
        .instances()
        .all(&InstanceFilter::default())
        .await?;
    Ok(instances
        .iter()
        .map(|instance| format!("https://{}/internal/v1/blobs", instance.internal_url))
        .collect())
}

/// The node that holds a copy, if it can be asked now.
pub(super) async fn replica_client(
    control: &Control,
    copy: &Replica,
) -> Outcome<(Node, NodeClient)> {
    let node = control.store.nodes().find(copy.node).await?;
    let node = node.ok_or_else(|| {
        Trouble::stop(
            "a copy's node was removed",
            "Delete the server and make it again.",
        )
    })?;
    if !is_live(node.state) {
        return Err(Trouble::wait(
            format!("waiting for a replica: {} is {}", node.name, node.state),
            "It goes on when the node is back.",
        ));
    }
    let client = control.nodes.of(&node)?;
    Ok((node, client))
}

/// Opens the replica under the server's epoch, or makes it at its first time. `last`: it is the
/// only copy that counts, so what it holds is what the server has.
pub(super) async fn open_replica(
    control: &Control,
    client: &NodeClient,
    server: &Server,
    replica: &Replica,
    last: bool,
) -> Outcome<ReplicaStatus> {
    let policy = Policy::of(&control.store).await?;
    let spec = ReplicaSpec {
        replica: replica.id,
        epoch: server.epoch,
        size: server.disk,
        create: replica.state == ReplicaState::Creating,
        accept_stale: last,
        remote: server.node != Some(replica.node),
        resync: false,
        tls: policy.tls,
        committed: Some(copies::committed(&control.store, server).await?),
    };
    Ok(client.replica(server.id, &spec).await?)
}

/// The copies in sync, opened: the owner's first.
async fn targets(control: &Control, server: &Server) -> Outcome<Vec<ReplicaTarget>> {
    let copies = copies::of(&control.store, server.id).await?;
    let members = copies::in_sync(&copies, server.node);
    let last = members.len() <= 1;
    let mut targets = Vec::new();
    for copy in members {
        let (node, client) = replica_client(control, copy).await?;
        // Opened again: after a restart of its daemon the export has another name.
        let status = open_replica(control, &client, server, copy, last).await?;
        targets.push(target(server, copy, status).ok_or_else(|| {
            Trouble::wait(
                format!("the disk's daemon on {} is not up", node.name),
                "It is tried again by itself.",
            )
        })?);
    }
    if targets.is_empty() {
        return Err(Trouble::stop(
            "no copy of the server's disk is in sync",
            "Accept the loss of the newest writes with `undine server accept-loss`.",
        ));
    }
    Ok(targets)
}

/// How the owner reaches an open copy; none when it is not open.
pub(super) fn target(
    server: &Server,
    copy: &Replica,
    status: ReplicaStatus,
) -> Option<ReplicaTarget> {
    let own = server.node == Some(copy.node);
    Some(ReplicaTarget {
        node: copy.node,
        replica: copy.id,
        export: status.export?,
        address: status.address.filter(|_| !own),
        key: status.key.filter(|_| !own),
    })
}

/// Everything that the node must know to start the server.
pub(super) async fn start_spec(
    work: &Work,
    server: &Server,
    manifest: Manifest,
) -> Outcome<StartSpec> {
    let control = &work.control;
    let replicas = targets(control, server).await?;
    let cluster = &control.cluster;
    Ok(StartSpec {
        epoch: server.epoch,
        version: server.version.unsigned_abs(),
        name: server.name.to_string(),
        image: image_of(control, server).await?,
        memory: server.memory,
        vcpus: server.vcpus,
        cpu: server.cpu,
        machine: server
            .machine
            .clone()
            .unwrap_or_else(|| cluster.machine.clone()),
        cpu_model: server
            .cpu_model
            .clone()
            .unwrap_or_else(|| cluster.cpu_model.clone()),
        template: server.template,
        network: network_of(&cluster.network, server)?,
        machine_id: server.machine_id.clone(),
        replicas,
        slots: server.slots,
        blank: server.blank,
        manifest,
    })
}

fn network_of(network: &ClusterNetwork, server: &Server) -> Outcome<ServerNetwork> {
    let bad = |_| {
        Trouble::stop(
            "the cluster's networks are damaged",
            "Look at the setting `cluster`.",
        )
    };
    let ipv4: ipnet::Ipv4Net = network.servers_ipv4.parse().map_err(bad)?;
    let ipv6: ipnet::Ipv6Net = network.servers_ipv6.parse().map_err(bad)?;
    let epoch = undine_model::epoch_address(server.ipv6, server.epoch)
        .map_err(|error| Trouble::stop(error.to_string(), "Edges could not reach the server."))?;
    Ok(ServerNetwork {
        mac: server.mac.clone(),
        ipv4: server.ipv4,
        ipv4_prefix: ipv4.prefix_len(),
        ipv6: server.ipv6,
        ipv6_prefix: ipv6.prefix_len(),
        ipv6_epoch: Some(epoch),
        gateways: network.gateways.clone(),
        resolvers: network.gateways.clone(),
        smtp: server.smtp,
    })
}
