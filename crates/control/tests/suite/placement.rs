//! Where servers go: chosen by the placement library over the records, with its reasons.

use serde_json::json;
use undine_control::placement::Records;
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, NodeId};
use undine_store::{Db, NodeFilter, ReplicaFilter, ReplicaState, ServerFilter};

use crate::world::World;

/// Three nodes with a server on each of the first two, as recorded.
async fn records(world: &World) -> Records {
    let store = &world.instances[0].control.store;
    Records {
        nodes: store.nodes().all(&NodeFilter::default()).await.unwrap(),
        servers: store.servers().all(&ServerFilter::default()).await.unwrap(),
        replicas: store
            .replicas()
            .all(&ReplicaFilter::default())
            .await
            .unwrap(),
        loads: Default::default(),
        cpu_overcommit: 4,
    }
}

fn name(records: &Records, id: NodeId) -> String {
    let node = records.nodes.iter().find(|node| node.id == id).unwrap();
    node.name.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_gets_its_nodes_and_the_reason_is_kept() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2", "node-3"] {
        nodes.push(world.node(name, Bytes::gib(8)).await);
    }
    let mut owners = std::collections::BTreeSet::new();
    for name in ["web-1", "web-2", "web-3"] {
        let id = world.server(name, "static").await;
        let server = world.get(&format!("/v1/servers/{id}")).await.expect(200);
        assert!(
            server.text("/reason").contains("no other static there"),
            "{server:?}"
        );
        owners.insert(server.text("/node"));
    }
    assert_eq!(owners.len(), 3, "servers of a kind spread");

    // The same records, asked for more copies than racks allow, or fewer.
    let mut records = records(&world).await;
    let mut wish = records.servers[0].clone();
    wish.name = "web-9".parse().unwrap();
    wish.replica_count = 2;
    for (node, rack) in records.nodes.iter_mut().zip(["a", "a", "b"]) {
        node.rack = Some(rack.parse().unwrap());
    }
    let places = records.place(&wish, None).unwrap();
    let rack = |id| {
        let node = records.nodes.iter().find(|node| node.id == id).unwrap();
        node.rack.clone()
    };
    assert_eq!(places.others.len(), 1);
    assert_ne!(rack(places.owner), rack(places.others[0]));
    assert!(places.reason.contains("in other racks"), "{places:?}");
    wish.replica_count = 3;
    let error = records.place(&wish, None).unwrap_err();
    assert!(error.contains("the rack of another copy"), "{error}");
    let only = records.nodes[1].name.clone();
    wish.replica_count = 2;
    let places = records.place(&wish, Some(&only)).unwrap();
    assert_eq!(name(&records, places.owner), only.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_servers_go_to_copies_in_sync_and_spread() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2", "node-3", "node-4"] {
        nodes.push(world.node(name, Bytes::gib(8)).await);
    }
    for name in ["web-1", "web-2", "web-3"] {
        world.server(name, "static").await;
    }
    let mut records = records(&world).await;
    let node = |records: &Records, k: usize| records.nodes[k].id;
    let (lost, good, late, other) = (
        node(&records, 0),
        node(&records, 1),
        node(&records, 2),
        node(&records, 3),
    );
    // All three on the node that is lost; copies in sync on two others, a late one on the third.
    let model = records.replicas[0].clone();
    records.replicas.clear();
    for (k, server) in records.servers.iter_mut().enumerate() {
        server.node = Some(lost);
        let copies = [
            (lost, ReplicaState::InSync),
            (late, ReplicaState::Stale),
            (good, ReplicaState::InSync),
            (other, ReplicaState::InSync),
        ];
        // The last server has nothing but its lost disk and a late copy.
        let count = if k == 2 { 2 } else { 4 };
        for (node, state) in copies.into_iter().take(count) {
            let mut copy = model.clone();
            (copy.server, copy.node, copy.state) = (server.id, node, state);
            records.replicas.push(copy);
        }
    }
    records.nodes[0].state = NodeState::Silent;
    let refuges = records.refuges(&[lost]).unwrap();
    let of = |k: usize| {
        let id = records.servers[k].id;
        refuges.iter().find(|refuge| refuge.server == id).unwrap()
    };
    let mut found = [of(0).node.unwrap(), of(1).node.unwrap()];
    found.sort();
    let mut wanted = [good, other];
    wanted.sort();
    assert_eq!(found, wanted, "{refuges:?}");
    assert!(of(0).local_copy && of(1).local_copy);
    assert_eq!(of(2).node, None, "a late copy is no disk");
    assert!(of(2).reason.contains("waits for a replica"), "{refuges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_if_tells_and_changes_nothing() {
    let world = World::new().await;
    let _one = world.node("node-1", Bytes::gib(2)).await;
    let _two = world.node("node-2", Bytes::gib(2)).await;
    let id = world.server("web-1", "web-php").await;
    let before = world.get(&format!("/v1/servers/{id}")).await.expect(200);
    let full = world.get("/v1/capacity").await.expect(200);
    let fits = full.body["fits"]["web-php"].as_u64().unwrap();
    assert!(!full.text("/outlook/0/stopped_by").is_empty(), "{full:?}");
    // The capacity stays below the high-water mark as well.
    let steps = |told: &crate::world::Reply| told.body["steps"].as_array().unwrap().len() as u64;
    let wish = json!({"add_servers": {"web-php": 50}});
    let told = world.post("/v1/capacity/what-if", wish).await.expect(200);
    let fitted = steps(&told);
    assert!((fits..50).contains(&fitted), "{told:?}");
    let reason = told.text("/not_possible/0/reason");
    assert!(
        reason.contains("the spare room for a lost node"),
        "{told:?}"
    );
    let wish = json!({"add_nodes": {"node-1": 1}, "add_servers": {"web-php": 50}});
    let told = world.post("/v1/capacity/what-if", wish).await.expect(200);
    assert!(steps(&told) > fitted, "{told:?}");
    let lost = before.text("/node");
    let told = world
        .post("/v1/capacity/what-if", json!({"lose": [lost]}))
        .await
        .expect(200);
    assert_eq!(told.text("/steps/0/action"), "restart", "{told:?}");
    assert_eq!(told.text("/steps/0/server"), "web-1");
    assert_eq!(
        world.get(&format!("/v1/servers/{id}")).await.body,
        before.body
    );

    for (wish, field) in [
        (json!({}), "lose"),
        (json!({"lose": ["nowhere"]}), "lose"),
        (json!({"drain": ["nowhere"]}), "drain"),
        (json!({"add_nodes": {"nowhere": 1}}), "add_nodes"),
        (json!({"add_servers": {"none": 1}}), "add_servers"),
        (json!({"add_servers": {"static": 0}}), "add_servers"),
        (json!({"add_servers": {"static": 1_000_000}}), "add_servers"),
        (json!({"load_percent": 0}), "load_percent"),
        (json!({"rebalance": true, "replicas": 0}), "replicas"),
    ] {
        let refused = world.post("/v1/capacity/what-if", wish.clone()).await;
        assert_eq!(
            (refused.status, refused.text("/field").as_str()),
            (422, field),
            "{wish}"
        );
    }
}
