//! What a node's guard answers: HTTPS under the cluster's CA, JSON, below `/guard/v1`, open to
//! control and to other nodes' guards. It listens at its agent's address, [`PORT_ABOVE_AGENT`]
//! ports further up, so whoever knows the one knows the other.
//!
//! | method and path | who | answer |
//! |---|---|---|
//! | `GET /guard/v1/alive` | guard, control | [`Alive`] |
//! | `GET /guard/v1/reach/{node}?address=IP:PORT` | guard, control | [`Reach`]: a witness tries that node's guard and agent; `&storage=IP:PORT` adds its address in the storage network |
//!
//! Errors are [`crate::Problem`]s.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ServerId};

/// A guard's port is its agent's and this.
pub const PORT_ABOVE_AGENT: u16 = 1;
/// A witness has tried whatever it tries within this time, milliseconds.
pub const REACH_MS: u64 = 1_000;
/// More peers than this are not told to a guard.
pub const MOST_PEERS: usize = 8;

/// Where the guard of the agent at this address listens; none when no port is left above it.
pub fn listens_at(agent: SocketAddr) -> Option<SocketAddr> {
    let port = agent.port().checked_add(PORT_ABOVE_AGENT)?;
    Some(SocketAddr::new(agent.ip(), port))
}

/// The guard lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Of this node.
    pub node: NodeId,
    /// Does it hold its lease?
    pub held: bool,
    /// It reaches neither control nor half of its peers: what may run elsewhere stands still.
    pub isolated: bool,
    /// The servers that it has paused, and those that it may not continue.
    pub paused: Vec<ServerId>,
}

/// What a witness found. A node is reachable when its guard or its agent answered as itself: that
/// something accepts connections proves no life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The node that was asked about.
    pub node: NodeId,
    /// It answered, by whichever network.
    pub reachable: bool,
    /// It answered by the storage network; none when no address there was given.
    pub storage: Option<bool>,
}

/// Another node, as a guard is told of it: a witness, and one of those of which it must reach half
/// when it reaches no control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Where its agent listens; its guard is [`PORT_ABOVE_AGENT`] further.
    pub address: SocketAddr,
    /// The same in the storage network, when that is another one.
    #[serde(default)]
    pub storage: Option<SocketAddr>,
}

/// A server that a node owns, as the store says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Which one.
    pub server: ServerId,
    /// Under this epoch.
    pub epoch: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_one_port_above_its_agent() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(listens_at(at("10.0.0.1:7301")), Some(at("10.0.0.1:7302")));
        assert_eq!(listens_at(at("[::1]:7301")), Some(at("[::1]:7302")));
        assert_eq!(listens_at(at("10.0.0.1:65535")), None);
    }
}
