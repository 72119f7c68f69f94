//! The store loses its memory: a backup is put back, a file is copied, a standby that lacks commits
//! is promoted. Nothing moves before the nodes were asked, who knows more blocks its server, and an
//! operator lets the record follow.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use undine_api::node::OLD_TERM;
use undine_control::failpoint::Action;
use undine_link::CallError;
use undine_model::ServerId;
use undine_store::{Db, DoubtFilter, Settings, backup};
use undine_testkit::postgres::{Server, TestDatabase};

use crate::failover::{Shown, Three};
use crate::world::{Reply, World};

/// Three nodes and a server with two copies, none of which moves by itself.
struct Forgetful {
    three: Three,
    server: String,
    /// The node that runs it, and the one with the other copy.
    owner: usize,
    other: usize,
}

impl Forgetful {
    async fn new() -> Self {
        Self::on(World::new().await).await
    }

    async fn on(world: World) -> Self {
        let three = Three::quiet(world).await;
        let server = three.world.server("web-1", "static").await;
        let owner = three.owner(&server).await;
        let members = three.shown(&server).await.copies("in_sync");
        let mut others = members.iter().map(|it| three.index(it));
        let other = others.find(|it| *it != owner).unwrap();
        Self {
            three,
            server,
            owner,
            other,
        }
    }

    fn id(&self) -> ServerId {
        self.server.parse().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.three.world.folder.path().join(name)
    }

    async fn backup(&self) -> PathBuf {
        let file = self.file("backup");
        let store = &self.three.world.instances[0].control.store;
        store.backup(&file).await.unwrap();
        file
    }

