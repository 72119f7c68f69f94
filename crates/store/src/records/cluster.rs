//! What the cluster is made of: control instances, hardware nodes, edges, and how they join.

use std::net::IpAddr;

use serde_json::Value as Json;
use undine_model::lifecycle::NodeState;
use undine_model::{EdgeId, Id, InstanceId, NodeId, Slug};

use crate::record::{record, words};

/// Marks the id of a join token.
pub enum JoinTokenKind {}
/// A join token's id.
pub type JoinTokenId = Id<JoinTokenKind>;

record! {
    /// One instance of control.
    Instance, "control instance" in "instances", id InstanceId {
        /// Its name.
        name: Slug,
        /// Where nodes, edges and other instances reach it.
        internal_url: String,
        /// Where the edges reach its panel and API.
        api_url: String,
        /// When it last said that it lives.
        heartbeat_at: i64,
        /// The version of its program.
        program: String,
        /// When its process started.
        started_at: i64,
    }
    /// Which instances.
    filter InstanceFilter { name: Slug }
    frozen { heartbeat_at }
}

record! {
    /// A hardware node.
    Node, "node" in "nodes", id NodeId {
        /// Its name.
        name: Slug,
        /// What it may be used for.
        state: NodeState,
        /// Its agent's address in the management network.
        address: IpAddr,
        /// Its agent's port.
        port: u16,
        /// Its address for replication, when that is another one.
        storage_address: Option<IpAddr>,
        /// Its rack, where known: replicas of a server never share one.
        rack: Option<Slug>,
        /// Serial number of its certificate.
        certificate_serial: Option<String>,
        /// When its certificate ends.
        certificate_expires_at: Option<i64>,
        /// What it is made of, as it reported itself.
        inventory: Json,
        /// What it can carry, as it reported itself or as the operator declared.
        capacity: Json,
        /// `kvm` or `tcg`.
        accelerator: String,
        /// Versions of its programs.
        versions: Json,
        /// When it last reported.
        last_report_at: Option<i64>,
        /// The operator took it out of use: it stays so through silence and death.
        cordoned: bool,
        /// When it was declared dead, while it is `fenced`.
        fenced_at: Option<i64>,
        /// How its power is cut, where that is possible; the password in it is sealed.
        bmc: Option<Json>,
    }
    /// Which nodes.
    filter NodeFilter { name: Slug, state: NodeState }
    frozen { inventory, capacity, accelerator, versions, last_report_at }
}

/// What a node says about itself; see `NodeReports` in `reports.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// What it is made of.
    pub inventory: Json,
    /// What it can carry.
    pub capacity: Json,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Versions of its programs.
    pub versions: Json,
}

record! {
    /// A public door.
    Edge, "edge" in "edges", id EdgeId {
        /// Its name.
        name: Slug,
        /// The addresses that visitors reach it by.
        addresses: Vec<String>,
        /// Serial number of its certificate.
        certificate_serial: Option<String>,
        /// When its certificate ends.
        certificate_expires_at: Option<i64>,
        /// The version of its program.
        program: String,
        /// When it last reported.
        last_report_at: Option<i64>,
        /// The version of the routes that it serves.
        table_version: u64,
    }
    /// Which edges.
    filter EdgeFilter { name: Slug }
    frozen { last_report_at, table_version, addresses, program }
}

words! {
    /// What a join token admits.
    Joiner {
        /// A hardware node with its guard.
        Node = "node",
        /// A public door.
        Edge = "edge",
        /// A further instance of control.
        Control = "control",
    }
}

record! {
    /// Admits one program to the cluster, once.
    JoinToken, "join token" in "join_tokens", id JoinTokenId {
        /// SHA-256 of the secret, hexadecimal; the secret itself is never kept.
        secret_sha256: String,
        /// What it admits.
        kind: Joiner,
        /// The only name that it admits, when that is fixed.
        name: Option<Slug>,
        /// When it stops admitting.
        expires_at: i64,
        /// When it was used.
        used_at: Option<i64>,
        /// Who used it: the id that was given out.
        used_by: Option<String>,
    }
    /// Which join tokens.
    filter JoinTokenFilter { kind: Joiner }
    frozen { used_at, used_by }
}
