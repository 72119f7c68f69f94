//! What a node was told when it joined, kept in its state folder, and where things lie in there.
//!
//! ```text
//! node.json               this file: id, name, addresses, the cluster's network
//! identity/, guard/       key, certificate and CA of the agent and of its guard
//! guard/servers.json      see `guard_file`
//! images/<hash>/          see `images`
//! replicas/<server>/      see `replicas`
//! servers/<server>/       spec.json, state.json, disk.json
//! templates/              RAM templates, by key
//! uids.json               see `uids`
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use undine_api::internal::ClusterNetwork;
use undine_model::{Bytes, MilliCpu, NodeId, ServerId, Slug};

use crate::files::{self, FileError};

/// What a node was told when it joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: Slug,
    /// Where it listens.
    pub address: SocketAddr,
    /// Control's instances, as last heard of.
    pub control: Vec<SocketAddr>,
    /// The cluster's networks.
    pub network: ClusterNetwork,
    /// What its operator declared.
    pub declared: Declared,
    /// The interface to the other nodes and the edges.
    #[serde(default)]
    pub server_uplink: Option<String>,
    /// The interface to the world.
    #[serde(default)]
    pub egress_interface: Option<String>,
}

/// The share of the machine that its servers may use; what is absent is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// CPU.
    pub cpu: Option<MilliCpu>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Disk.
    pub disk: Option<Bytes>,
}

/// Parameters of one run of the agent; all of them come from flags.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Where everything lasting lies.
    pub state_dir: PathBuf,
    /// Sockets and consoles, on a file system that a reboot empties.
    pub run_dir: PathBuf,
    /// The node's control group, below which its servers' are made.
    pub cgroup: String,
    /// First user id of VMs and storage daemons.
    pub uid_base: u32,
    /// How many user ids there are.
    pub uid_count: u32,
    /// Where Prometheus may ask.
    pub metrics_listen: Option<SocketAddr>,
    /// Further networks that servers may never reach.
    pub egress_deny: Vec<IpNet>,
    /// The program that serves replicas, `qemu-storage-daemon` or one that behaves like it.
    pub storage_daemon: PathBuf,
    /// How many spares are kept for each shape of server, where guests are emulated.
    pub spares: usize,
    /// Leave the network alone: no bridge, taps, filter or resolver (for trying things out).
    pub no_network: bool,
}

impl Settings {
    /// Reads what the node was told when it joined; none before it has.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, FileError> {
        files::read_json(&state_dir.join("node.json"))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), FileError> {
        files::write_json(&state_dir.join("node.json"), self)
    }
}

/// The folder with a server's lasting record.
pub fn server_folder(state_dir: &Path, server: ServerId) -> PathBuf {
    state_dir.join("servers").join(server.to_string())
}

/// The folder with a server's replica.
pub fn replica_folder(state_dir: &Path, server: ServerId) -> PathBuf {
    state_dir.join("replicas").join(server.to_string())
}

/// The agent's credentials.
pub fn identity_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

/// The guard's credentials.
pub fn guard_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("guard")
}

/// The folder of sockets of a server's QEMU. Short: a socket's path has at most 107 bytes.
pub fn vm_run_folder(run_dir: &Path, server: ServerId) -> PathBuf {
    run_dir.join("vm").join(server.uuid().simple().to_string())
}

/// The folder of the relay to a replica that joins.
pub fn relay_run_folder(run_dir: &Path, server: ServerId) -> PathBuf {
    run_dir
        .join("join")
        .join(server.uuid().simple().to_string())
}

/// The folder of the relay to a replica that is compared.
pub fn scrub_run_folder(run_dir: &Path, server: ServerId) -> PathBuf {
    let server = server.uuid().simple();
    run_dir.join("join").join(format!("{server}-scrub"))
}

/// The folder of sockets of a replica's storage daemon.
pub fn daemon_run_folder(run_dir: &Path, server: ServerId) -> PathBuf {
    run_dir
        .join("disk")
        .join(server.uuid().simple().to_string())
}
