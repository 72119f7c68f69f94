//! Servers, the replicas of their disks, and the profiles and images that they are made from.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value as Json;
use undine_model::lifecycle::ServerState;
use undine_model::{Bytes, Id, MilliCpu, NodeId, OperationId, ReplicaId, ServerId, Slug};

use crate::record::{record, words};

/// Marks the id of a profile.
pub enum ProfileKind {}
/// A profile's id.
pub type ProfileId = Id<ProfileKind>;
/// Marks the id of an image.
pub enum ImageKind {}
/// An image's id.
pub type ImageId = Id<ImageKind>;

record! {
    /// What a kind of server runs.
    Profile, "profile" in "profiles", id ProfileId {
        /// Its name.
        name: Slug,
        /// Hash of its definition.
        hash: String,
        /// Its definition.
        definition: Json,
    }
    /// Which profiles.
    filter ProfileFilter { name: Slug }
    frozen {}
}

record! {
    /// Files that servers boot from, known by their content.
    Image, "image" in "images", id ImageId {
        /// SHA-256, hexadecimal.
        hash: String,
        /// Its name.
        name: String,
        /// Its description.
        manifest: Json,
        /// Where its files are: a folder of control's, or a URL.
        source: String,
    }
    /// Which images.
    filter ImageFilter { hash: String, name: String }
    frozen {}
}

words! {
    /// What somebody wants a server to be.
    Wanted {
        /// Up.
        Running = "running",
        /// Down.
        Stopped = "stopped",
    }
}

record! {
    /// A server: a VM with a profile. Who owns it changes only together with its epoch.
    Server, "server" in "servers", id ServerId {
        /// Its name.
        name: Slug,
        /// Its profile.
        profile: Slug,
        /// The image that it boots.
        image_hash: Option<String>,
        /// Its owner: the node that may run it.
        node: Option<NodeId>,
        /// What it is doing.
        state: ServerState,
        /// What it should be doing.
        wanted: Wanted,
        /// Grows with every change of the owner.
        epoch: u64,
        /// Memory.
        memory: Bytes,
        /// Virtual CPUs.
        vcpus: u32,
        /// CPU that it may use at most.
        cpu: MilliCpu,
        /// Size of its data disk.
        disk: Bytes,
        /// How many replicas it should have.
        replica_count: u32,
        /// Slots of its disk as it was last started: so many copies can be in sync while it runs.
        slots: u32,
        /// 0 to 9: when a node died, the most important servers come up first.
        importance: u32,
        /// Nothing was ever written to its disk: the guest may make the file system.
        blank: bool,
        /// May it start from a RAM template?
        template: bool,
        /// May it send mail directly?
        smtp: bool,
        /// Hardware address of its network card.
        mac: String,
        /// Its address in the server network.
        ipv4: Ipv4Addr,
        /// Its address in the server network.
        ipv6: Ipv6Addr,
        /// 32 hexadecimal digits, the same for life.
        machine_id: String,
        /// Versioned machine type.
        machine: Option<String>,
        /// CPU baseline.
        cpu_model: Option<String>,
        /// The operation that works on it now.
        operation: Option<OperationId>,
        /// Why it failed.
        error: Option<String>,
        /// Why it stands where it does, in words.
        reason: String,
        /// When the copies of its disk were last compared with one another.
        scrubbed_at: Option<i64>,
        /// The newest version of what it must run.
        manifest_version: u64,
        /// The version that it said to run.
        manifest_applied: u64,
    }
    /// Which servers.
    filter ServerFilter {
        name: Slug, profile: Slug, node: NodeId, state: ServerState, wanted: Wanted,
        ipv4: Ipv4Addr, operation: OperationId,
    }
    frozen { manifest_version, manifest_applied }
}

words! {
    /// How a replica stands, as committed.
    ReplicaState {
        /// Not there yet.
        Creating = "creating",
        /// Receives every acknowledged write; may be promoted.
        InSync = "in_sync",
        /// Being filled.
        Syncing = "syncing",
        /// Lacks writes; must be filled again.
        Stale = "stale",
        /// Gone.
        Lost = "lost",
    }
}

record! {
    /// A copy of a server's disk on a node. The copies that are `in_sync` are the server's
    /// membership: change it together with the server's record, in one transaction.
    Replica, "replica" in "replicas", id ReplicaId {
        /// Of this server.
        server: ServerId,
        /// On this node.
        node: NodeId,
        /// The epoch that it was last opened under.
        epoch: u64,
        /// How it stands.
        state: ReplicaState,
        /// Bytes that it takes up.
        bytes: Bytes,
        /// The epoch under which it left the copies in sync; none when nobody knows what it lacks.
        left_epoch: Option<u64>,
        /// When it left them.
        left_at: Option<i64>,
        /// What went wrong with it.
        error: Option<String>,
    }
    /// Which replicas.
    filter ReplicaFilter { server: ServerId, node: NodeId, state: ReplicaState }
    frozen {}
}

/// Marks the id of a removal.
pub enum RemovalKind {}
/// A removal's id.
pub type RemovalId = Id<RemovalKind>;

record! {
    /// A copy of a disk that its node must remove as soon as it answers: the server was deleted,
    /// or the copy replaced, while the node was away.
    Removal, "removal" in "removals", id RemovalId {
        /// Of this server, which may be gone itself.
        server: ServerId,
        /// On this node.
        node: NodeId,
        /// The server's epoch when the copy was given up.
        epoch: u64,
        /// Why, in words.
        reason: String,
    }
    /// Which removals.
    filter RemovalFilter { server: ServerId, node: NodeId }
    frozen {}
}

record! {
    /// A server that the store may have forgotten something of: until every holder of a copy was
    /// asked, it neither moves nor starts. Its id is the server's.
    Doubt, "doubt" in "doubts", id ServerId {
        /// The server's epoch when the doubt arose.
        epoch: u64,
        /// The version of the server's record then.
        stood: i64,
        /// Somebody knows more than the store: an operator must decide. Why, in words.
        blocked: Option<String>,
    }
    /// Which doubts.
    filter DoubtFilter {}
    frozen { epoch, stood }
}
