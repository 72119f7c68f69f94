//! A hardware node at the wire: it joins with a real token, serves the real paths under mutual TLS
//! and remembers what it was asked. Its servers are records; its guests apply manifests as the
//! real ones must, and refuse a delta whose base they do not have.

mod guest;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use undine_api::Problem;
use undine_api::internal::{JoinRequest, NodeReport, NodeUsage, Role};
use undine_api::node::{Inventory, NodeStatus, Phase, ReplicaState, ReplicaStatus};
use undine_link::{ControlClient, Credentials, JoinToken, Method};
use undine_model::{Bytes, MilliCpu, NodeId, ReplicaId, ServerId};

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
    /// Replicas: the epoch and whether the file was made.
    pub replicas: BTreeMap<ServerId, u64>,
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
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
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
        Ok(Self {
            id,
            credentials,
            guard,
            address,
            inner,
            serving,
        })
    }

    /// What it holds, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
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
        self.serving = serve::start(listener, &self.credentials, self.inner.clone());
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

    /// Reports to control.
    pub async fn send_report(&self, control: SocketAddr) -> anyhow::Result<()> {
        let client = ControlClient::new(self.credentials.clone(), &[control])?;
        let deadline = std::time::Duration::from_secs(10);
        let path = "/internal/v1/nodes/report";
        Ok(client
            .call(Method::POST, path, Some(&self.report()), deadline)
            .await?)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
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
                .map(|(id, epoch)| held(*id, *epoch))
                .collect(),
        }
    }
}

fn held(server: ServerId, epoch: u64) -> ReplicaStatus {
    ReplicaStatus {
        server,
        replica: ReplicaId::from_uuid(server.uuid()),
        epoch,
        state: ReplicaState::Closed,
        export: None,
        address: None,
        key: None,
        size: Bytes::gib(1),
        used: Bytes(0),
    }
}
