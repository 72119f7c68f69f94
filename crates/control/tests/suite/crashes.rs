//! An instance dies at every step boundary of every kind of operation; when it starts again, the
//! operation ends, once.

use serde_json::{Value, json};
use undine_api::node::SlotState;
use undine_control::failpoint::Action;
use undine_control::operations::KINDS;
use undine_model::Bytes;
use undine_testkit::node::FakeNode;

use crate::failover::{Shown, Three};
use crate::world::{Reply, World};

/// A world in which every kind of operation can be started.
struct Ready {
    world: World,
    node: FakeNode,
    account: String,
    site: String,
    round: u32,
}

impl Ready {
    async fn new() -> Self {
        let world = World::new().await;
        let node = world.node("node-1", Bytes::gib(256)).await;
        world.server("base", "web-php").await;
        let (account, _) = world.account("demo").await;
        let site = world.site("base.localhost", &account, "base", "php").await;
        Self {
            world,
            node,
            account,
            site,
            round: 0,
        }
    }

    async fn server(&self) -> String {
        self.world
            .server(&format!("s-{}", self.round), "static")
            .await
    }

    async fn extra_site(&self) -> String {
        let domain = format!("x{}.localhost", self.round);
        self.world.site(&domain, &self.account, "base", "php").await
    }

    async fn upload(&self, activate: bool) -> Reply {
        let archive = format!("archive {}", self.round).into_bytes();
        let sha256 = undine_control::clock::sha256(&archive);
        let path = format!(
            "/v1/sites/{}/releases?format=tar&sha256={sha256}&activate={activate}",
            self.site
        );
        self.world
            .send_raw(&path, "application/octet-stream", archive)
            .await
            .expect(202)
    }

    /// What must be there before an operation of this kind, made while nothing dies.
    async fn prepare(&mut self, kind: &str) -> Value {
        self.round += 1;
        match kind {
            "server.start" => {
                let server = self.server().await;
                let stop = format!("/v1/servers/{server}/stop");
                let reply = self.world.post(&stop, json!({})).await.expect(202);
                self.world.done(&reply).await;
                json!(server)
            }
            "server.stop" | "server.restart" | "server.delete" => json!(self.server().await),
            "site.delete" | "site.take_down" | "site.update" | "app.install" => {
                json!(self.extra_site().await)
            }
            "database.delete" => {
                let wish = json!({"site": self.site, "name": format!("d{}", self.round)});
                let reply = self.world.post("/v1/databases", wish).await.expect(202);
                self.world.done(&reply).await;
                json!(reply.text("/database/id"))
            }
            "release.rollback" => {
                let reply = self.upload(false).await;
                json!(reply.text("/release/id"))
            }
            "node.remove" => {
                let node = self
                    .world
                    .node(&format!("n-{}", self.round), Bytes::mib(64))
                    .await;
                json!(node.id)
            }
            _ => Value::Null,
        }
    }

    /// Starts one; its id.
    async fn start(&self, kind: &str, thing: &Value) -> String {
        let id = thing.as_str().unwrap_or_default();
        let world = &self.world;
        let round = self.round;
        let reply = match kind {
            "server.create" => {
                let wish = json!({"name": format!("s-{round}"), "profile": "static"});
                world.post("/v1/servers", wish).await
            }
            "server.start" => {
                world
                    .post(&format!("/v1/servers/{id}/start"), json!({}))
                    .await
            }
            "server.stop" => {
                world
                    .post(&format!("/v1/servers/{id}/stop"), json!({}))
                    .await
            }
            "server.restart" => {
                world
                    .post(&format!("/v1/servers/{id}/restart"), json!({}))
                    .await
            }
            "server.delete" => {
                world
                    .change("DELETE", &format!("/v1/servers/{id}"), None)
                    .await
            }
            "site.create" => {
                let wish = json!({
                    "domain": format!("c{round}.localhost"), "account": self.account,
                    "server": "base", "runtime": "php",
                });
                world.post("/v1/sites", wish).await
            }
            "site.update" => {
                let wish = json!({"aliases": [format!("www.x{round}.localhost")]});
                world
                    .change("PATCH", &format!("/v1/sites/{id}"), Some(wish))
                    .await
            }
            "site.take_down" => {
                world
                    .change("DELETE", &format!("/v1/sites/{id}"), None)
                    .await
            }
            "site.delete" => {
                let path = format!("/v1/sites/{id}?for_good=true");
                world.change("DELETE", &path, None).await
            }
            "database.create" => {
                let wish = json!({"site": self.site, "name": format!("d{round}")});
                world.post("/v1/databases", wish).await
            }
            "database.delete" => {
                world
                    .change("DELETE", &format!("/v1/databases/{id}"), None)
                    .await
            }
            "release.deploy" => self.upload(true).await,
            "release.rollback" => {
                let wish = json!({"release": id});
                world
                    .post(&format!("/v1/sites/{}/rollback", self.site), wish)
                    .await
            }
            "app.install" => {
                let app = world.get("/v1/apps").await;
                let questions = app.body["items"][0]["questions"].as_object().unwrap();
                let answers: serde_json::Map<_, _> = questions
                    .keys()
                    .map(|name| (name.clone(), json!("x")))
                    .collect();
                let wish = json!({"app": "wordpress", "answers": answers});
                world.post(&format!("/v1/sites/{id}/app"), wish).await
            }
            "node.remove" => {
                world
                    .change("DELETE", &format!("/v1/nodes/{id}"), None)
                    .await
            }
            other => panic!("no test starts {other}: add it here"),
        };
        let reply = reply.expect(202);
        let pointer = if kind == "node.remove" {
            "/id"
        } else {
            "/operation/id"
        };
        reply.text(pointer)
    }
}

