//! Control's own commits about membership and fail-over, with the records in a real SQLite, under
//! seeds of crashes and races. The simulator (`crates/sim`) runs the rules over a store in memory,
//! a thousand times as often; here it is the transactions, the reads between them, and a store
//! that is really put back that are tried. After every step each copy that the record calls in
//! sync has every acknowledged write.
//!
//! `UNDINE_SEED=17` runs one seed, `UNDINE_SEEDS=500` that many.

mod deeds;
mod machines;

use std::path::{Path, PathBuf};

use undine_control::commands::run::open;
use undine_control::control::Control;
use undine_control::failpoint::Failpoints;
use undine_control::state_dir::StateDir;
use undine_model::lifecycle::{NodeState, ServerState};
use undine_model::{Bytes, MilliCpu, ServerId};
use undine_store::{Db, NEW, Node, Replica, ReplicaState, Server, Wanted, backup};

use self::machines::{Copy, Machine, Machines, Order};
use crate::world::World;

const NODES: usize = 4;
const SERVERS: usize = 2;
const STEPS: usize = 60;
const SEEDS: u64 = 200;

/// Numbers that only the seed decides (splitmix).
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// One run.
pub struct Run {
    dice: Dice,
    folder: tempfile::TempDir,
    /// Two instances over one file; they read and commit side by side.
    controls: Vec<Control>,
    machines: Machines,
    servers: Vec<ServerId>,
    /// Orders that are under way.
    late: Vec<Order>,
    /// A backup that was taken.
    past: Option<PathBuf>,
    tape: Vec<String>,
}

impl Run {
    fn note(&mut self, what: impl Into<String>) {
        self.tape.push(what.into());
    }

