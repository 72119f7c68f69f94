//! RAM templates: asked for before a server needs them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use undine_manifest::Profile;
use undine_model::{Bytes, NodeId};

/// The header in which a node says how the memory that it sends hashes.
pub const TEMPLATE_SHA256: &str = "undine-template-sha256";
/// The header in which a node says how long the memory is as a whole.
pub const TEMPLATE_SIZE: &str = "undine-template-size";

/// A template that the node is to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateWish {
    /// The image, which must be here.
    pub image_hash: String,
    /// Memory of the servers that it is for.
    pub memory: Bytes,
    /// Their virtual CPUs.
    pub vcpus: u32,
    /// Versioned machine type.
    pub machine: String,
    /// CPU baseline of the cluster.
    pub cpu_model: String,
    /// Nodes that may hold it, asked in this order before the node takes one itself.
    #[serde(default)]
    pub peers: Vec<TemplatePeer>,
    /// What its spares rehearse; none keeps no spares.
    #[serde(default)]
    pub rehearsal: Option<Box<Profile>>,
    /// How many servers of this shape run on other nodes: so many could come here.
    #[serde(default)]
    pub elsewhere: u32,
}

/// A node that may hold a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatePeer {
    /// Which one.
    pub node: NodeId,
    /// Where its agent listens.
    pub address: SocketAddr,
}

/// How far a template is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateStatus {
    /// Its name on nodes: the same name means the same content of image, shape, QEMU.
    pub name: String,
    /// How far.
    pub state: TemplateState,
    /// Bytes here while it is fetched.
    pub have: u64,
    /// Bytes in all, once known.
    pub total: u64,
    /// Why it is absent or failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// How far a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// Not here, and nothing is done about it; `error` says why.
    Absent,
    /// Taken by a cold boot.
    Making,
    /// Copied from another node.
    Fetching,
    /// Here, whole.
    Present,
    /// The last try failed; it is tried again after a pause.
    Failed,
}
