//! What nodes, guards, edges and further instances say to control: HTTPS under the cluster's CA,
//! JSON, below `/internal/v1`, each path open to the roles named here and to nobody else.
//!
//! | method and path | who | body → answer |
//! |---|---|---|
//! | `POST /internal/v1/join` | anyone with a token | [`JoinRequest`] → [`JoinAnswer`] |
//! | `POST /internal/v1/renew` | every role | [`RenewRequest`] → [`RenewAnswer`] (a fresh certificate) |
//! | `GET /internal/v1/instances` | every role | → [`Instances`] |
//! | `POST /internal/v1/lease` | guard | [`LeaseRequest`] → [`LeaseAnswer`] |
//! | `GET /internal/v1/heard` | control | → [`Heard`] |
//! | `POST /internal/v1/nodes/report` | node | [`NodeReport`] → nothing |
//! | `GET /internal/v1/blobs/{sha256}` | node, control | → the file, ranges allowed |
//! | `GET /internal/v1/routes` | edge | → [`crate::edge::RouteUpdate`] |
//! | `POST /internal/v1/edges/report` | edge | [`crate::edge::EdgeReport`] → nothing |
//!
//! Errors are [`crate::Problem`]s.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use undine_model::{Bytes, NodeId, ServerId, SiteId, Slug};

use crate::guard::{Owned, Peer};
use crate::node::{Inventory, NodeStatus};

/// What a program of the cluster is, as its certificate says: `undine://role/id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// An instance of control.
    Control,
    /// A hardware node's agent.
    Node,
    /// A hardware node's guard; its id is the node's.
    Guard,
    /// A public door.
    Edge,
}

impl Role {
    /// As it stands in certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Node => "node",
            Self::Guard => "guard",
            Self::Edge => "edge",
        }
    }
}

/// A wish to join.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of the one-time token.
    pub secret: String,
    /// What joins; the token is for one role only.
    pub role: Role,
    /// The name that it wants.
    pub name: Slug,
    /// Its certificate requests, PEM; a node sends a second one for its guard.
    pub csr: String,
    /// The guard's, for a node.
    #[serde(default)]
    pub guard_csr: Option<String>,
    /// Where it will listen for control and its peers.
    pub address: SocketAddr,
    /// What a node is made of.
    #[serde(default)]
    pub inventory: Option<Inventory>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("JoinRequest")
            .field("role", &self.role)
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Welcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The id that it got; its kind depends on the role, so it stays text here.
    pub id: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its guard's certificate, PEM.
    #[serde(default)]
    pub guard_certificate: Option<String>,
    /// The cluster's CA, PEM.
    pub ca: String,
    /// The instances of control.
    pub instances: Instances,
    /// What the cluster's networks are.
    pub network: ClusterNetwork,
    /// For a new control instance only: the store's URL and the key of the secrets in it.
    #[serde(default)]
    pub control: Option<ControlSecrets>,
}

/// What a further instance of control needs.
#[derive(Clone, Serialize, Deserialize)]
pub struct ControlSecrets {
    /// Where the store is.
    pub store_url: String,
    /// The key of the secrets in the store, base64.
    pub secrets_key: String,
}

impl std::fmt::Debug for ControlSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ControlSecrets(..)")
    }
}

/// The cluster's networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetwork {
    /// Networks of nodes, control and edges, which no server may reach.
    pub management: Vec<String>,
    /// The servers' IPv4 network, such as `10.214.0.0/16`.
    pub servers_ipv4: String,
    /// The servers' IPv6 network.
    pub servers_ipv6: String,
    /// The router's addresses, the same on every node.
    pub gateways: Vec<std::net::IpAddr>,
    /// The router's hardware address, the same on every node.
    pub gateway_mac: String,
    /// The edges' addresses in the servers' network.
    pub edges: Vec<std::net::IpAddr>,
}

/// A wish for a fresh certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The certificate request, PEM.
    pub csr: String,
}

/// A fresh certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// PEM.
    pub certificate: String,
}

/// The instances of control that have been heard of lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Their mutual-TLS addresses; any of them serves.
    pub addresses: Vec<SocketAddr>,
}

/// A guard renews its node's lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Rises with every try.
    pub number: u64,
    /// The number of the last answer that arrived: only a confirmed round trip is life.
    pub last_answered: u64,
    /// Say what the node owns: before a server that was paused goes on, its ownership is confirmed.
    #[serde(default)]
    pub confirm: bool,
    /// The servers that the guard has paused and not continued: they count as down.
    #[serde(default)]
    pub paused: Vec<ServerId>,
}

/// The renewal counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The request's number.
    pub number: u64,
    /// How long the lease lasts from the sending of the request, milliseconds.
    pub lease_ms: u64,
    /// What the node owns in the store, read after the request had come; none when it was not
    /// asked for, or cannot be told for certain.
    #[serde(default)]
    pub owns: Option<Vec<Owned>>,
    /// Other nodes, at most [`crate::guard::MOST_PEERS`]: the guard's witnesses.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// How long ago an instance of control heard nodes, by a confirmed round trip with their guards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Milliseconds, by node.
    pub ages_ms: std::collections::BTreeMap<NodeId, u64>,
}

/// What a node tells control every ten seconds, and at once when something changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// What it is and runs.
    pub status: NodeStatus,
    /// What it uses.
    pub usage: NodeUsage,
    /// What its servers use.
    pub servers: Vec<ServerUsage>,
    /// What the sites on them use.
    pub sites: Vec<SiteSample>,
}

/// What a node uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeUsage {
    /// Share of its CPUs in use, 0 to 1.
    pub cpu: f64,
    /// Memory in use.
    pub memory: Bytes,
    /// Disk in use.
    pub disk: Bytes,
    /// Share of the last ten seconds in which something waited for CPU (PSI `some avg10`), 0 to 1.
    pub cpu_pressure: f64,
    /// The same for memory.
    pub memory_pressure: f64,
    /// The same for disks.
    pub io_pressure: f64,
}

/// What a server uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// Which one.
    pub server: ServerId,
    /// On this node.
    pub node: NodeId,
    /// CPUs in use (1.0 is one core).
    pub cpu: f64,
    /// Memory of its processes on the node.
    pub memory: Bytes,
    /// Bytes read from disk a second.
    pub disk_read_bps: f64,
    /// Bytes written to disk a second.
    pub disk_write_bps: f64,
    /// Bytes received a second.
    pub net_in_bps: f64,
    /// Bytes sent a second.
    pub net_out_bps: f64,
    /// Share of the last ten seconds in which it waited for CPU, 0 to 1.
    pub cpu_pressure: f64,
}

/// What a site uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteSample {
    /// Which one.
    pub site: SiteId,
    /// CPUs in use.
    pub cpu: f64,
    /// Memory now.
    pub memory: Bytes,
    /// Bytes on disk.
    pub disk: Bytes,
    /// Processes now.
    pub processes: u32,
}