    async fn new(seed: u64, template: &Path) -> Self {
        let folder = folder();
        let state = StateDir::new(folder.path().join("state"));
        state.create().unwrap();
        for file in std::fs::read_dir(template.join("control-1")).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), state.path().join(file.file_name())).unwrap();
            }
        }
        std::fs::copy(template.join("backup"), folder.path().join("db")).unwrap();
        let mut who = state.instance().unwrap();
        who.store_url = format!("sqlite://{}", folder.path().join("db").display());
        state.write_instance(&who).unwrap();
        let mut run = Self {
            dice: Dice(seed),
            folder,
            controls: Vec::new(),
            machines: Machines::default(),
            servers: Vec::new(),
            late: Vec::new(),
            past: None,
            tape: Vec::new(),
        };
        run.start().await;
        run.furnish().await;
        run
    }

    async fn start(&mut self) {
        let state = StateDir::new(self.folder.path().join("state"));
        for _ in 0..2 {
            let control = open(&state, Failpoints::default()).await.unwrap();
            self.controls.push(control);
        }
        // The second one may have begun a life of its own.
        let term = self.controls[1].term;
        assert_eq!(self.controls[0].term, term, "a life begins once");
    }

    async fn close(&mut self) {
        for control in std::mem::take(&mut self.controls) {
            control.store.close().await;
        }
    }

    async fn furnish(&mut self) {
        let store = self.controls[0].store.clone();
        for number in 0..NODES {
            let node = node(number);
            store.nodes().insert(&node).await.unwrap();
            self.machines.all.push(Machine {
                id: node.id,
                is_up: true,
                term: Default::default(),
                copies: Default::default(),
                vms: Default::default(),
            });
        }
        for number in 0..SERVERS {
            let first = self.dice.below(NODES);
            let count = 2 + self.dice.below(2);
            let owner = self.machines.all[first].id;
            let server = server(number, owner, count);
            store.servers().insert(&server).await.unwrap();
            for at in 0..count {
                let machine = &mut self.machines.all[(first + at) % NODES];
                let copy = replica(server.id, machine.id);
                store.replicas().insert(&copy).await.unwrap();
                machine.copies.insert(
                    server.id,
                    Copy {
                        id: copy.id,
                        epoch: 0,
                        state: undine_api::node::ReplicaState::Closed,
                        word: None,
                        has: 0,
                    },
                );
            }
            self.servers.push(server.id);
            self.bring_up(0, server.id).await;
        }
    }

    /// Whoever is in sync, as committed, has every acknowledged write. A server in doubt is not
    /// believed by control either.
    async fn check(&mut self) {
        let store = self.controls[0].store.clone();
        for id in self.servers.clone() {
            if store.doubts().find(id).await.unwrap().is_some() {
                continue;
            }
            let server = store.servers().get(id).await.unwrap();
            let copies = undine_control::copies::of(&store, id).await.unwrap();
            let record = undine_control::copies::record(&server, &copies);
            let well = undine_failover::membership::well_formed(&record);
            well.unwrap_or_else(|why| panic!("{why}: {record:?}"));
            let acked = self.machines.acked.get(&id).copied().unwrap_or_default();
            for member in record.in_sync_ids() {
                let has = self.machines.copy(id, member).map(|it| it.has);
                assert_eq!(has, Some(acked), "copy {member} of {record:#?}");
            }
        }
    }

    async fn step(&mut self) {
        let server = self.servers[self.dice.below(SERVERS)];
        let at = self.dice.below(NODES);
        let by = self.dice.below(2);
        match self.dice.below(20) {
            0..=4 => self.machines.write(server),
            5 if self.machines.all[at].is_up => {
                self.note(format!("node {at} goes down"));
                self.machines.down(at);
            }
            5 | 6 => {
                self.note(format!("node {at} is up"));
                self.machines.all[at].is_up = true;
            }
            7 => {
                self.note(format!("a daemon ends on node {at}"));
                self.machines.daemon_ends(at, server);
            }
            8 | 9 => self.degrade(by, server).await,
            10 => self.fence(by, at).await,
            11 => self.welcome(by, at).await,
            12 | 13 => self.take_over(by, server).await,
            14 => self.bring_up(by, server).await,
            15 | 16 => self.replicate(by, server).await,
            17 => self.race(server).await,
            18 => self.arrive(),
            _ => self.memory().await,
        }
    }

    /// An order that was under way arrives.
    fn arrive(&mut self) {
        if !self.late.is_empty() {
            let at = self.dice.below(self.late.len());
            let order = self.late.swap_remove(at);
            let done = self.machines.obey(&order);
            self.note(format!("late, {done}: {order:?}"));
        }
    }

    /// A backup is taken, or put back; and nodes are asked.
    async fn memory(&mut self) {
        match (&self.past, self.dice.below(3)) {
            (None, _) => {
                let file = self.folder.path().join("backup");
                self.controls[0].store.backup(&file).await.unwrap();
                self.past = Some(file);
                self.note("a backup is taken");
            }
            (Some(file), 0) => {
                let file = file.clone();
                let url = self.controls[0].store_url.clone();
                self.close().await;
                backup::restore(&file, &url).await.unwrap();
                self.start().await;
                std::fs::remove_file(&file).unwrap();
                self.past = None;
                self.note("THE STORE GOES BACK");
            }
            _ => self.ask().await,
        }
    }

    /// Everything is mended: every server comes up again.
    async fn mend(&mut self) {
        for round in 0..40 {
            for at in 0..NODES {
                self.machines.all[at].is_up = true;
                self.welcome(0, at).await;
            }
            self.ask().await;
            let mut are_up = true;
            for server in self.servers.clone() {
                self.degrade(0, server).await;
                self.take_over(0, server).await;
                self.bring_up(0, server).await;
                self.check().await;
                let before = self.machines.acked.get(&server).copied();
                self.machines.write(server);
                are_up &= self.machines.acked.get(&server).copied() > before;
            }
            if are_up {
                return;
            }
            self.note(format!("mending, round {round}"));
        }
        panic!("a server does not come up again");
    }
}

