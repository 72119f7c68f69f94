//! Nodes die: their servers come up elsewhere, once, with the copy that has every write.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use undine_model::{Bytes, NodeId, ServerId};
use undine_testkit::node::FakeNode;

use crate::world::World;

/// Three nodes whose guards renew with every instance.
pub struct Three {
    pub world: World,
    pub nodes: Vec<FakeNode>,
}

impl Three {
    pub async fn new() -> Self {
        Self::on(World::new().await).await
    }

    pub async fn on(world: World) -> Self {
        let mut nodes = Vec::new();
        for name in ["node-1", "node-2", "node-3"] {
            nodes.push(world.node(name, Bytes::gib(8)).await);
        }
        let three = Self { world, nodes };
        for node in &three.nodes {
            node.renew(&three.instances()).unwrap();
        }
        three
    }

    pub fn instances(&self) -> Vec<std::net::SocketAddr> {
        self.world.instances.iter().map(|it| it.internal).collect()
    }

    pub fn index(&self, node: &str) -> usize {
        let id: NodeId = node.parse().unwrap();
        self.nodes.iter().position(|it| it.id == id).unwrap()
    }

    /// Where a server is, as an index.
    pub async fn owner(&self, server: &str) -> usize {
        self.index(&self.shown(server).await.text_of("node"))
    }

    pub async fn shown(&self, server: &str) -> Shown {
        let path = format!("/v1/servers/{server}");
        Shown(self.world.get(&path).await.expect(200).body)
    }

    /// The node dies, and every witness sees it.
    pub fn kill(&self, index: usize) {
        self.nodes[index].die();
        self.unseen(index);
    }

    /// No witness reaches the node.
    pub fn unseen(&self, index: usize) {
        let id = self.nodes[index].id;
        for node in &self.nodes {
            node.state().unreachable.insert(id);
        }
    }

    /// It is back: it answers, renews and reports.
    pub async fn come_back(&mut self, index: usize) {
        let id = self.nodes[index].id;
        for node in &self.nodes {
            node.state().unreachable.remove(&id);
        }
        let instances = self.instances();
        self.nodes[index].mend().await.unwrap();
        self.nodes[index].renew(&instances).unwrap();
        self.nodes[index].send_report(instances[0]).await.unwrap();
    }

    /// Waits until a server looks so.
    pub async fn until(&self, server: &str, wanted: impl Fn(&Shown) -> bool) -> Shown {
        let since = Instant::now();
        loop {
            let shown = self.shown(server).await;
            if wanted(&shown) {
                return shown;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{:#}", shown.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node is in this state.
    pub async fn node_is(&self, index: usize, state: &str) {
        let since = Instant::now();
        let path = format!("/v1/nodes/{}", self.nodes[index].id);
        loop {
            let shown = self.world.get(&path).await.expect(200);
            if shown.text("/state") == state {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{shown:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A server as the API shows it.
pub struct Shown(pub Value);

impl Shown {
    pub fn text_of(&self, field: &str) -> String {
        self.0[field].as_str().unwrap_or_default().to_owned()
    }

    pub fn copies(&self, state: &str) -> Vec<String> {
        let all = self.0["replicas"].as_array().unwrap().iter();
        all.filter(|copy| copy["state"] == state)
            .map(|copy| copy["node"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn running(&self) -> bool {
        self.0["state"] == "running"
    }
}

fn id(server: &str) -> ServerId {
    server.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_servers_answer_again_on_the_other_copy() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "web-php").await;
    let before = three.shown(&server).await;
    let members = before.copies("in_sync");
    assert_eq!(members.len(), 2, "{:#}", before.0);
    let dead = three.owner(&server).await;
    let spec = three.nodes[dead].state();
    assert_eq!(spec.servers[&id(&server)].slots.len(), 2);
    drop(spec);

    let killed = Instant::now();
    three.kill(dead);
    let after = three
        .until(&server, |it| it.running() && it.0["epoch"] == 2)
        .await;
    let took = killed.elapsed();
    let owner = three.owner(&server).await;
    assert_ne!(owner, dead);
    assert!(members.contains(&after.text_of("node")), "{:#}", after.0);
    assert!(after.text_of("reason").contains("is dead"), "{:#}", after.0);
    assert!(took < Duration::from_secs(7), "took {took:?}");
    let state = three.nodes[owner].state();
    assert!(state.servers[&id(&server)].running);
    assert_eq!(state.servers[&id(&server)].epoch, 2);
    assert_eq!(state.replicas[&id(&server)].epoch, 2);
    drop(state);
    three.node_is(dead, "fenced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_witness_reaches_is_not_dead() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    // Cut off from control alone.
    three.nodes[owner].isolate();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let shown = three.shown(&server).await;
    assert_eq!(shown.0["epoch"], 1);
    assert!(shown.running());
    let others = three.nodes.iter().enumerate();
    let asked: usize = others
        .filter(|(index, _)| *index != owner)
        .map(|(_, node)| node.count("GET reach/"))
        .sum();
    assert!(asked > 0, "witnesses were asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_most_nodes_fall_silent_together_nobody_is_dead_until_the_operator_says_so() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let other = (owner + 1) % 3;
    three.kill(owner);
    three.kill(other);
    tokio::time::sleep(Duration::from_secs(7)).await;
    let shown = three.shown(&server).await;
    assert_eq!(shown.0["epoch"], 1, "{:#}", shown.0);
    let events = three.world.instances[0].control.store.clone();
    let events = undine_store::Db::events(&events);
    let events = events.after(0, None, 500).await.unwrap();
    let brakes = events
        .iter()
        .filter(|it| it.event.kind == "node.brake")
        .count();
    assert_eq!(brakes, 2, "said once for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_one_copy_waits_for_its_node_and_comes_up_there() {
    let mut three = Three::new().await;
    let wish = json!({"name": "alone", "profile": "static", "replicas": 1});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let server = reply.text("/server/id");
    let dead = three.owner(&server).await;
    three.kill(dead);
    three.node_is(dead, "fenced").await;
    let waits = three.until(&server, |it| it.0["state"] == "failed").await;
    assert!(
        waits.text_of("error").contains("waiting for a replica"),
        "{:#}",
        waits.0
    );
    three.come_back(dead).await;
    three.until(&server, Shown::running).await;
    assert_eq!(three.owner(&server).await, dead);
    three.node_is(dead, "ready").await;
}
