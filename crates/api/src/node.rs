//! What control says to a hardware node's agent: HTTPS under the cluster's CA, JSON, below
//! `/node/v1`. Every request is safe to send again.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /node/v1/status` | → [`NodeStatus`] |
//! | `PUT /node/v1/images/{hash}` | [`FetchImage`] → [`ImageStatus`] (starts or tells progress) |
//! | `PUT /node/v1/templates` | [`TemplateWish`] → [`TemplateStatus`] (fetches, else takes one; or tells progress) |
//! | `PUT /node/v1/replicas/{server}` | [`ReplicaSpec`] → [`ReplicaStatus`] (creates or opens) |
//! | `DELETE /node/v1/replicas/{server}?epoch=N` | → nothing (gone, or was not there) |
//! | `PUT /node/v1/servers/{server}` | [`StartSpec`] → [`ServerStatus`] (starts or tells) |
//! | `GET /node/v1/servers/{server}` | → [`ServerStatus`] |
//! | `DELETE /node/v1/servers/{server}?epoch=N` | → nothing (forgotten, or was not there; its replica stays) |
//! | `POST /node/v1/servers/{server}/stop` | [`StopSpec`] → [`ServerStatus`] |
//! | `PUT /node/v1/servers/{server}/slots` | [`SlotsSpec`] → [`ServerStatus`] (failed replicas leave) |
//! | `PUT /node/v1/servers/{server}/joins/{replica}` | [`JoinSpec`] → [`JoinStatus`] (starts or tells) |
//! | `DELETE /node/v1/servers/{server}/joins/{replica}?epoch=N` | → nothing (cancelled, or was not there) |
//! | `PUT /node/v1/servers/{server}/scrubs/{replica}` | [`ScrubSpec`] → [`ScrubStatus`] (starts or tells) |
//! | `DELETE /node/v1/servers/{server}/scrubs/{replica}?epoch=N` | → nothing (ended, or was not there) |
//! | `POST /node/v1/servers/{server}/guest` | [`GuestCall`] → [`crate::guest::Answer`] |
//! | `POST /node/v1/servers/{server}/releases?epoch=N` | archive; [`crate::guest::Upload`] as JSON in the header [`UPLOAD_HEADER`] → [`crate::guest::Answer`] |
//!
//! Other nodes, and nobody else, may `GET /node/v1/templates/{name}`: the memory's bytes, by range.
//!
//! Errors are [`crate::Problem`]s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use undine_model::{Bytes, MilliCpu, NodeId, ServerId};

use crate::guest;

mod disk;
mod template;

pub use disk::{
    Committed, JoinMethod, JoinSpec, JoinState, JoinStatus, ReplicaKey, ReplicaSpec, ReplicaState,
    ReplicaStatus, ReplicaTarget, ScrubSpec, ScrubState, ScrubStatus, SlotState, SlotStatus,
    SlotsSpec,
};

pub use template::{
    TEMPLATE_SHA256, TEMPLATE_SIZE, TemplatePeer, TemplateState, TemplateStatus, TemplateWish,
};

/// The header in which control says which life of its store an order was read from. A node refuses
/// orders of a lower term than it has heard, with the kind [`OLD_TERM`].
pub const TERM_HEADER: &str = "undine-term";
/// The kind of the problem that refuses an order of an earlier life of the store.
pub const OLD_TERM: &str = "old-term";

/// The header that describes an uploaded archive.
pub const UPLOAD_HEADER: &str = "undine-upload";

/// What a node is and runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub node: NodeId,
    /// What it is made of.
    pub inventory: Inventory,
    /// The images that it holds, by hash.
    pub images: Vec<String>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// The highest term of control's store that it has heard; none from a node that keeps none.
    #[serde(default)]
    pub term: Option<u64>,
}

/// What a node is made of; read again while it runs, so that a bigger machine is noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    /// CPUs that its servers may use, in thousandths of a core.
    pub cpu: MilliCpu,
    /// Memory that its servers may use.
    pub memory: Bytes,
    /// Disk that its replicas may use.
    pub disk: Bytes,
    /// Disk in use.
    pub disk_used: Bytes,
    /// The processor's name.
    pub cpu_model: String,
    /// `kvm`, or `tcg` where guests are emulated.
    pub accelerator: String,
    /// Why that accelerator.
    pub accelerator_reason: String,
    /// Version of QEMU.
    pub qemu: String,
    /// Version of the agent.
    pub agent: String,
    /// Version of the kernel.
    pub kernel: String,
}

/// Where to fetch an image from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchImage {
    /// The description whose SHA-256 is the image's hash.
    pub manifest: ImageManifest,
    /// Places that serve `/{sha256 of a file}`: control instances' `/internal/v1/blobs` and other
    /// nodes; tried in order, resumed by range.
    pub sources: Vec<String>,
}