fn folder() -> tempfile::TempDir {
    // Memory: what is tried is not the disk.
    if Path::new("/dev/shm").is_dir() {
        tempfile::tempdir_in("/dev/shm").unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn node(number: usize) -> Node {
    Node {
        id: undine_control::clock::new_id(),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        name: format!("node-{number}").parse().unwrap(),
        state: NodeState::Ready,
        address: "127.0.0.1".parse().unwrap(),
        port: 1,
        storage_address: None,
        rack: None,
        certificate_serial: None,
        certificate_expires_at: None,
        inventory: serde_json::json!(undine_testkit::node::inventory(Bytes::gib(64))),
        capacity: serde_json::json!({}),
        accelerator: "tcg".to_owned(),
        versions: serde_json::json!({}),
        last_report_at: None,
        cordoned: false,
        fenced_at: None,
        bmc: None,
    }
}

fn server(number: usize, owner: undine_model::NodeId, copies: usize) -> Server {
    let low = u8::try_from(number).unwrap() + 1;
    Server {
        id: undine_control::clock::new_id(),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        name: format!("web-{number}").parse().unwrap(),
        profile: "static".parse().unwrap(),
        image_hash: None,
        node: Some(owner),
        state: ServerState::Starting,
        wanted: Wanted::Running,
        epoch: 1,
        memory: Bytes::mib(256),
        vcpus: 1,
        cpu: MilliCpu(100),
        disk: Bytes::gib(1),
        replica_count: u32::try_from(copies).unwrap(),
        slots: u32::try_from(copies).unwrap(),
        importance: 5,
        blank: false,
        template: true,
        smtp: false,
        mac: format!("02:75:6e:00:01:{low:02x}"),
        ipv4: std::net::Ipv4Addr::new(10, 214, 1, low),
        ipv6: format!("fd5e:d1e0:214::{low:x}").parse().unwrap(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        machine: None,
        cpu_model: None,
        operation: None,
        error: None,
        reason: String::new(),
        manifest_version: 0,
        manifest_applied: 0,
        scrubbed_at: None,
    }
}

fn replica(server: ServerId, node: undine_model::NodeId) -> Replica {
    Replica {
        id: undine_control::clock::new_id(),
        version: NEW,
        created_at: 0,
        updated_at: 0,
        server,
        node,
        epoch: 1,
        state: ReplicaState::InSync,
        bytes: Bytes(0),
        left_epoch: None,
        left_at: None,
        error: None,
    }
}

async fn run(seed: u64, template: PathBuf) -> Result<(), String> {
    let mut run = Run::new(seed, &template).await;
    let task = async {
        for _ in 0..STEPS {
            run.step().await;
            run.check().await;
        }
        run.mend().await;
        run.close().await;
    };
    let ended = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(task)).await;
    ended.map_err(|_| {
        let tape = run.tape.join("\n  ");
        format!("seed {seed}:\n  {tape}\nagain with UNDINE_SEED={seed}")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_of_crashes_and_races_lose_no_acknowledged_write_on_a_real_sqlite() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|it| it.parse::<u64>().ok())
    };
    let seeds = match number("UNDINE_SEED") {
        Some(one) => one..one + 1,
        None => 0..number("UNDINE_SEEDS").unwrap_or(SEEDS),
    };
    // What `init` makes is the same for all.
    let world = World::new().await;
    let template = world.folder.path().to_owned();
    let store = world.instances[0].control.store.clone();
    store.backup(&template.join("backup")).await.unwrap();
    let mut failed: Vec<String> = Vec::new();
    let mut running: tokio::task::JoinSet<Result<(), String>> = tokio::task::JoinSet::new();
    for seed in seeds {
        if running.len() >= 4 {
            failed.extend(running.join_next().await.unwrap().unwrap().err());
        }
        running.spawn(run(seed, template.clone()));
    }
    while let Some(ended) = running.join_next().await {
        failed.extend(ended.unwrap().err());
    }
    assert!(
        failed.is_empty(),
        "{} seeds failed; {}",
        failed.len(),
        failed[0]
    );
}
