//! What a node must be told to start a server: its image, its disk, its network, its manifest.

use undine_api::internal::ClusterNetwork;
use undine_api::node::{
    ImageManifest, ReplicaSpec, ReplicaStatus, ReplicaTarget, ServerNetwork, StartSpec,
};
use undine_manifest::Manifest;
use undine_store::{Db, ImageFilter, InstanceFilter, Replica, ReplicaFilter, ReplicaState, Server};

use super::trouble::{Outcome, Trouble};
use super::work::Work;
use crate::control::Control;
use crate::nodes::NodeClient;

/// The image of a server, as its nodes know it.
pub(super) async fn image_of(control: &Control, server: &Server) -> Outcome<ImageManifest> {
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
pub(super) async fn sources(control: &Control) -> Outcome<Vec<String>> {
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

/// The server's replica on its node.
pub(super) async fn replica_of(control: &Control, server: &Server) -> Outcome<Replica> {
    let filter = ReplicaFilter {
        server: Some(server.id),
        node: server.node,
        ..ReplicaFilter::default()
    };
    control
        .store
        .replicas()
        .find_by(&filter)
        .await?
        .ok_or_else(|| {
            Trouble::stop(
                "the server has no replica on its node",
                "Delete it and make it again.",
            )
        })
}

/// Opens the replica, or makes it at its first time.
pub(super) async fn open_replica(
    client: &NodeClient,
    server: &Server,
    replica: &Replica,
) -> Outcome<ReplicaStatus> {
    let spec = ReplicaSpec {
        replica: replica.id,
        epoch: server.epoch,
        size: server.disk,
        create: replica.state == ReplicaState::Creating,
        // The only copy there is: what it holds is what the server has.
        accept_stale: server.replica_count <= 1,
        remote: false,
        resync: false,
        tls: false,
    };
    Ok(client.replica(server.id, &spec).await?)
}

/// Everything that the node must know to start the server.
pub(super) async fn start_spec(
    work: &Work,
    server: &Server,
    client: &NodeClient,
    manifest: Manifest,
) -> Outcome<StartSpec> {
    let control = &work.control;
    // Opened again: after a restart of its daemon the export has another name.
    let replica = replica_of(control, server).await?;
    let status = open_replica(client, server, &replica).await?;
    let export = status.export.ok_or_else(|| {
        Trouble::wait(
            "the disk's daemon is not up",
            "It is tried again by itself.",
        )
    })?;
    let cluster = &control.cluster;
    Ok(StartSpec {
        epoch: server.epoch,
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
        replicas: vec![ReplicaTarget {
            node: replica.node,
            replica: replica.id,
            export,
            address: None,
            key: None,
        }],
        slots: 1,
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
