//! A hardware node at the wire: it joins with a real token, serves the real paths under mutual TLS
//! and remembers what it was asked. Its servers are records; its guests apply manifests as the
//! real ones must, and refuse a delta whose base they do not have.

mod disk;
mod files;
mod guard;
mod guest;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use undine_api::Problem;
use undine_api::internal::{JoinRequest, NodeReport, NodeUsage, Role};
use undine_api::node::{Inventory, NodeStatus, Phase};
use undine_link::{ControlClient, Credentials, JoinToken, Method};
use undine_model::{Bytes, MilliCpu, NodeId, OperationId, ReplicaId, ServerId};

pub use disk::{FakeReplica, FakeSlot};
pub use guest::FakeGuest;

/// A fake node; dropped, it stops answering.
pub struct FakeNode {
    /// Its id.
    pub id: NodeId,
    /// What it and its guard may show to control.
    pub credentials: Credentials,
    /// Its guard's.
    pub guard: Credentials,
    address: SocketAddr,
    inner: Arc<Inner>,
    serving: CancellationToken,
    renewing: CancellationToken,
}

pub(crate) struct Inner {
    id: NodeId,
    state: Mutex<State>,
}

/// What a fake node holds.
#[derive(Default)]
pub struct State {
    /// Image hashes.
    pub images: BTreeSet<String>,
    /// Copies of disks.
    pub replicas: BTreeMap<ServerId, FakeReplica>,
    /// Nodes that its guard cannot reach.
    pub unreachable: BTreeSet<NodeId>,
    /// Joins stay at half until this is false again.
    pub hold_joins: bool,
    /// Comparisons stay at half until this is false again.
    pub hold_scrubs: bool,
    /// Copies that a comparison will find to differ from this node's own.
    pub differing: BTreeSet<ReplicaId>,
    /// The highest term of control's store that was heard.
    pub term: u64,
    /// Servers.
    pub servers: BTreeMap<ServerId, FakeServer>,
    /// Every request, as `METHOD path` or `guest <ask>`.
    pub calls: Vec<String>,
    /// The next requests whose call begins so are refused with this.
    pub faults: Vec<(String, Problem)>,
    /// Domains that the guests cannot apply, and why.
    pub bad_domains: BTreeMap<String, String>,
}

/// A server on a fake node.
#[derive(Default)]
pub struct FakeServer {
    /// Under which epoch.
    pub epoch: u64,
    /// Is it up?
    pub running: bool,
    /// The slots of its disk.
    pub slots: Vec<FakeSlot>,
    /// Which comparison of each copy was begun last.
    pub scrubs: BTreeMap<ReplicaId, OperationId>,
    /// Copies of which it is not known what they lack.
    pub distrusted: BTreeSet<ReplicaId>,
    /// The highest version of its record that it was told.
    pub version: u64,
    /// The agent inside.
    pub guest: FakeGuest,
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a call; a fault that was set for it comes back once.
    pub(crate) fn called(&self, call: &str) -> Result<(), Problem> {
        let mut state = self.state();
        state.calls.push(call.to_owned());
        match state
            .faults
            .iter()
            .position(|(prefix, _)| call.starts_with(prefix.as_str()))
        {
            Some(at) => Err(state.faults.remove(at).1),
            None => Ok(()),
        }
    }
}

/// A node with this much memory; disk and CPU are plenty.
pub fn inventory(memory: Bytes) -> Inventory {
    Inventory {
        cpu: MilliCpu(16_000),
        memory,
        disk: Bytes::gib(500),
        disk_used: Bytes(0),
        cpu_model: "fake".to_owned(),
        accelerator: "tcg".to_owned(),
        accelerator_reason: "a fake".to_owned(),
        qemu: "10.0".to_owned(),
        agent: "0.1.0".to_owned(),
        kernel: "6.12".to_owned(),
    }
}

impl FakeNode {
    /// Joins with this token and serves.
    pub async fn join(token: &str, name: &str, memory: Bytes) -> anyhow::Result<Self> {
        let token: JoinToken = token.parse()?;
        let (listener, beside) = disk::two_ports().await?;
        let address = listener.local_addr()?;
        let (key, csr) = undine_link::csr()?;
        let (guard_key, guard_csr) = undine_link::csr()?;
        let request = JoinRequest {
            secret: token.secret.clone(),
            role: Role::Node,
            name: name.parse()?,
            csr,
            guard_csr: Some(guard_csr),
            address,
            inventory: Some(inventory(memory)),
        };
        let answer = undine_link::join(&token, &request).await?;
        let credentials = Credentials {
            key,
            certificate: answer.certificate,
            ca: answer.ca.clone(),
        };
        let guard = Credentials {
            key: guard_key,
            certificate: answer
                .guard_certificate
                .context("no certificate for the guard")?,
            ca: answer.ca,
        };
        let id: NodeId = answer.id.parse()?;
        let inner = Arc::new(Inner {
            id,
            state: Mutex::default(),
        });
        let serving = serve::start(listener, &credentials, inner.clone());
        guard::start(beside, &guard, inner.clone(), serving.clone());
        Ok(Self {
            id,
            credentials,
            guard,
            address,
            inner,
            serving,
            renewing: CancellationToken::new(),
        })
    }