    /// The other node dies, its copy leaves, and the owner is told.
    async fn other_leaves(&self) {
        self.three.kill(self.other);
        self.three.fence(self.other).await.expect(200);
        let since = Instant::now();
        loop {
            let told = {
                let state = self.three.nodes[self.owner].state();
                let copy = &state.replicas[&self.id()];
                copy.committed.as_ref().map_or(0, |it| it.in_sync.len())
            };
            if told == 1 {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The instance ends.
    async fn stop(&self) {
        let instance = &self.three.world.instances[0];
        instance.kill();
        instance.control.store.close().await;
    }

    /// The backup takes the store's place, as `undine-control restore` does it.
    async fn go_back(&mut self, to: &Path) {
        self.stop().await;
        let url = self.three.world.instances[0].control.store_url.clone();
        backup::restore(to, &url).await.unwrap();
        self.three.world.restart(0).await;
    }

    /// How often a node was told to start it.
    fn starts(&self, node: usize) -> usize {
        let start = format!("PUT servers/{}", self.server);
        let state = self.three.nodes[node].state();
        state.calls.iter().filter(|call| **call == start).count()
    }

    async fn shown(&self) -> Shown {
        self.three.shown(&self.server).await
    }

    async fn blocked(&self, why: &str) -> Shown {
        let shown = self
            .three
            .until(&self.server, |it| it.text_of("doubt").contains(why))
            .await;
        self.three
            .until(&self.server, |it| it.0["state"] == "failed")
            .await;
        shown
    }

    async fn clear(&self) -> Shown {
        self.three
            .until(&self.server, |it| it.0["doubt"].is_null())
            .await
    }

    async fn adopt(&self, wish: Value) -> Reply {
        let path = format!("/v1/servers/{}/adopt", self.server);
        self.three.world.post(&path, wish).await
    }

    async fn happened(&self, kind: &str) -> usize {
        let store = &self.three.world.instances[0].control.store;
        let page = store.events().after(0, None, 1_000).await.unwrap();
        page.iter().filter(|event| event.event.kind == kind).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_nodes_know_no_more_than_a_restored_store_all_goes_on() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    let starts = it.starts(it.owner);
    it.go_back(&backup).await;
    let shown = it.clear().await;
    assert!(shown.running(), "{:#}", shown.0);
    assert_eq!(shown.0["epoch"], 1);
    assert_eq!(it.starts(it.owner), starts);
    // And what is lost from now on is looked after as ever.
    it.three.kill(it.owner);
    it.three.fence(it.owner).await.expect(200);
    let up = it
        .three
        .until(&it.server, |it| it.running() && it.0["epoch"] == 2)
        .await;
    assert_eq!(it.three.index(&up.text_of("node")), it.other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_leaving_was_forgotten_is_not_promoted() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.other_leaves().await;
    it.go_back(&backup).await;
    it.three.come_back(it.other).await;
    // By the store's memory both copies are in sync; the owner was told otherwise.
    let shown = it.blocked("other copies in sync").await;
    let owner = format!("node-{}", it.owner + 1);
    assert!(shown.text_of("doubt").contains(&owner), "{:#}", shown.0);
    assert_eq!(shown.copies("in_sync").len(), 2, "{:#}", shown.0);

    // The owner dies: the copy that lacks writes does not take over, whoever asks for it.
    it.three.kill(it.owner);
    it.three.fence(it.owner).await.expect(200);
    let start = format!("/v1/servers/{}/start", it.server);
    let refused = it.three.world.post(&start, json!({})).await.expect(409);
    assert_eq!(refused.text("/type"), "in-doubt");
    let loss = format!("/v1/servers/{}/accept-loss", it.server);
    let wish = json!({"confirm": "web-1", "node": format!("node-{}", it.other + 1)});
    let refused = it.three.world.post(&loss, wish).await.expect(409);
    assert_eq!(refused.text("/type"), "in-doubt");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(it.shown().await.0["epoch"], 1);

    it.three.come_back(it.owner).await;
    let adopted = it.adopt(json!({"confirm": "web-1"})).await.expect(200);
    assert_eq!(adopted.body["doubt"], Value::Null, "{adopted:?}");
    let up = it.three.until(&it.server, Shown::running).await;
    assert_eq!(it.three.index(&up.text_of("node")), it.owner);
    // The other one is filled again before it counts.
    it.three
        .until(&it.server, |it| it.copies("in_sync").len() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_move_is_adopted_without_an_interruption() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.three.kill(it.owner);
    it.three.fence(it.owner).await.expect(200);
    it.three
        .until(&it.server, |it| it.running() && it.0["epoch"] == 2)
        .await;
    it.go_back(&backup).await;
    it.three.come_back(it.owner).await;
    it.blocked("epoch 2").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let runs = |it: &Forgetful| it.three.nodes[it.other].state().servers[&it.id()].running;
    assert!(runs(&it), "what the store has forgotten is not stopped");

    let careless = it.adopt(json!({"confirm": "yes"})).await.expect(422);
    assert_eq!(careless.text("/field"), "confirm");
    let unknown = json!({"confirm": "web-1", "without": ["node-9"]});
    let unknown = it.adopt(unknown).await.expect(422);
    assert_eq!(unknown.text("/field"), "without");
    let starts = it.starts(it.other);
    let adopted = it.adopt(json!({"confirm": "web-1"})).await.expect(200);
    assert_eq!(
        (adopted.text("/state"), adopted.text("/epoch")),
        ("running".into(), "2".into())
    );
    assert_eq!(it.three.owner(&it.server).await, it.other);
    assert!(runs(&it));
    assert_eq!(it.starts(it.other), starts);
    let again = it.adopt(json!({"confirm": "web-1"})).await.expect(409);
    assert_eq!(again.text("/type"), "not-in-doubt");
    let audit = it.three.world.get("/v1/audit?limit=500").await.expect(200);
    let rows = audit.body["items"].as_array().unwrap();
    assert_eq!(
        rows.iter()
            .filter(|row| row["action"] == "server.adopt")
            .count(),
        1
    );
    it.three
        .until(&it.server, |it| it.copies("in_sync").len() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_store_has_forgotten_is_recalled_and_not_removed() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    // The third node takes over, on a copy that was made after the backup.
    let third = 3 - it.owner - it.other;
    let policy = json!({"replace_after_ms": 1_000});
    let path = "/v1/settings/failover";
    it.three
        .world
        .change("PATCH", path, Some(policy))
        .await
        .expect(200);
    it.other_leaves().await;
    it.three
        .until(&it.server, |it| it.copies("in_sync").len() == 2)
        .await;
    assert!(
        it.three.nodes[third]
            .state()
            .replicas
            .contains_key(&it.id())
    );
    it.three.kill(it.owner);
    it.three.fence(it.owner).await.expect(200);
    it.three
        .until(&it.server, |it| it.running() && it.0["epoch"] == 2)
        .await;

    it.go_back(&backup).await;
    it.three.come_back(it.owner).await;
    it.three.come_back(it.other).await;
    // By whichever of them answered first.
    it.blocked("adopt what it says").await;
    let adopted = it.adopt(json!({"confirm": "web-1"})).await.expect(200);
    assert_eq!(it.three.index(&adopted.text("/node")), third);
    let shown = it.shown().await;
    let members = shown.copies("in_sync");
    assert_eq!(members.len(), 1, "{:#}", shown.0);
    assert_eq!(it.three.index(&members[0]), third);
    it.three
        .until(&it.server, |it| it.copies("in_sync").len() == 2)
        .await;
    assert!(
        it.three.nodes[third]
            .state()
            .replicas
            .contains_key(&it.id())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_keeps_its_server_where_it_is() {
    let mut it = Forgetful::new().await;
    let level = it.three.world.server("web-2", "static").await;
    let backup = it.backup().await;
    let third = 3 - it.owner - it.other;
    it.three.kill(it.owner);
    it.go_back(&backup).await;
    it.three.fence(it.owner).await.expect(200);
    // The other copy is within reach, but the owner may know that it left.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let shown = it.shown().await;
    assert_eq!(
        (&shown.0["state"], &shown.0["epoch"]),
        (&json!("failed"), &json!(1))
    );
    assert!(
        shown.text_of("error").contains("forgotten"),
        "{:#}",
        shown.0
    );
    assert!(shown.text_of("doubt").contains("asked"), "{:#}", shown.0);
    // A server that the silent node has nothing of does not wait.
    let free = it.three.shown(&level).await;
    // Its copy there has left with the node, but was in sync when the store lost its memory.
    let holders = free.0["replicas"].as_array().unwrap().iter();
    let mut holders = holders.map(|copy| copy["node"].as_str().unwrap());
    let is_its = holders.any(|node| it.three.index(node) == it.owner);
    assert_eq!(free.0["doubt"].is_null(), !is_its, "{:#}", free.0);

    let refused = it.adopt(json!({"confirm": "web-1"})).await.expect(409);
    assert_eq!(refused.text("/type"), "node-away");
    let gone = format!("node-{}", it.owner + 1);
    assert!(refused.text("/detail").contains(&gone), "{refused:?}");
    let wish = json!({"confirm": "web-1", "without": [gone]});
    it.adopt(wish).await.expect(200);
    let up = it.three.until(&it.server, Shown::running).await;
    assert_eq!(it.three.index(&up.text_of("node")), it.other);
    assert_ne!(it.other, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fail_over_that_waits_for_a_node_s_answer_goes_on_by_itself() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.three.kill(it.other);
    it.go_back(&backup).await;
    it.three.kill(it.owner);
    it.three.fence(it.owner).await.expect(200);
    it.three
        .until(&it.server, |it| it.0["state"] == "failed")
        .await;
    it.three.come_back(it.other).await;
    it.three.come_back(it.owner).await;
    it.clear().await;
    it.three.until(&it.server, Shown::running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_copied_over_by_hand_is_noticed() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.other_leaves().await;
    // What an instance saw is kept beside its state; here at a start.
    it.three.world.restart(0).await;
    let before = it.three.world.instances[0].control.term;
    it.stop().await;
    let url = it.three.world.instances[0].control.store_url.clone();
    let file = url.strip_prefix("sqlite://").unwrap();
    // Put in its place, not written over: something of the instance may still have it open.
    let new = format!("{file}.new");
    std::fs::copy(&backup, &new).unwrap();
    std::fs::rename(&new, file).unwrap();
    for beside in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{file}{beside}"));
    }
    it.three.world.restart(0).await;
    assert!(it.three.world.instances[0].control.term != before);
    it.three.come_back(it.other).await;
    it.blocked("other copies in sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_an_earlier_life_is_refused_by_who_was_asked_in_a_later_one() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    let old = it.three.world.instances[0].control.clone();
    let id = it.three.nodes[it.owner].id;
    let node = old.store.nodes().get(id).await.unwrap();
    it.go_back(&backup).await;
    it.clear().await;
    let late = old.nodes.of(&node).unwrap();
    let refused = late.remove_replica(it.id(), 1).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused(problem) if problem.kind == OLD_TERM),
        "{refused:?}"
    );
    assert!(
        it.three.nodes[it.owner]
            .state()
            .replicas
            .contains_key(&it.id())
    );
    // One whose node has heard of a life that the store forgot rises above it.
    it.three.nodes[it.other].state().term += 1_000_000_000_000;
    let heard = it.three.nodes[it.other].state().term;
    it.go_back(&backup).await;
    let since = Instant::now();
    while it.three.world.instances[0].control.term <= heard {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        it.three.world.restart(0).await;
    }
    it.clear().await;
}

/// Control dies at each step of asking, judging and adopting, and starts again.
#[tokio::test(flavor = "multi_thread")]
async fn control_dies_at_each_step_and_the_next_start_ends_it() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.other_leaves().await;
    it.stop().await;
    let url = it.three.world.instances[0].control.store_url.clone();
    backup::restore(&backup, &url).await.unwrap();
    // Nobody who knows better answers yet: it asks again and again.
    it.three.nodes[it.owner].cut();
    for point in ["memory/asked", "memory/judged"] {
        it.three.world.restart(0).await;
        let points = it.three.world.instances[0].failpoints.clone();
        points.set(point, Action::Halt);
        tokio::time::timeout(Duration::from_secs(20), points.halted())
            .await
            .unwrap();
    }
    it.three.world.restart(0).await;
    assert!(it.shown().await.running());
    it.three.nodes[it.owner].mend().await.unwrap();
    it.three.come_back(it.other).await;
    it.blocked("other copies in sync").await;
    assert_eq!(it.happened("server.blocked").await, 1);

    it.three.world.instances[0]
        .failpoints
        .set("memory/adopt", Action::Halt);
    let (url, token) = (
        it.three.world.instances[0].api,
        it.three.world.provider.clone(),
    );
    let path = format!("http://{url}/v1/servers/{}/adopt", it.server);
    let asked = reqwest::Client::new()
        .post(path)
        .bearer_auth(token)
        .header("if-match", "*")
        .json(&json!({"confirm": "web-1"}))
        .timeout(Duration::from_secs(2))
        .send()
        .await;
    assert!(asked.is_err(), "it died over it");
    it.three.world.restart(0).await;
    it.blocked("other copies in sync").await;
    it.adopt(json!({"confirm": "web-1"})).await.expect(200);
    it.three.until(&it.server, Shown::running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_that_notice_ask_and_adopt_at_once_each_happens_once() {
    let database = TestDatabase::new();
    let mut world = World::on(Some(database.url().to_owned())).await;
    world.another_instance().await;
    let mut it = Forgetful::on(world).await;
    let id = it.id();
    it.three.nodes[it.owner]
        .state()
        .replicas
        .get_mut(&id)
        .unwrap()
        .epoch = 5;
    let store = it.three.world.instances[0].control.store.clone();
    store
        .settings()
        .put(Settings::RESTORED, &true, 0)
        .await
        .unwrap();
    // Both notice it, and both are of an earlier life from then on.
    let since = Instant::now();
    for instance in 0..2 {
        let control = it.three.world.instances[instance].control.clone();
        while !control.outlived.is_cancelled() {
            assert!(since.elapsed() < Duration::from_secs(20), "not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let open = store.doubts().all(&DoubtFilter::default()).await.unwrap();
    assert!(
        open.iter().all(|it| it.blocked.is_none()),
        "they ask nobody"
    );
    for instance in 0..2 {
        it.three.world.restart(instance).await;
    }
    let terms: Vec<u64> = (0..2)
        .map(|at| it.three.world.instances[at].control.term)
        .collect();
    assert_eq!(terms[0], terms[1]);
    it.blocked("epoch 5").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(it.happened("server.blocked").await, 1);

    let path = format!("/v1/servers/{}/adopt", it.server);
    let (any, wish) = ([("if-match", "*")], json!({"confirm": "web-1"}));
    let send = |at| {
        let world = &it.three.world;
        world.send(at, &world.provider, "POST", &path, Some(wish.clone()), &any)
    };
    let (one, two) = tokio::join!(send(0), send(1));
    let mut answers = [one.status, two.status];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "{one:?} {two:?}");
    it.three
        .until(&it.server, |it| it.running() && it.0["epoch"] == 6)
        .await;
}

/// A real standby that lacks the newest commit takes the primary's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_that_lacks_a_commit_costs_nothing() {
    let first = Server::start();
    let database = first.create_database();
    let name = database.rsplit('/').next().unwrap().to_owned();
    let second = first.start_standby();
    let url = format!(
        "postgres://postgres@{},{}/{name}",
        first.host(),
        second.host()
    );
    let mut it = Forgetful::on(World::on(Some(url)).await).await;
    let since = Instant::now();
    let count = "SELECT count(*) FROM replicas WHERE state = 'in_sync'";
    while second.replayed(&name, count) != Some("2".to_owned()) {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "it does not follow"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let term = it.three.world.instances[0].control.term;
    second.kill();
    it.other_leaves().await;
    first.kill();
    second.resume();
    second.promote();
    let control = it.three.world.instances[0].control.clone();
    tokio::time::timeout(Duration::from_secs(60), control.outlived.cancelled())
        .await
        .unwrap();
    it.three.world.restart(0).await;
    assert_ne!(it.three.world.instances[0].control.term, term);
    it.three.come_back(it.other).await;
    it.blocked("other copies in sync").await;
    it.adopt(json!({"confirm": "web-1"})).await.expect(200);
    let up = it.three.until(&it.server, Shown::running).await;
    assert_eq!(it.three.index(&up.text_of("node")), it.owner);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_panel_shows_the_fault_and_adopts_where_it_is_shown() {
    let mut it = Forgetful::new().await;
    let backup = it.backup().await;
    it.other_leaves().await;
    it.go_back(&backup).await;
    it.three.come_back(it.other).await;
    it.blocked("other copies in sync").await;
    let mut person = crate::panel::owner(&it.three.world).await;
    let path = format!("/servers/{}", it.server);
    let page = person.get(&path).await.text;
    assert!(page.contains("may have forgotten something"), "{page}");
    assert!(page.contains("other copies in sync"), "{page}");
    let adopt = format!("{path}/adopt");
    let careless = person.post(&adopt, &[("confirm", "web-2")]).await;
    assert_eq!(careless.status, 422, "{careless:?}");
    let adopted = person.post(&adopt, &[("confirm", "web-1")]).await;
    assert_eq!((adopted.status, &adopted.to), (303, &path), "{adopted:?}");
    it.clear().await;
    let page = person.get(&path).await.text;
    assert!(!page.contains("may have forgotten something"), "{page}");
}
