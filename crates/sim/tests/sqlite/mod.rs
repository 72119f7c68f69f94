//! The real store on SQLite, under the simulator: every record that is decided by is read from it,
//! every claim and every change is committed to it, and going back is a restore of its backup. The
//! simulator stays on one thread; each call waits here for the store's answer.
//!
//! What whoever merely looks on is shown was read back after the last change.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use undine_failover::membership::Record;
use undine_model::ServerId;
use undine_model::lifecycle::{NodeState, OperationState};
use undine_sim::{Bug, Claim, Counts, Database, Founding, World, ids};
use undine_store::{Db, Node, NodeFilter, Result, Store};

mod changes;
mod database;
mod rows;

use rows::{instance_id, operation_id};

/// Runs one seed on SQLite.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Counts, String> {
    World::on(seed, bug, false, |it| Box::new(Sqlite::new(&it))).run()
}

/// The same, with everything that happened.
pub fn replay(seed: u64, bug: Option<Bug>) -> (Result<Counts, String>, Vec<String>) {
    undine_sim::told(World::on(seed, bug, true, |it| Box::new(Sqlite::new(&it))))
}

/// Backups that are kept: a store forgets no more commits than this.
const PAST: usize = 4;

/// What was read last.
struct Picture {
    records: Vec<Record>,
    nodes: Vec<Node>,
    fenced: Vec<bool>,
    routes: Vec<u64>,
    blocked: Vec<bool>,
    claims: Vec<Claim>,
}

/// The database.
pub struct Sqlite {
    /// The connections of every life, the last one's open: what was begun in an earlier life is
    /// refused because its connection is gone.
    lives: Vec<Store>,
    terms: Vec<u64>,
    picture: Picture,
    /// Files of backups, the oldest first.
    past: Vec<PathBuf>,
    backups: u64,
    servers: Vec<ServerId>,
    instances: usize,
    compares: bool,
    /// Rises with every change: the store is told the time and never reads it.
    now: i64,
    runtime: Runtime,
    folder: TempDir,
}

/// In memory where there is such a folder: what is tested survives no power loss.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder for the database")
}

fn url(folder: &Path) -> String {
    format!("sqlite://{}", file(folder).display())
}

fn file(folder: &Path) -> PathBuf {
    folder.join("control.db")
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// A migrated database in its first life; each seed begins with a copy.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let (folder, to) = (folder(), folder());
        let made = runtime().block_on(async {
            let store = Store::connect(&url(folder.path())).await?;
            store.migrate().await?;
            changes::begin_life(&store, 0).await?;
            store.backup(&file(to.path())).await?;
            store.close().await;
            Ok::<_, undine_store::StoreError>(())
        });
        made.expect("an empty database");
        to
    });
    made.path()
}

async fn furnish(store: &Store, founding: &Founding) -> Result<()> {
    let tx = store.begin().await?;
    for number in 0..founding.nodes {
        tx.nodes().insert(&rows::node(number)).await?;
    }
    for number in 0..founding.instances {
        tx.instances().insert(&rows::instance(number)).await?;
    }
    for (number, record) in founding.records.iter().enumerate() {
        let server = rows::server(number, record);
        tx.servers().insert(&server).await?;
        for it in &record.replicas {
            tx.replicas().insert(&rows::copy(record, it)).await?;
        }
        let operation = rows::operation(number, server.id);
        tx.operations().create(&operation, &[]).await?;
    }
    tx.commit().await?;
    for (number, record) in founding.records.iter().enumerate() {
        changes::move_route(store, number, record.epoch, 0).await?;
    }
    Ok(())
}

impl Sqlite {
    /// One that holds this.
    pub fn new(founding: &Founding) -> Self {
        let (runtime, folder) = (runtime(), folder());
        std::fs::copy(file(template()), file(folder.path())).expect("a copy of the template");
        let opened = runtime.block_on(async {
            let store = Store::connect(&url(folder.path())).await?;
            furnish(&store, founding).await?;
            let term = store.life().now().await?.term;
            Ok::<_, undine_store::StoreError>((store, term))
        });
        let (store, term) = opened.expect("a database");
        let mut made = Self {
            lives: vec![store],
            terms: vec![term],
            picture: Picture {
                records: founding.records.clone(),
                nodes: Vec::new(),
                fenced: Vec::new(),
                routes: vec![0; founding.records.len()],
                blocked: vec![false; founding.records.len()],
                claims: vec![None; founding.records.len()],
            },
            past: Vec::new(),
            backups: 0,
            servers: founding.records.iter().map(|it| it.server).collect(),
            instances: founding.instances,
            compares: founding.compares,
            now: 0,
            runtime,
            folder,
        };
        made.read_all();
        made
    }

    /// Waits for the store. It is always there: whether it can be reached is the simulator's.
    fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> T {
        let answer = self.runtime.block_on(question);
        answer.unwrap_or_else(|error| panic!("the store: {error:?}"))
    }

    fn store(&self) -> Store {
        self.lives[self.lives.len() - 1].clone()
    }

    fn read_all(&mut self) {
        self.read_nodes();
        for server in 0..self.servers.len() {
            self.read(server);
            self.read_claim(server);
            self.read_route(server);
            self.read_doubt(server);
        }
    }

    fn read_nodes(&mut self) {
        let store = self.store();
        let mut nodes = self.ask(store.nodes().all(&NodeFilter::default()));
        nodes.sort_by_key(|it| ids::number(it.id));
        let fenced = nodes.iter().map(|it| it.state == NodeState::Fenced);
        self.picture.fenced = fenced.collect();
        self.picture.nodes = nodes;
    }

    fn read_claim(&mut self, server: usize) {
        let store = self.store();
        let found = self.ask(store.operations().get(operation_id(server)));
        let owner = found
            .owner
            .filter(|_| found.state == OperationState::Running);
        let number = |id| (0..self.instances).find(|it| instance_id(*it) == id);
        let until = found.lease_until.unsigned_abs();
        self.picture.claims[server] = owner.and_then(number).map(|it| (it, until));
    }

    fn read_route(&mut self, server: usize) {
        let store = self.store();
        self.picture.routes[server] = self.ask(changes::route(&store, server));
    }

    fn read_doubt(&mut self, server: usize) {
        let store = self.store();
        let doubt = self.ask(store.doubts().find(self.servers[server]));
        self.picture.blocked[server] = doubt.is_some_and(|it| it.blocked.is_some());
    }

    /// A change that it may forget again: a backup says how it stood before. Tells whether it was
    /// made.
    fn change(&mut self, change: impl Future<Output = Result<bool>>) -> bool {
        self.backups += 1;
        let before = self.folder.path().join(format!("backup-{}", self.backups));
        self.ask(self.store().backup(&before));
        let is_made = self.ask(change);
        if is_made {
            self.past.push(before);
        } else {
            remove(&before);
        }
        if self.past.len() > PAST {
            remove(&self.past.remove(0));
        }
        is_made
    }

    /// The time of the next change.
    fn tick(&mut self) -> i64 {
        self.now += 1;
        self.now
    }
}

fn remove(file: &Path) {
    std::fs::remove_file(file).expect("a backup that was made");
}
