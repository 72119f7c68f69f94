//! Names, addresses and paths of the cluster on this machine; everything `down` removes follows
//! from here.

use std::path::{Path, PathBuf};

/// Where the programs keep their state: root's, but open to the servers' own users, as a home
/// directory is not.
pub const STATE: &str = "/var/lib/undine-up";
/// Sockets and the supervisor's files; short, for socket names are.
pub const RUNTIME: &str = "/run/undine-up";
/// Prefix of every namespace and interface.
pub const PREFIX: &str = "undine-";
/// The namespace that plays the switch.
pub const SWITCH: &str = "undine-switch";
/// Parent of every control group.
pub const CGROUP: &str = "undine-up";

/// Networks of nodes, control and edges.
pub const MANAGEMENT_NETWORK: &str = "10.213.0.0/24";
/// This machine's address in it: control's and the edges'.
pub const MANAGEMENT_HOST: &str = "10.213.0.1";
/// The servers' network.
pub const SERVER_NETWORK: &str = "10.214.0.0/16";
/// The servers' IPv6 network.
pub const SERVER_NETWORK6: &str = "fd5e:d1e0:214::/64";
/// The edges' address in the servers' network.
pub const SERVER_HOST: &str = "10.214.0.2";
/// The edges' IPv6 address in the servers' network.
pub const SERVER_HOST6: &str = "fd5e:d1e0:214::2";

/// One hardware node.
pub struct NodePlace {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Its management address.
    pub address: String,
    /// Its state directory.
    pub state: PathBuf,
}

/// Node number `index`, from 1.
pub fn node(index: usize) -> NodePlace {
    NodePlace {
        name: format!("node-{index}"),
        namespace: format!("{PREFIX}n{index}"),
        address: format!("10.213.0.{}", 10 + index),
        state: state(&format!("node-{index}")),
    }
}

/// A program's state directory.
pub fn state(name: &str) -> PathBuf {
    Path::new(STATE).join(name)
}

/// The folder of this checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where `up` leaves its summary and logs.
pub fn target() -> PathBuf {
    checkout().join("target/up")
}

/// A program of ours as this checkout builds it.
pub fn program(name: &str) -> PathBuf {
    checkout().join("target/debug").join(name)
}
