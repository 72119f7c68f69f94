//! Nodes, edges, control instances, join tokens, profiles, images, the catalogue, capacity.

use std::collections::BTreeMap;

use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, EdgeId, InstanceId, MilliCpu, NodeId, ServerId, Slug};

use super::{answers, choices, requests};
use crate::internal::NodeUsage;
use crate::node::Inventory;

answers! {
    /// A hardware node.
    pub struct Node {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: Slug,
        /// What it may be used for.
        pub state: NodeState,
        /// Its agent's address.
        pub address: String,
        /// What it is made of.
        pub inventory: Option<Inventory>,
        /// What its servers have been promised.
        pub committed: Committed,
        /// What it uses, as last reported.
        pub usage: Option<NodeUsage>,
        /// When it last reported.
        pub last_report_at: Option<i64>,
        /// When its guard last renewed the lease.
        pub lease_renewed_at: Option<i64>,
        /// When its certificate ends.
        pub certificate_expires_at: Option<i64>,
        /// The fence agent that cuts its power when it is dead, if there is one.
        pub bmc: Option<String>,
        /// When it joined.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// How patient the cluster is with silent nodes, and how it copies disks.
    pub struct FailoverPolicy {
        /// A node with KVM may be dead after this silence, ms.
        pub silence_kvm_ms: u64,
        /// A node whose guests are emulated may be dead after this silence, ms.
        pub silence_tcg_ms: u64,
        /// When more than this share of the nodes falls silent together, nobody is declared dead.
        pub brake_percent: u32,
        /// What counts as together, ms.
        pub brake_window_ms: u64,
        /// A copy whose node has been away for so long is replaced elsewhere, ms.
        pub replace_after_ms: u64,
        /// A copy is filled with at most so many bytes a second; 0 for no limit.
        pub limit_bytes_s: u64,
        /// So many copies at once are filled on, or from, a node.
        pub joins_per_node: u32,
        /// The copies of a running server's disk are compared after so many days; 0 for never.
        pub scrub_every_days: u32,
        /// They are read with at most so many bytes a second; 0 for no limit.
        pub scrub_limit_bytes_s: u64,
        /// Are connections between a server and its remote copies encrypted?
        pub tls: bool,
        /// Counts its changes; 0 as long as all of it is the default.
        pub version: i64,
    }

    /// What the servers on a node have been promised.
    pub struct Committed {
        /// Servers.
        pub servers: u32,
        /// Memory, with QEMU's own.
        pub memory: Bytes,
        /// CPU.
        pub cpu: MilliCpu,
        /// Disk.
        pub disk: Bytes,
    }

    /// A public door.
    pub struct Edge {
        /// Its id.
        pub id: EdgeId,
        /// Its name.
        pub name: Slug,
        /// Where visitors reach it.
        pub addresses: Vec<String>,
        /// The version of its program.
        pub program: String,
        /// When it last reported.
        pub last_report_at: Option<i64>,
        /// The version of the routes that it serves.
        pub table_version: u64,
        /// When it joined.
        pub created_at: i64,
    }

    /// One of the equal instances of control.
    pub struct Instance {
        /// Its id.
        pub id: InstanceId,
        /// Its name.
        pub name: Slug,
        /// Its address in the management network.
        pub address: String,
        /// Has it been heard of lately?
        pub alive: bool,
        /// When it last said that it lives.
        pub heartbeat_at: i64,
        /// When its process started.
        pub started_at: i64,
        /// The version of its program.
        pub program: String,
        /// The one that answers this request.
        pub this: bool,
    }

    /// A join token, without its secret.
    pub struct JoinToken {
        /// Its id.
        pub id: String,
        /// What it admits.
        pub role: JoinRole,
        /// The only name that it admits, when that is fixed.
        pub name: Option<Slug>,
        /// When it stops admitting.
        pub expires_at: i64,
        /// When it was used.
        pub used_at: Option<i64>,
        /// When it was made.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A join token with its secret, shown once.
    pub struct NewJoinToken {
        /// The token.
        pub join_token: JoinToken,
        /// What to paste into `undine-node join`, `undine-edge join` or `undine-control join`.
        pub token: String,
    }

    /// What a kind of server is good at.
    pub struct Profile {
        /// Its name.
        pub name: Slug,
        /// One line for people.
        pub title: String,
        /// The image that its servers run.
        pub image: Slug,
        /// A new server's memory, unless said otherwise.
        pub memory: Bytes,
        /// A new server's virtual CPUs, unless said otherwise.
        pub vcpus: u32,
        /// A new server's CPU, unless said otherwise.
        pub cpu: MilliCpu,
        /// A new server's data disk, unless said otherwise.
        pub disk: Bytes,
        /// How sites can run on it: name and one line for people.
        pub runtimes: BTreeMap<String, String>,
        /// SHA-256 of its definition.
        pub hash: String,
        /// When it came in.
        pub created_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// An image that servers boot.
    pub struct Image {
        /// Its hash.
        pub hash: String,
        /// Its name.
        pub name: String,
        /// Debian's release.
        pub release: String,
        /// Bytes of its files.
        pub size: Bytes,
        /// How many packages it holds.
        pub packages: u32,
        /// Servers that run it.
        pub servers: u32,
        /// When it came in.
        pub created_at: i64,
    }

    /// An application of the catalogue.
    pub struct App {
        /// Its name.
        pub name: Slug,
        /// One line for people.
        pub title: String,
        /// The runtime that it needs.
        pub runtime: Slug,
        /// It needs a database, which is made along.
        pub database: bool,
        /// What must be answered to install it: name to question.
        pub questions: BTreeMap<String, String>,
    }

    /// What the cluster holds and what is left.
    pub struct Capacity {
        /// Of all nodes that take servers.
        pub total: Resources,
        /// Promised to servers.
        pub committed: Resources,
        /// Left.
        pub free: Resources,
        /// By node.
        pub nodes: Vec<NodeCapacity>,
        /// How many more servers of each profile fit, at its usual size.
        pub fits: BTreeMap<String, u32>,
        /// The same profile by profile, with what stops the next one and what would help.
        #[serde(default)]
        pub outlook: Vec<Outlook>,
    }

    /// How much room is left for servers of a profile.
    pub struct Outlook {
        /// The profile.
        pub profile: Slug,
        /// How many more fit while every rule is kept.
        pub fits: u32,
        /// What stops the next one.
        pub stopped_by: String,
        /// Days until there is no room, at the growth of the last 30 days; none without growth.
        pub full_in_days: Option<f64>,
        /// What one more machine would bring, the most helpful first.
        pub advice: Vec<HardwareAdvice>,
    }

    /// What one more machine would bring.
    pub struct HardwareAdvice {
        /// The machine, in words.
        pub machine: String,
        /// How many more servers fit with it.
        pub more: u32,
    }

    /// What imagined changes would lead to.
    pub struct WhatIfAnswer {
        /// In words.
        pub summary: String,
        /// The cluster today.
        pub before: ClusterScore,
        /// The cluster afterwards.
        pub after: ClusterScore,
        /// What would be done, in this order.
        pub steps: Vec<PlannedStep>,
        /// What would not be possible.
        pub not_possible: Vec<NotPossible>,
    }

    /// How well a cluster stands.
    pub struct ClusterScore {
        /// Servers and copies that break a limit.
        pub broken_limits: u64,
        /// Nodes whose loss could not be made good.
        pub unsurvivable_losses: u64,
        /// Nodes whose predicted use is above the high-water mark.
        pub nodes_above_mark: u64,
        /// Predicted use of the busiest node.
        pub highest_use_percent: f64,
    }

    /// A step that would follow.
    pub struct PlannedStep {
        /// The server.
        pub server: String,
        /// `place`, `migrate`, `restart`, `add_copy` or `move_copy`.
        pub action: String,
        /// From this node.
        pub from: Option<String>,
        /// To these nodes, a new server's owner first.
        pub to: Vec<String>,
        /// Why, in words.
        pub reason: String,
    }

    /// What would not be possible.
    pub struct NotPossible {
        /// A server.
        pub subject: String,
        /// Why, in words.
        pub reason: String,
    }

    /// Amounts of the three things that a server takes.
    #[derive(Copy, Default)]
    pub struct Resources {
        /// CPU.
        pub cpu: MilliCpu,
        /// Memory.
        pub memory: Bytes,
        /// Disk.
        pub disk: Bytes,
    }

    /// One node's share of the capacity.
    pub struct NodeCapacity {
        /// Which one.
        pub node: NodeId,
        /// Its name.
        pub name: Slug,
        /// Does it take servers?
        pub state: NodeState,
        /// What it has.
        pub total: Resources,
        /// What is left of it.
        pub free: Resources,
        /// Its servers.
        pub servers: Vec<ServerId>,
    }
}

choices! {
    /// What a join token admits.
    pub enum JoinRole {
        /// A hardware node with its guard.
        Node,
        /// A public door.
        Edge,
        /// A further instance of control.
        Control,
    }

    /// What an operator may make of a node.
    pub enum NodeUse {
        /// It takes servers.
        Ready,
        /// It keeps what it has and takes nothing new.
        Cordoned,
    }
}

requests! {
    /// Changes to be imagined, in the order of these fields. None of them is made.
    #[derive(Default)]
    pub struct WhatIf {
        /// All measured load becomes this many percent of today's.
        #[serde(default)]
        pub load_percent: Option<u32>,
        /// So many more nodes like this one (id or name).
        #[serde(default)]
        pub add_nodes: BTreeMap<String, u32>,
        /// These nodes (ids or names) are lost at once.
        #[serde(default)]
        pub lose: Vec<String>,
        /// These nodes (ids or names) are emptied.
        #[serde(default)]
        pub drain: Vec<String>,
        /// So many more servers of each profile, at its usual size.
        #[serde(default)]
        pub add_servers: BTreeMap<Slug, u32>,
        /// With so many copies each; as many as new servers have, unless said otherwise.
        #[serde(default)]
        pub replicas: Option<u32>,
        /// The servers are balanced at last.
        #[serde(default)]
        pub rebalance: bool,
    }

    /// A wish for a join token.
    pub struct CreateJoinToken {
        /// What it is to admit.
        pub role: JoinRole,
        /// The only name that it is to admit.
        #[serde(default)]
        pub name: Option<Slug>,
        /// How long it admits, in seconds (3,600 unless said otherwise, at most a week).
        #[serde(default)]
        pub ttl_s: Option<u32>,
    }

    /// The operator says that a node is dead.
    pub struct FenceNode {
        /// The node's name, word for word.
        pub confirm: String,
    }

    /// How a node's power is cut when it is dead: a program of Debian's fence-agents.
    pub struct SetBmc {
        /// The program, such as `fence_ipmilan`.
        pub agent: String,
        /// What it is told, such as `ip`, `username` and `password`. Never shown again.
        #[serde(default)]
        pub options: BTreeMap<String, String>,
    }

    /// Changes of how patient the cluster is, and how it copies disks.
    #[derive(Default)]
    pub struct UpdateFailoverPolicy {
        /// A node with KVM may be dead after this silence, ms.
        #[serde(default)]
        pub silence_kvm_ms: Option<u64>,
        /// A node whose guests are emulated may be dead after this silence, ms.
        #[serde(default)]
        pub silence_tcg_ms: Option<u64>,
        /// When more than this share of the nodes falls silent together, nobody is declared dead.
        #[serde(default)]
        pub brake_percent: Option<u32>,
        /// What counts as together, ms.
        #[serde(default)]
        pub brake_window_ms: Option<u64>,
        /// A copy whose node has been away for so long is replaced elsewhere, ms.
        #[serde(default)]
        pub replace_after_ms: Option<u64>,
        /// A copy is filled with at most so many bytes a second; 0 for no limit.
        #[serde(default)]
        pub limit_bytes_s: Option<u64>,
        /// So many copies at once are filled on, or from, a node.
        #[serde(default)]
        pub joins_per_node: Option<u32>,
        /// The copies of a running server's disk are compared after so many days; 0 for never.
        #[serde(default)]
        pub scrub_every_days: Option<u32>,
        /// They are read with at most so many bytes a second; 0 for no limit.
        #[serde(default)]
        pub scrub_limit_bytes_s: Option<u64>,
        /// Are connections between a server and its remote copies encrypted?
        #[serde(default)]
        pub tls: Option<bool>,
    }

    /// A change of a node.
    pub struct UpdateNode {
        /// What it may be used for.
        pub state: NodeUse,
    }
}