    /// What it holds, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    /// Another line in the log of a site of its first server.
    ///
    /// # Panics
    /// It has no server.
    pub fn logs(&self, line: &str) {
        let mut state = self.state();
        let server = state.servers.values_mut().next().expect("it has a server");
        server.guest.log.push(line.to_owned());
    }

    /// How often it was asked something that begins so.
    pub fn count(&self, prefix: &str) -> usize {
        self.state()
            .calls
            .iter()
            .filter(|call| call.starts_with(prefix))
            .count()
    }

    /// Refuses the next request that begins so.
    pub fn fail_next(&self, prefix: &str, status: u16, kind: &str) {
        let problem = Problem::new(
            status,
            kind,
            "A fault of the test",
            format!("the test says {kind}"),
        );
        self.state().faults.push((prefix.to_owned(), problem));
    }

    /// Stops answering, as when its network is cut.
    pub fn cut(&self) {
        self.serving.cancel();
    }

    /// Its guard renews the lease with these instances until it is cut or killed.
    pub fn renew(&self, instances: &[SocketAddr]) -> anyhow::Result<()> {
        guard::renew(&self.guard, instances, self.renewing.clone())
    }

    /// Dies whole: nothing answers, nothing is renewed, no server runs, every daemon is gone.
    pub fn die(&self) {
        self.renewing.cancel();
        self.serving.cancel();
        let mut state = self.state();
        for server in state.servers.values_mut() {
            server.running = false;
        }
        for replica in state.replicas.values_mut() {
            replica.die();
        }
    }

    /// Nobody reaches it any more, but everything on it goes on.
    pub fn isolate(&self) {
        self.renewing.cancel();
        self.serving.cancel();
    }

    /// A copy on this node fails: its daemon is gone, and the owner's slot says so.
    pub fn lose_daemon(&self, server: ServerId) {
        if let Some(replica) = self.state().replicas.get_mut(&server) {
            replica.die();
        }
    }

    /// The slot of this copy fails on the owner, which is this node.
    pub fn fail_slot(&self, server: ServerId, copy: ReplicaId) {
        if let Some(server) = self.state().servers.get_mut(&server) {
            server.fail(copy);
        }
    }

    /// Answers again, at the same address.
    pub async fn mend(&mut self) -> anyhow::Result<()> {
        let mut tries = 0;
        let listener = loop {
            match tokio::net::TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) if tries > 50 => return Err(error.into()),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
            tries += 1;
        };
        let beside = SocketAddr::new(self.address.ip(), self.address.port() + 1);
        let beside = tokio::net::TcpListener::bind(beside).await?;
        self.serving = serve::start(listener, &self.credentials, self.inner.clone());
        self.renewing = CancellationToken::new();
        let (inner, serving) = (self.inner.clone(), self.serving.clone());
        guard::start(beside, &self.guard, inner, serving);
        Ok(())
    }

    /// What it would report now.
    pub fn report(&self) -> NodeReport {
        NodeReport {
            status: self.inner.status(),
            usage: NodeUsage {
                cpu: 0.25,
                memory: Bytes::mib(300),
                ..NodeUsage::default()
            },
            servers: Vec::new(),
            sites: Vec::new(),
        }
    }

    /// Reports to control, and again while it is busy, as an agent does.
    pub async fn send_report(&self, control: SocketAddr) -> anyhow::Result<()> {
        let client = ControlClient::new(self.credentials.clone(), &[control])?;
        let deadline = std::time::Duration::from_secs(10);
        let path = "/internal/v1/nodes/report";
        let mut tries = 0;
        loop {
            let sent = client
                .call::<serde_json::Value>(Method::POST, path, Some(&self.report()), deadline)
                .await;
            match sent {
                Err(error) if error.is_transient() && tries < 20 => tries += 1,
                sent => return Ok(sent.map(drop)?),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.renewing.cancel();
        self.serving.cancel();
    }
}

impl Inner {
    fn status(&self) -> NodeStatus {
        let state = self.state();
        NodeStatus {
            node: self.id,
            inventory: inventory(Bytes::gib(8)),
            images: state.images.iter().cloned().collect(),
            servers: state
                .servers
                .iter()
                .map(|(id, server)| serve::status(*id, server))
                .filter(|status| status.phase != Phase::Absent)
                .collect(),
            replicas: state
                .replicas
                .iter()
                .map(|(id, replica)| replica.status(*id))
                .collect(),
            term: Some(state.term),
        }
    }
}