async fn crash_everywhere(kinds: &[&str]) {
    let mut ready = Ready::new().await;
    for kind in KINDS.iter().filter(|kind| kinds.contains(&kind.name)) {
        for step in kind.steps {
            for moment in ["before", "done", "after"] {
                let thing = ready.prepare(kind.name).await;
                let point = format!("{}/{}/{moment}", kind.name, step.name);
                ready.world.instances[0]
                    .failpoints
                    .set(&point, Action::Halt);
                let operation = ready.start(kind.name, &thing).await;
                ready.world.instances[0].failpoints.halted().await;
                ready.world.restart(0).await;
                let ended = ready.world.ended(&operation).await;
                assert_eq!(ended["state"], "succeeded", "died at {point}: {ended}");
                let steps = ended["steps"].as_array().unwrap();
                assert!(
                    steps.iter().all(|step| step["state"] == "done"),
                    "{point}: {ended}"
                );
            }
        }
    }
    let servers = ready.node.state().servers.len();
    assert!(servers >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_come_and_go_although_control_dies_at_every_boundary() {
    crash_everywhere(&["server.create", "server.start", "server.stop"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_restart_and_vanish_although_control_dies_at_every_boundary() {
    crash_everywhere(&["server.restart", "server.delete", "node.remove"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_and_go_although_control_dies_at_every_boundary() {
    crash_everywhere(&[
        "site.create",
        "site.update",
        "site.take_down",
        "site.delete",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_arrives_although_control_dies_at_every_boundary() {
    crash_everywhere(&[
        "database.create",
        "database.delete",
        "release.deploy",
        "release.rollback",
        "app.install",
    ])
    .await;
}

/// Every boundary of the steps of a kind.
fn boundaries(kind: &str) -> Vec<String> {
    let kind = KINDS.iter().find(|it| it.name == kind).unwrap();
    let moments = ["before", "done", "after"];
    let of = |step: &'static str| moments.map(|moment| format!("{}/{step}/{moment}", kind.name));
    kind.steps.iter().flat_map(|step| of(step.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_ends_once_although_control_dies_at_every_boundary() {
    for point in boundaries("server.failover") {
        let mut three = Three::quiet(World::new().await).await;
        let server = three.world.server("web-1", "static").await;
        let dead = three.owner(&server).await;
        three.world.instances[0]
            .failpoints
            .set(&point, Action::Halt);
        three.kill(dead);
        three.fence(dead).await.expect(200);
        three.world.instances[0].failpoints.halted().await;
        three.world.restart(0).await;
        three.operation_ends(&server, "server.failover").await;
        let after = three.until(&server, Shown::running).await;
        assert_eq!(after.0["epoch"], 2, "died at {point}");
        assert_ne!(three.owner(&server).await, dead);
        assert_eq!(
            three.operations(&server, "server.failover").await,
            ["succeeded"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_filled_once_although_control_dies_at_every_boundary() {
    for point in boundaries("server.replicate") {
        let mut three = Three::quiet(World::new().await).await;
        let server = three.world.server("web-1", "static").await;
        three.world.instances[0]
            .failpoints
            .set(&point, Action::Halt);
        three.fail_other_copy(&server).await;
        three.world.instances[0].failpoints.halted().await;
        three.world.restart(0).await;
        three
            .until(&server, |it| it.copies("in_sync").len() == 2)
            .await;
        three.operation_ends(&server, "server.replicate").await;
        let ended = three.operations(&server, "server.replicate").await;
        assert_eq!(ended, ["succeeded"], "died at {point}");
        let owner = three.owner(&server).await;
        let state = three.nodes[owner].state();
        let slots = &state.servers[&server.parse().unwrap()].slots;
        assert!(
            slots.iter().all(|it| it.state == SlotState::Live),
            "{slots:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_differs_leaves_once_and_is_filled_although_control_dies_at_every_boundary() {
    let mut points = boundaries("server.scrub");
    points.extend(["before", "after"].map(|moment| format!("slots/degrade/{moment}")));
    for point in points {
        let mut three = Three::quiet(World::new().await).await;
        let server = three.world.server("web-1", "static").await;
        let bad = three.spoil_other_copy(&server).await;
        three.world.instances[0]
            .failpoints
            .set(&point, Action::Halt);
        let path = format!("/v1/servers/{server}/scrub");
        three.world.post(&path, json!({})).await.expect(202);
        three.world.instances[0].failpoints.halted().await;
        three.world.restart(0).await;
        three.operation_ends(&server, "server.scrub").await;
        let ended = three.operations(&server, "server.scrub").await;
        assert_eq!(ended, ["succeeded"], "died at {point}");
        three
            .until(&server, |it| it.copies("in_sync").len() == 2)
            .await;
        three.operation_ends(&server, "server.replicate").await;
        let filled = three.operations(&server, "server.replicate").await;
        assert_eq!(filled, ["succeeded"], "died at {point}");
        assert_eq!(three.told_of_differing(&server).await, 1, "died at {point}");
        let owner = three.owner(&server).await;
        // What it lacks is not known: everything was copied.
        let by_bitmap = format!("PUT servers/{server}/joins/{bad} Bitmap");
        assert_eq!(three.nodes[owner].count(&by_bitmap), 0, "died at {point}");
        let shown = three.shown(&server).await;
        assert!(shown.0["scrubbed_at"].is_i64(), "died at {point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_power_is_cut_although_control_dies_at_every_boundary() {
    for point in boundaries("node.power_off") {
        let mut three = Three::quiet(World::new().await).await;
        let told = three.fence_agent();
        three.set_bmc(0, "fence_test").await.expect(200);
        three.world.instances[0]
            .failpoints
            .set(&point, Action::Halt);
        three.kill(0);
        three.fence(0).await.expect(200);
        three.world.instances[0].failpoints.halted().await;
        three.world.restart(0).await;
        let node = three.nodes[0].id.to_string();
        three.operation_ends(&node, "node.power_off").await;
        let ended = three.operations(&node, "node.power_off").await;
        assert_eq!(ended, ["succeeded"], "died at {point}");
        assert!(told.is_file());
    }
}

#[test]
fn every_kind_is_in_one_of_the_crash_tests() {
    let text = include_str!("crashes.rs");
    for kind in KINDS {
        assert!(
            text.matches(&format!("\"{}\"", kind.name)).count() >= 2,
            "{}",
            kind.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_for_good_is_undone() {
    let ready = Ready::new().await;
    ready.node.fail_next("guest apply_delta", 422, "invalid");
    let wish = json!({"site": ready.site, "name": "shop"});
    let reply = ready.world.post("/v1/databases", wish).await.expect(202);
    let ended = ready.world.ended(&reply.text("/operation/id")).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(
        ended["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("he test says"),
        "{ended}"
    );
    let id = reply.text("/database/id");
    ready
        .world
        .get(&format!("/v1/databases/{id}"))
        .await
        .expect(404);
    // Its name is free again.
    let wish = json!({"site": ready.site, "name": "shop"});
    let reply = ready.world.post("/v1/databases", wish).await.expect(202);
    ready.world.done(&reply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_says_why_and_can_be_deleted() {
    let ready = Ready::new().await;
    ready.node.fail_next("PUT servers/", 422, "no-template");
    let wish = json!({"name": "broken", "profile": "static"});
    let reply = ready.world.post("/v1/servers", wish).await.expect(202);
    let ended = ready.world.ended(&reply.text("/operation/id")).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    let path = format!("/v1/servers/{}", reply.text("/server/id"));
    let shown = ready.world.get(&path).await;
    assert_eq!(shown.text("/state"), "failed");
    assert!(shown.text("/error").contains("no-template"), "{shown:?}");
    let gone = ready.world.change("DELETE", &path, None).await.expect(202);
    ready.world.done(&gone).await;
}
