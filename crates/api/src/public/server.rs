//! Servers.

use undine_model::lifecycle::ServerState;
use undine_model::{Bytes, MilliCpu, NodeId, OperationId, ReplicaId, ServerId, Slug};

use super::{Operation, answers, choices, requests};

answers! {
    /// A server: a VM with a profile.
    pub struct Server {
        /// Its id.
        pub id: ServerId,
        /// Its name.
        pub name: Slug,
        /// Its profile.
        pub profile: Slug,
        /// The hash of the image that it runs.
        pub image: Option<String>,
        /// The node that it is on.
        pub node: Option<NodeId>,
        /// Why it is on that node, in words.
        pub reason: String,
        /// What it is doing.
        pub state: ServerState,
        /// What it should be doing.
        pub wanted: WantedState,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
        /// The store may have forgotten something of it (it was restored, or its database was
        /// promoted): what is waited for, or what a node knows that the store does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub doubt: Option<String>,
        /// Grows with every change of its owner.
        pub epoch: u64,
        /// Memory.
        pub memory: Bytes,
        /// Virtual CPUs.
        pub vcpus: u32,
        /// CPU that it may use at most.
        pub cpu: MilliCpu,
        /// Size of its data disk.
        pub disk: Bytes,
        /// Its address in the server network.
        pub ipv4: String,
        /// Its address in the server network.
        pub ipv6: String,
        /// May it send mail directly (TCP port 25)?
        pub smtp: bool,
        /// How many copies of its disk it should have.
        pub replicas_wanted: u32,
        /// The copies of its disk.
        pub replicas: Vec<Replica>,
        /// 0 to 9: after a node's death the most important come up first.
        pub importance: u32,
        /// Sites on it.
        pub sites: u32,
        /// The newest version of what it must run.
        pub manifest_version: u64,
        /// The version that it runs.
        pub manifest_applied: u64,
        /// The operation that works on it now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub operation: Option<OperationId>,
        /// When the copies of its disk were last compared with one another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub scrubbed_at: Option<i64>,
        /// When it was made.
        pub created_at: i64,
        /// When it was last changed.
        pub updated_at: i64,
        /// Counts its changes.
        pub version: i64,
    }

    /// A copy of a server's disk.
    pub struct Replica {
        /// Its id.
        pub id: ReplicaId,
        /// On this node.
        pub node: NodeId,
        /// How it stands.
        pub state: ReplicaStanding,
        /// Bytes that it takes up.
        pub bytes: Bytes,
        /// Since when it lacks writes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub left_at: Option<i64>,
        /// What went wrong with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
    }

    /// A server and the operation that now works on it.
    pub struct ServerOperation {
        /// The server.
        pub server: Server,
        /// The operation.
        pub operation: Operation,
    }
}

choices! {
    /// How a copy of a disk stands.
    pub enum ReplicaStanding {
        /// Not there yet.
        Creating,
        /// Has every write that was acknowledged; may take over.
        InSync,
        /// Being filled.
        Syncing,
        /// Lacks writes.
        Stale,
        /// Gone.
        Lost,
    }

    /// What somebody wants a server to be.
    pub enum WantedState {
        /// Up.
        Running,
        /// Down.
        Stopped,
    }
}

requests! {
    /// A wish for a server.
    pub struct CreateServer {
        /// Its name.
        pub name: Slug,
        /// Its profile.
        pub profile: Slug,
        /// On this node (id or name) and no other.
        #[serde(default)]
        pub node: Option<String>,
        /// Memory, in bytes; the profile's unless said otherwise.
        #[serde(default)]
        pub memory: Option<Bytes>,
        /// Virtual CPUs; the profile's unless said otherwise.
        #[serde(default)]
        pub vcpus: Option<u32>,
        /// Thousandths of a CPU; the profile's unless said otherwise.
        #[serde(default)]
        pub cpu: Option<MilliCpu>,
        /// Size of the data disk, in bytes; the profile's unless said otherwise.
        #[serde(default)]
        pub disk: Option<Bytes>,
        /// May it start from a RAM template? Yes, unless said otherwise.
        #[serde(default)]
        pub template: Option<bool>,
        /// May it send mail directly? No, unless said otherwise.
        #[serde(default)]
        pub smtp: Option<bool>,
        /// Copies of its disk, on as many nodes: 1 to 3. Unless said otherwise 2, or 1 where there
        /// is one node only.
        #[serde(default)]
        pub replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first. 5 unless said otherwise.
        #[serde(default)]
        pub importance: Option<u32>,
    }

    /// A change of a server. What changes its VM counts from its next start.
    pub struct UpdateServer {
        /// Memory, in bytes.
        #[serde(default)]
        pub memory: Option<Bytes>,
        /// Virtual CPUs.
        #[serde(default)]
        pub vcpus: Option<u32>,
        /// Thousandths of a CPU.
        #[serde(default)]
        pub cpu: Option<MilliCpu>,
        /// May it start from a RAM template?
        #[serde(default)]
        pub template: Option<bool>,
        /// May it send mail directly?
        #[serde(default)]
        pub smtp: Option<bool>,
        /// Copies of its disk, on as many nodes: 1 to 3; from its next start.
        #[serde(default)]
        pub replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first.
        #[serde(default)]
        pub importance: Option<u32>,
    }

    /// The operator lets the record of a server follow what the nodes know of it.
    pub struct Adopt {
        /// The server's name, word for word.
        pub confirm: String,
        /// Nodes (ids or names) that will not answer: what they alone know is lost.
        #[serde(default)]
        pub without: Vec<String>,
    }

    /// The operator accepts that the newest writes of a server are lost.
    pub struct AcceptLoss {
        /// The server's name, word for word.
        pub confirm: String,
        /// Go on with the copy on this node (id or name).
        pub node: String,
    }
}
