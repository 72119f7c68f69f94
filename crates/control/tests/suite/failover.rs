//! Nodes die: their servers come up elsewhere, once, with the copy that has every write.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use undine_api::internal::{LeaseAnswer, LeaseRequest};
use undine_api::node::{ReplicaState, SlotState};
use undine_control::failpoint::Action;
use undine_control::policy::Policy;
use undine_link::{ControlClient, Method};
use undine_model::{Bytes, NodeId, ReplicaId, ServerId};
use undine_store::Db;
use undine_testkit::node::FakeNode;

use crate::world::{Reply, World};
use undine_testkit::postgres::TestDatabase;

/// Three nodes whose guards renew with every instance.
pub struct Three {
    pub world: World,
    pub nodes: Vec<FakeNode>,
}

impl Three {
    pub async fn new() -> Self {
        Self::on(World::new().await).await
    }

    /// Their guards are never heard: nothing is declared dead but by the operator.
    pub async fn quiet(world: World) -> Self {
        let mut nodes = Vec::new();
        for name in ["node-1", "node-2", "node-3"] {
            nodes.push(world.node(name, Bytes::gib(8)).await);
        }
        Self { world, nodes }
    }

    pub async fn on(world: World) -> Self {
        let three = Self::quiet(world).await;
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

    /// The operator declares it dead.
    pub async fn fence(&self, index: usize) -> Reply {
        let path = format!("/v1/nodes/{}/fence", self.nodes[index].id);
        let wish = json!({"confirm": format!("node-{}", index + 1)});
        self.world.post(&path, wish).await
    }

    /// The copy that is not the owner's fails, and the owner says so; its index and its id.
    pub async fn fail_other_copy(&self, server: &str) -> (usize, ReplicaId) {
        let owner = self.owner(server).await;
        let shown = self.shown(server).await;
        let other = shown.copies("in_sync");
        let other = other.iter().map(|it| self.index(it));
        let other = other.rev().find(|it| *it != owner).unwrap();
        let copy = self.nodes[other].state().replicas[&id(server)].id;
        self.nodes[other].lose_daemon(id(server));
        self.nodes[owner].fail_slot(id(server), copy);
        let instance = self.world.instances[0].internal;
        self.nodes[owner].send_report(instance).await.unwrap();
        (other, copy)
    }

    /// The copy that is not the owner's will be found to differ; its id.
    pub async fn spoil_other_copy(&self, server: &str) -> ReplicaId {
        let owner = self.owner(server).await;
        let mut state = self.nodes[owner].state();
        let slots = &state.servers[&id(server)].slots;
        let copy = slots[1].replica.unwrap();
        state.differing.insert(copy);
        copy
    }

    /// How often the operator was told that a copy differs.
    pub async fn told_of_differing(&self, server: &str) -> usize {
        let page = self.world.get("/v1/audit?limit=500").await.expect(200);
        let rows = page.body["items"].as_array().unwrap().iter();
        let subject = format!("server/{server}");
        rows.filter(|row| row["action"] == "server.copy_differs" && row["subject"] == subject)
            .count()
    }

    /// A fence agent that notes in this file what it was told, and succeeds.
    pub fn fence_agent(&self) -> PathBuf {
        let folder = self.world.instances[0].state.fence_agents();
        std::fs::create_dir_all(&folder).unwrap();
        let (agent, told) = (folder.join("fence_test"), folder.join("told"));
        std::fs::write(&agent, format!("#!/bin/sh\ncat >{}\n", told.display())).unwrap();
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        told
    }

    /// Says how a node's power is cut.
    pub async fn set_bmc(&self, index: usize, agent: &str) -> Reply {
        let path = format!("/v1/nodes/{}/bmc", self.nodes[index].id);
        let options = json!({"ip": "192.0.2.9", "password": "x"});
        let wish = json!({"agent": agent, "options": options});
        self.world.change("PUT", &path, Some(wish)).await
    }

    /// The states of a server's operations of this kind, the newest first.
    pub async fn operations(&self, server: &str, kind: &str) -> Vec<String> {
        let path = format!("/v1/operations?subject={server}");
        let page = self.world.get(&path).await.expect(200);
        let items = page.body["items"].as_array().unwrap().iter();
        items
            .filter(|it| it["kind"] == kind)
            .map(|it| it["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until no operation of this kind is under way.
    pub async fn operation_ends(&self, server: &str, kind: &str) {
        let since = Instant::now();
        loop {
            let states = self.operations(server, kind).await;
            let over = |it: &String| it == "succeeded" || it == "failed";
            if !states.is_empty() && states.iter().all(over) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{states:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
    let slots = three.nodes[dead].state().servers[&id(&server)].slots.len();
    assert_eq!(slots, 2);

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
    {
        let state = three.nodes[owner].state();
        assert!(state.servers[&id(&server)].running);
        assert_eq!(state.servers[&id(&server)].epoch, 2);
        assert_eq!(state.replicas[&id(&server)].epoch, 2);
    }
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
async fn a_node_that_was_told_what_it_owns_is_not_dead_before_that_is_over() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let guard = three.nodes[owner].guard.clone();
    let guard = ControlClient::new(guard, &three.instances()).unwrap();
    three.kill(owner);
    let path = format!("/v1/nodes/{}", three.nodes[owner].id);
    let state = async || three.world.get(&path).await.text("/state");
    // It asks, but never says that it heard an answer: that is no life.
    for number in 1..=12 {
        let wish = LeaseRequest {
            number: u64::MAX - 100 + number,
            last_answered: 0,
            confirm: true,
            paused: Vec::new(),
        };
        let lease = "/internal/v1/lease";
        let answer: LeaseAnswer = guard
            .call(Method::POST, lease, Some(&wish), Duration::from_secs(5))
            .await
            .unwrap();
        let owns = answer.owns.unwrap();
        assert_eq!(owns.len(), 1, "confirmed while it is not dead");
        assert_ne!(state().await, "fenced");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let since = Instant::now();
    while state().await != "fenced" {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
    let store = &three.world.instances[0].control.store;
    let events = store.events().after(0, None, 500).await.unwrap();
    let brakes = events
        .iter()
        .filter(|it| it.event.kind == "node.brake")
        .count();
    assert_eq!(brakes, 2, "said once for each");

    three.fence(owner).await.expect(200);
    let waits = three.until(&server, |it| it.0["state"] != "running").await;
    // Its other copy may be on the other dead node.
    if waits
        .copies("in_sync")
        .contains(&three.nodes[3 - owner - other].id.to_string())
    {
        three.until(&server, Shown::running).await;
    }
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

/// How often an owner does not take what it is told.
const DEAF: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_leaves_at_once_and_is_filled_again() {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    for node in &three.nodes {
        node.state().hold_joins = true;
    }
    let (other, copy) = three.fail_other_copy(&server).await;
    let left = three
        .until(&server, |it| it.copies("in_sync").len() == 1)
        .await;
    assert_eq!(left.copies("in_sync"), [three.nodes[owner].id.to_string()]);
    assert_eq!(left.0["epoch"], 1, "the owner stays the owner");
    three
        .until(&server, |it| it.copies("syncing").len() == 1)
        .await;
    {
        let state = three.nodes[owner].state();
        let slots = &state.servers[&id(&server)].slots;
        assert!(
            slots.iter().all(|it| it.state != SlotState::Failed),
            "{slots:?}"
        );
    }
    let since = Instant::now();
    let state_of = || three.nodes[other].state().replicas[&id(&server)].state;
    while state_of() != ReplicaState::Syncing {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "{:?}",
            state_of()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    three.nodes[owner].state().hold_joins = false;
    three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    three.operation_ends(&server, "server.replicate").await;
    {
        let state = three.nodes[other].state();
        let held = &state.replicas[&id(&server)];
        assert_eq!((held.id, held.state), (copy, ReplicaState::Open));
    }
    assert_eq!(three.operations(&server, "server.failover").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_filled_again_only_when_its_owner_knows_that_it_left() {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let told = format!("PUT servers/{server}/slots");
    let before = three.nodes[owner].count(&told);
    for _ in 0..DEAF {
        three.nodes[owner].fail_next(&told, 503, "deaf");
    }
    three.fail_other_copy(&server).await;
    // The reconciler looks meanwhile, too.
    while three.nodes[owner].count(&told) < before + DEAF {
        three.world.instances[0].control.copies_due.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    three.operation_ends(&server, "server.replicate").await;
    let filled = three.operations(&server, "server.replicate").await;
    assert_eq!(filled, ["succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_file_is_gone_is_filled_in_full_and_never_by_what_changed() {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let failpoints = &three.world.instances[0].failpoints;
    // It left a moment ago under this owner: what changed would do, were its file still there.
    failpoints.set("server.replicate/join/before", Action::Wait);
    let (other, _) = three.fail_other_copy(&server).await;
    three
        .until(&server, |it| it.copies("syncing").len() == 1)
        .await;
    three.nodes[other].state().replicas.remove(&id(&server));
    failpoints.clear();
    three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    let calls = three.nodes[owner].state().calls.clone();
    let joins = calls.iter().filter(|call| call.contains("/joins/"));
    let joins: Vec<&String> = joins.collect();
    assert!(
        !joins.is_empty() && joins.iter().all(|call| call.ends_with(" Full")),
        "{joins:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_more_or_fewer_copies_from_its_next_start() {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let restart = async |replicas: usize| {
        let path = format!("/v1/servers/{server}");
        let wish = json!({"replicas": replicas});
        three
            .world
            .change("PATCH", &path, Some(wish))
            .await
            .expect(200);
        let path = format!("{path}/restart");
        let reply = three.world.post(&path, json!({})).await.expect(202);
        three.world.done(&reply).await;
        three
            .until(&server, |it| {
                let kept = it.0["replicas"].as_array().unwrap().len();
                it.copies("in_sync").len() == replicas && kept == replicas
            })
            .await;
    };
    restart(3).await;
    restart(1).await;
    let owner = three.owner(&server).await;
    // The files of those that were given up go as well.
    let since = Instant::now();
    let has_copy = |at: &usize| three.nodes[*at].state().replicas.contains_key(&id(&server));
    while (0..3).any(|at| at != owner && has_copy(&at)) {
        assert!(since.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(has_copy(&owner));
    restart(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_whose_file_is_gone_costs_nothing_while_another_is_there() {
    let three = Three::new().await;
    let wish = json!({"name": "all", "profile": "static", "replicas": 3});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let server = reply.text("/server/id");
    let (owner, failpoints) = (
        three.owner(&server).await,
        &three.world.instances[0].failpoints,
    );
    failpoints.set("server.failover/fence/before", Action::Wait);
    three.kill(owner);
    let moved = three.until(&server, |it| it.0["epoch"] == 2).await;
    assert_eq!(moved.copies("in_sync").len(), 2, "{:#}", moved.0);
    let heir = three.owner(&server).await;
    let other = (0..3).find(|at| *at != owner && *at != heir).unwrap();
    three.nodes[other].state().replicas.remove(&id(&server));
    failpoints.clear();
    let back = three.until(&server, Shown::running).await;
    assert_eq!(three.owner(&server).await, heir);
    assert_eq!(back.copies("in_sync").len(), 1, "{:#}", back.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_survivors_one_is_kept_before_the_server_starts_and_the_other_is_filled_again() {
    let three = Three::new().await;
    let wish = json!({"name": "all", "profile": "static", "replicas": 3});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let server = reply.text("/server/id");
    let (owner, failpoints) = (
        three.owner(&server).await,
        &three.world.instances[0].failpoints,
    );
    failpoints.set("server.failover/boot/before", Action::Wait);
    three.kill(owner);
    let kept = three
        .until(&server, |it| it.copies("in_sync").len() == 1)
        .await;
    assert_eq!(kept.copies("stale").len(), 2, "{:#}", kept.0);
    let heir = three.owner(&server).await;
    assert_eq!(three.index(&kept.copies("in_sync")[0]), heir);
    failpoints.clear();
    let whole = |it: &Shown| it.running() && it.copies("in_sync").len() == 2;
    three.until(&server, whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_copy_whose_disk_is_away_is_waited_for_and_used_when_it_is_back() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let members = three.shown(&server).await.copies("in_sync");
    let heir = members.iter().map(|it| three.index(it));
    let heir = heir.into_iter().find(|at| *at != owner).unwrap();
    let disk = three.nodes[heir].state().replicas.remove(&id(&server));
    three.kill(owner);
    let gone = |it: &Shown| it.0["replicas"].to_string().contains("its file is gone");
    let waits = three.until(&server, gone).await;
    assert_eq!(waits.copies("in_sync").len(), 1, "{:#}", waits.0);
    three.nodes[heir]
        .state()
        .replicas
        .insert(id(&server), disk.unwrap());
    let back = three.until(&server, Shown::running).await;
    assert_eq!(three.owner(&server).await, heir);
    assert!(!gone(&back), "{:#}", back.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_power_is_cut_where_somebody_said_how() {
    let three = Three::new().await;
    let told = three.fence_agent();
    let refused = three.set_bmc(0, "fence_none").await.expect(422);
    assert_eq!(refused.text("/field"), "agent");
    let node = three.set_bmc(0, "fence_test").await.expect(200);
    assert_eq!(node.text("/bmc"), "fence_test");
    assert!(!node.body.to_string().contains("192.0.2.9"));
    three.kill(0);
    three.node_is(0, "fenced").await;
    three
        .operation_ends(&three.nodes[0].id.to_string(), "node.power_off")
        .await;
    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told, "action=off\nip=192.0.2.9\npassword=x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_changed_by_field_and_only_to_what_makes_sense() {
    let world = World::new().await;
    let path = "/v1/settings/failover";
    let change = async |wish| world.change("PATCH", path, Some(wish)).await;
    let before = world.get(path).await.expect(200);
    assert_eq!(
        (&before.body["tls"], &before.body["version"]),
        (&json!(true), &json!(0))
    );
    let refused = change(json!({"silence_kvm_ms": 500})).await.expect(422);
    assert_eq!(refused.text("/field"), "silence_kvm_ms");
    let after = change(json!({"joins_per_node": 3})).await;
    assert_eq!(after.expect(200).body["joins_per_node"], 3);
    let after = change(json!({"tls": false})).await.expect(200);
    assert_eq!(
        (&after.body["joins_per_node"], &after.body["version"]),
        (&json!(3), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_again_before_it_counts_never_counts() {
    let three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let failpoints = &three.world.instances[0].failpoints;
    // It is in its slot, the commit that would make it count is next.
    failpoints.set("server.replicate/commit/looked", Action::Wait);
    let (_, copy) = three.fail_other_copy(&server).await;
    three
        .until(&server, |it| it.copies("syncing").len() == 1)
        .await;
    let since = Instant::now();
    while slot_of(&three, owner, &server, copy) != Some(SlotState::Live) {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    three.nodes[owner].fail_slot(id(&server), copy);
    let instance = three.world.instances[0].internal;
    three.nodes[owner].send_report(instance).await.unwrap();
    three
        .until(&server, |it| it.copies("stale").len() == 1)
        .await;
    failpoints.clear();
    three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    three.operation_ends(&server, "server.replicate").await;
    let ended = three.operations(&server, "server.replicate").await;
    assert_eq!(
        ended,
        ["succeeded", "failed"],
        "the first one never committed"
    );
}

fn slot_of(three: &Three, owner: usize, server: &str, copy: ReplicaId) -> Option<SlotState> {
    let state = three.nodes[owner].state();
    let slots = state.servers[&id(server)].slots.iter();
    slots
        .clone()
        .find(|it| it.replica == Some(copy))
        .map(|it| it.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_copies_leave_all_servers_and_come_back_with_it() {
    let mut three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let members = three.shown(&server).await.copies("in_sync");
    let other = members
        .iter()
        .map(|it| three.index(it))
        .find(|it| *it != owner)
        .unwrap();
    three.kill(other);
    three.fence(other).await.expect(200);
    let left = three
        .until(&server, |it| it.copies("stale").len() == 1)
        .await;
    assert!(left.running() && left.0["epoch"] == 1, "{:#}", left.0);
    let since = Instant::now();
    while slot_of_empty(&three, owner, &server) != 1 {
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "the owner was told"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    three.come_back(other).await;
    three.node_is(other, "ready").await;
    let back = three
        .until(&server, |it| it.copies("in_sync").len() == 2)
        .await;
    assert_eq!(back.0["epoch"], 1, "no server moves for no reason");
    assert_eq!(three.owner(&server).await, owner);
}

fn slot_of_empty(three: &Three, owner: usize, server: &str) -> usize {
    let state = three.nodes[owner].state();
    let slots = state.servers[&id(server)].slots.iter();
    slots.filter(|it| it.state == SlotState::Empty).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_node_stays_away_is_replaced_and_removed_when_it_returns() {
    let mut three = Three::quiet(World::new().await).await;
    let policy = Policy {
        replace_after_ms: 300,
        ..Policy::default()
    };
    let store = three.world.instances[0].control.store.clone();
    store.settings().put(Policy::KEY, &policy, 1).await.unwrap();
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let members = three.shown(&server).await.copies("in_sync");
    let other = members
        .iter()
        .map(|it| three.index(it))
        .find(|it| *it != owner)
        .unwrap();
    let third = 3 - owner - other;
    three.kill(other);
    three.fence(other).await.expect(200);
    let wanted = three.nodes[third].id.to_string();
    three
        .until(&server, |it| it.copies("in_sync").contains(&wanted))
        .await;
    assert!(
        three.nodes[other]
            .state()
            .replicas
            .contains_key(&id(&server))
    );
    three.come_back(other).await;
    three.node_is(other, "ready").await;
    assert!(
        !three.nodes[other]
            .state()
            .replicas
            .contains_key(&id(&server))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_ended_when_it_returns_and_a_deleted_server_s_disk_goes_too() {
    let mut three = Three::quiet(World::new().await).await;
    let moved = three.world.server("moved", "static").await;
    let dead = three.owner(&moved).await;
    let wish = json!({"name": "gone", "profile": "static", "node": format!("node-{}", dead + 1)});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let gone = reply.text("/server/id");
    // Cut off, but alive.
    three.nodes[dead].isolate();
    three.fence(dead).await.expect(200);
    three
        .until(&moved, |it| it.running() && it.0["epoch"] == 2)
        .await;
    three
        .until(&gone, |it| it.running() && it.0["epoch"] == 2)
        .await;
    let delete = format!("/v1/servers/{gone}");
    let reply = three
        .world
        .change("DELETE", &delete, None)
        .await
        .expect(202);
    three.world.done(&reply).await;
    assert!(
        three.nodes[dead].state().servers[&id(&moved)].running,
        "a zombie"
    );
    three.come_back(dead).await;
    three.node_is(dead, "ready").await;
    let state = three.nodes[dead].state();
    assert!(!state.servers.contains_key(&id(&moved)));
    assert!(!state.servers.contains_key(&id(&gone)));
    assert!(!state.replicas.contains_key(&id(&gone)));
    assert!(
        state.replicas.contains_key(&id(&moved)),
        "to be filled again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn control_cut_off_from_all_nodes_declares_nobody_dead() {
    let three = Three::new().await;
    let server = three.world.server("web-1", "static").await;
    for node in &three.nodes {
        node.isolate();
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    for index in 0..3 {
        let path = format!("/v1/nodes/{}", three.nodes[index].id);
        assert_ne!(three.world.get(&path).await.text("/state"), "fenced");
    }
    assert!(three.shown(&server).await.running(), "its route stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_one_moves_the_servers_of_a_dead_node() {
    let database = TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let three = Three::on(world).await;
    let server = three.world.server("web-1", "static").await;
    let dead = three.owner(&server).await;
    three.kill(dead);
    three
        .until(&server, |it| it.running() && it.0["epoch"] == 2)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(three.shown(&server).await.0["epoch"], 2);
    assert_eq!(
        three.operations(&server, "server.failover").await,
        ["succeeded"]
    );
    let store = &three.world.instances[0].control.store;
    let events = store.events().after(0, None, 500).await.unwrap();
    let fenced = events
        .iter()
        .filter(|it| it.event.kind == "node.fenced")
        .count();
    assert_eq!(fenced, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_is_accepted_in_words_and_only_where_nothing_else_helps() {
    let mut three = Three::quiet(World::new().await).await;
    let server = three.world.server("web-1", "static").await;
    let owner = three.owner(&server).await;
    let path = format!("/v1/servers/{server}/accept-loss");
    let members = three.shown(&server).await.copies("in_sync");
    let other = members
        .iter()
        .map(|it| three.index(it))
        .find(|it| *it != owner)
        .unwrap();
    let wish = json!({"confirm": "web-1", "node": format!("node-{}", other + 1)});
    let refused = three.world.post(&path, wish.clone()).await.expect(409);
    assert_eq!(refused.text("/type"), "not-needed");

    // The other copy leaves; then the owner dies with the only one that counts.
    three.kill(other);
    three.fence(other).await.expect(200);
    three
        .until(&server, |it| it.copies("stale").len() == 1)
        .await;
    three.kill(owner);
    three.fence(owner).await.expect(200);
    let waits = three.until(&server, |it| it.0["state"] == "failed").await;
    assert!(
        waits.text_of("error").contains("waiting for a replica"),
        "{:#}",
        waits.0
    );
    three.come_back(other).await;
    three.node_is(other, "ready").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        three.shown(&server).await.0["epoch"],
        1,
        "a stale copy is not promoted"
    );

    let careless = json!({"confirm": "yes", "node": format!("node-{}", other + 1)});
    let refused = three.world.post(&path, careless).await.expect(422);
    assert_eq!(refused.text("/field"), "confirm");
    let away = json!({"confirm": "web-1", "node": format!("node-{}", owner + 1)});
    assert_eq!(
        three
            .world
            .post(&path, away)
            .await
            .expect(409)
            .text("/type"),
        "node-away"
    );
    let accepted = three.world.post(&path, wish).await.expect(202);
    three.world.done(&accepted).await;
    let up = three.until(&server, Shown::running).await;
    assert_eq!(up.0["epoch"], 2);
    assert_eq!(three.owner(&server).await, other);
    let audit = three.world.get("/v1/audit?limit=500").await.expect(200);
    let rows = audit.body["items"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["action"] == "server.accept_loss"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_importance_are_checked_and_fencing_takes_the_name() {
    let three = Three::new().await;
    for (field, wish) in [
        (
            "replicas",
            json!({"name": "a", "profile": "static", "replicas": 4}),
        ),
        (
            "replicas",
            json!({"name": "a", "profile": "static", "replicas": 0}),
        ),
        (
            "importance",
            json!({"name": "a", "profile": "static", "importance": 10}),
        ),
    ] {
        let refused = three.world.post("/v1/servers", wish).await.expect(422);
        assert_eq!(refused.text("/field"), field);
    }
    let path = format!("/v1/nodes/{}/fence", three.nodes[0].id);
    let refused = three
        .world
        .post(&path, json!({"confirm": "node-2"}))
        .await
        .expect(422);
    assert_eq!(refused.text("/field"), "confirm");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(three.fence(0).await.expect(409).text("/type"), "alive");
    let wish = json!({"name": "all", "profile": "static", "replicas": 3, "importance": 9});
    let reply = three.world.post("/v1/servers", wish).await.expect(202);
    three.world.done(&reply).await;
    let shown = three.shown(&reply.text("/server/id")).await;
    assert_eq!(shown.copies("in_sync").len(), 3);
    assert_eq!(shown.0["importance"], 9);
}
