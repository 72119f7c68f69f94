//! The agent: everything that the node holds and runs, in one place.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;
use undine_api::Problem;
use undine_api::internal::NodeReport;
use undine_api::node::{
    Inventory, NodeStatus, ReplicaSpec, ReplicaStatus, ServerStatus, SlotsSpec, StartSpec,
};
use undine_model::ServerId;

use crate::inventory;
use crate::problems;
use crate::report::Changed;
use crate::server::{self, Ground, Handle, phase, record};
use crate::settings::Declared;
use crate::terms::Terms;
use crate::usage::{Round, Sampler};

/// The agent of one node.
pub struct Agent {
    ground: Arc<Ground>,
    declared: Declared,
    servers: std::sync::Mutex<BTreeMap<ServerId, Handle>>,
    inventory: std::sync::RwLock<Inventory>,
    sampler: Mutex<Sampler>,
    last: std::sync::Mutex<Option<NodeReport>>,
}

impl Agent {
    /// The agent on this ground; takes over the servers that are here.
    pub fn new(ground: Arc<Ground>, declared: Declared) -> Arc<Self> {
        let inventory = inventory::read(&declared, &ground.state_dir, &ground.host.fixed());
        let servers = record::known(&ground.state_dir)
            .into_iter()
            .map(|server| (server, server::spawn(ground.clone(), server)))
            .collect();
        Arc::new(Self {
            ground,
            declared,
            servers: std::sync::Mutex::new(servers),
            inventory: std::sync::RwLock::new(inventory),
            sampler: Mutex::default(),
            last: std::sync::Mutex::default(),
        })
    }

    /// What servers stand on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The same, for work that outlives a request.
    pub fn shared_ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Tells the reporter.
    pub fn changed(&self) -> &Changed {
        &self.ground.changed
    }

    /// A server that is, or was, here.
    ///
    /// # Errors
    /// It is not known here.
    pub fn server(&self, server: ServerId) -> Result<Handle, Problem> {
        self.lock()
            .get(&server)
            .cloned()
            .ok_or_else(|| problems::absent(server))
    }

    /// Starts a server, or tells how far it is.
    ///
    /// # Errors
    /// The epoch is over, or something that it needs is missing.
    pub async fn start(&self, server: ServerId, spec: StartSpec) -> Result<ServerStatus, Problem> {
        let handle = self
            .lock()
            .entry(server)
            .or_insert_with(|| server::spawn(self.ground.clone(), server))
            .clone();
        handle.start(spec).await
    }

    /// Forgets a server that does not run.
    ///
    /// # Errors
    /// It runs, or the epoch is over.
    pub async fn forget(&self, server: ServerId, epoch: u64) -> Result<(), Problem> {
        let Ok(handle) = self.server(server) else {
            return Ok(());
        };
        handle.forget(epoch).await?;
        self.lock().remove(&server);
        self.changed().tell();
        Ok(())
    }

    /// Creates or opens a replica, or tells how it stands.
    ///
    /// # Errors
    /// The epoch is over, the disk says no, or a resync would take a running server's own disk.
    pub async fn put_replica(
        &self,
        server: ServerId,
        spec: &ReplicaSpec,
    ) -> Result<ReplicaStatus, Problem> {
        if spec.resync {
            self.runs_not(server)?;
        }
        self.ground.replicas.put(server, spec).await
    }

    fn runs_not(&self, server: ServerId) -> Result<(), Problem> {
        match self.server(server) {
            Ok(handle) if phase::has_vm(handle.status().phase) => {
                let detail = format!("it is {}", server::words(handle.status().phase));
                Err(
                    Problem::new(409, "server-runs", "The server runs here", detail)
                        .remedy("stop it first"),
                )
            }
            _ => Ok(()),
        }
    }

    /// Lets failed replicas leave that control has committed not to be in sync. What it has
    /// committed is on disk before the first of them leaves.
    ///
    /// # Errors
    /// The server is not known here or does not run, or the request is old.
    pub async fn slots(&self, server: ServerId, spec: SlotsSpec) -> Result<ServerStatus, Problem> {
        let handle = self.server(server)?;
        let replicas = &self.ground.replicas;
        replicas.note(server, Some(&spec.committed())).await?;
        handle.slots(spec).await
    }

    /// The highest term of control's store that was heard.
    pub fn terms(&self) -> &Terms {
        &self.ground.terms
    }

    /// Removes a replica; with the last trace of its server, the server is forgotten too.
    ///
    /// # Errors
    /// The server runs here, or the epoch is over.
    pub async fn remove_replica(&self, server: ServerId, epoch: u64) -> Result<(), Problem> {
        self.runs_not(server)?;
        self.ground.replicas.delete(server, epoch).await?;
        self.forget(server, epoch).await
    }

    /// What the node is and runs.
    pub async fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.ground.node,
            inventory: self.inventory(),
            images: self.ground.images.present(),
            servers: self
                .handles()
                .iter()
                .map(|(_, handle)| handle.status())
                .collect(),
            replicas: self.ground.replicas.statuses().await,
            term: Some(self.ground.terms.heard()),
        }
    }

    /// What the node is made of, as last read.
    pub fn inventory(&self) -> Inventory {
        self.inventory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A report; a `regular` one reads the inventory and all counters again, one in between
    /// repeats no samples.
    pub async fn report(&self, regular: bool) -> NodeReport {
        let round = if regular {
            self.read_inventory().await;
            let mut sampler = self.sampler.lock().await;
            sampler
                .round(&self.ground, &self.inventory(), &self.handles())
                .await
        } else {
            self.last_usage()
        };
        let report = NodeReport {
            status: self.status().await,
            usage: round.node,
            servers: round.servers,
            sites: round.sites,
        };
        if regular {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        }
        report
    }

    /// The last regular report, for Prometheus.
    pub fn last_report(&self) -> Option<NodeReport> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn last_usage(&self) -> Round {
        let last = self.last_report();
        Round {
            node: last.map(|report| report.usage).unwrap_or_default(),
            ..Round::default()
        }
    }

    async fn read_inventory(&self) {
        let (declared, folder) = (self.declared.clone(), self.ground.state_dir.clone());
        let fixed = self.ground.host.fixed();
        let read = tokio::task::spawn_blocking(move || inventory::read(&declared, &folder, &fixed));
        if let Ok(found) = read.await {
            *self
                .inventory
                .write()
                .unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    fn handles(&self) -> Vec<(ServerId, Handle)> {
        self.lock()
            .iter()
            .map(|(server, handle)| (*server, handle.clone()))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Handle>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