/// One image: the files that a server boots from, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// Its name, such as `debian12-web`.
    pub name: String,
    /// Debian's release.
    pub release: String,
    /// SHA-256 over the files' hashes and the command line: the image's identity.
    pub hash: String,
    /// The root file system, the kernel and the first RAM disk.
    pub files: ImageFiles,
    /// The kernel's command line.
    pub cmdline: String,
    /// What is added to it under emulation only.
    #[serde(default)]
    pub cmdline_tcg: String,
    /// The data format that the image writes.
    pub data_format: u32,
    /// Packages, `name version` each.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// The files of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// Read-only root file system (squashfs).
    pub root: ImageFile,
    /// Uncompressed kernel with a PVH entry.
    pub kernel: ImageFile,
    /// First RAM disk, with the guest agent.
    pub initrd: ImageFile,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name beside the description.
    pub file: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Its size.
    pub size: u64,
}

/// How far an image is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Its hash.
    pub hash: String,
    /// All of it is here and checked.
    pub present: bool,
    /// Bytes here.
    pub have: u64,
    /// Bytes in all.
    pub total: u64,
    /// Why the last try ended, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

/// A server to run.
#[derive(Clone, Serialize, Deserialize)]
pub struct StartSpec {
    /// The epoch under which this node owns it.
    pub epoch: u64,
    /// Its name.
    pub name: String,
    /// Its image, which must be here.
    pub image: ImageManifest,
    /// Memory.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// CPU reserved for it: its weight against the node's other servers. What nobody wants it may
    /// use as well, up to its virtual CPUs.
    pub cpu: MilliCpu,
    /// Versioned machine type, such as `pc-q35-10.0`.
    pub machine: String,
    /// CPU baseline of the cluster, such as `qemu64`.
    pub cpu_model: String,
    /// May it start from a RAM template (taken first when there is none)?
    pub template: bool,
    /// Its network card.
    pub network: ServerNetwork,
    /// 32 hexadecimal digits, the same for life.
    pub machine_id: String,
    /// Its replicas, this node's first.
    pub replicas: Vec<ReplicaTarget>,
    /// Slots of its disk: as many replicas must have a write before the guest is told. Those
    /// beyond `replicas` get placeholders; 0 means one for each of `replicas`.
    #[serde(default)]
    pub slots: u32,
    /// Nothing was ever written: the guest may make the file system.
    pub blank: bool,
    /// The version of the server's record that this was read from; an older word about its slots is
    /// refused from then on.
    #[serde(default)]
    pub version: u64,
    /// What it must run.
    pub manifest: undine_manifest::Manifest,
}

impl std::fmt::Debug for StartSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The manifest holds database passwords.
        f.debug_struct("StartSpec")
            .field("name", &self.name)
            .field("epoch", &self.epoch)
            .field("image", &self.image.hash)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// A server's place in the server network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerNetwork {
    /// Its hardware address.
    pub mac: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Length of the network's prefix.
    pub ipv4_prefix: u8,
    /// Its address.
    pub ipv6: Ipv6Addr,
    /// Length of the network's prefix.
    pub ipv6_prefix: u8,
    /// The address of this epoch, by which the edges reach it; none in what an older control said.
    #[serde(default)]
    pub ipv6_epoch: Option<Ipv6Addr>,
    /// The routers, on every node alike.
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    pub resolvers: Vec<IpAddr>,
    /// May it send mail directly (TCP port 25)?
    pub smtp: bool,
}

/// How to stop a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopSpec {
    /// The owner's epoch; an older one is refused.
    pub epoch: u64,
    /// Seconds that the guest has to end by itself; 0 cuts its power.
    pub grace_s: u32,
}

/// A question for the agent inside a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestCall {
    /// The owner's epoch; another one is refused.
    pub epoch: u64,
    /// The question (not `identify`, `attach_data`, `upload` or `shutdown`: the node asks those).
    pub ask: guest::Ask,
}

/// How a server stands on its node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which one.
    pub server: ServerId,
    /// The epoch under which it runs here.
    pub epoch: u64,
    /// How far it is.
    pub phase: Phase,
    /// Why it failed or stopped, in words.
    #[serde(default)]
    pub error: Option<String>,
    /// How it came up.
    #[serde(default)]
    pub start: Option<StartReport>,
    /// Does it answer for itself?
    #[serde(default)]
    pub health: Option<guest::Health>,
    /// What came of the manifest that it started with.
    #[serde(default)]
    pub applied: Option<guest::Applied>,
    /// Its disk's slots.
    #[serde(default)]
    pub slots: Vec<SlotStatus>,
}

/// How far a server is on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not here.
    Absent,
    /// The VM is being made or restored.
    Booting,
    /// The agent answered; it is being told who it is and what to run.
    Configuring,
    /// Data disk mounted, manifest applied, own request answered.
    Running,
    /// Paused: it lost its disk or its lease.
    Paused,
    /// On its way down.
    Stopping,
    /// Ended as wanted.
    Stopped,
    /// Ended unasked, or could not start.
    Failed,
}

/// How a server came up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartReport {
    /// From a template, or by cold boot?
    pub from_template: bool,
    /// Why not from a template, if it was wanted.
    #[serde(default)]
    pub fallback: Option<String>,
    /// The identity of the spare that it came from; none for a VM that was made for it.
    #[serde(default)]
    pub spare: Option<ServerId>,
    /// Seconds from the request to each step's end: `vm`, `agent`, `identify`, `data`, `apply`,
    /// `health`.
    pub steps_s: Vec<(String, f64)>,
}
