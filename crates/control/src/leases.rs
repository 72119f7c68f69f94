//! Renewals of the nodes' leases: taken in memory, written in batches, shared by the store. The
//! guards are told of other nodes, out of a list that is read as often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use undine_api::guard::{MOST_PEERS, Peer};
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, Lease, Node, Store};

/// How long a lease lasts from the sending of its renewal (protocols §4).
pub const LEASE_MS: u64 = 2_000;

/// Renewals that this instance has taken and not yet written.
#[derive(Debug, Default)]
pub struct LeaseBook {
    fresh: Mutex<BTreeMap<NodeId, Lease>>,
    nodes: Mutex<Vec<Peer>>,
}

impl LeaseBook {
    /// A node's guard renewed.
    pub fn renewed(&self, lease: Lease) {
        self.lock().insert(lease.node, lease);
    }

    /// Writes what came in.
    pub async fn write(&self, store: &Store) -> undine_store::Result<()> {
        let fresh: Vec<Lease> = std::mem::take(&mut *self.lock()).into_values().collect();
        store.leases().renew(&fresh).await
    }

    /// These are the cluster's nodes.
    pub fn know(&self, nodes: &[Node]) {
        let mut peers: Vec<Peer> = nodes
            .iter()
            .filter(|node| node.state != NodeState::Removed)
            .map(peer)
            .collect();
        peers.sort_by_key(|peer| peer.node);
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    /// The nodes that this one's guard is told of.
    pub fn peers_of(&self, node: NodeId) -> Vec<Peer> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        next_round(&nodes, node)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Lease>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn peer(node: &Node) -> Peer {
    Peer {
        node: node.id,
        address: SocketAddr::new(node.address, node.port),
        storage: node
            .storage_address
            .map(|address| SocketAddr::new(address, node.port)),
    }
}

/// Those that follow it in the order of their ids, round the corner: so every node is a peer of
/// equally many others.
fn next_round(sorted: &[Peer], node: NodeId) -> Vec<Peer> {
    let after = sorted.partition_point(|peer| peer.node <= node);
    let (before, after) = sorted.split_at(after);
    after
        .iter()
        .chain(before)
        .filter(|peer| peer.node != node)
        .take(MOST_PEERS)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<Peer> {
        let mut nodes: Vec<Peer> = (0..count)
            .map(|port| Peer {
                node: NodeId::from_uuid(uuid::Uuid::from_u128(u128::from(port))),
                address: SocketAddr::from(([10, 0, 0, 1], port)),
                storage: None,
            })
            .collect();
        nodes.sort_by_key(|peer| peer.node);
        nodes
    }

    #[test]
    fn every_node_is_a_peer_of_equally_many_others_and_never_of_itself() {
        for count in [1_u16, 2, 3, 9, 20] {
            let all = nodes(count);
            let mut told = BTreeMap::<NodeId, usize>::new();
            for node in &all {
                let peers = next_round(&all, node.node);
                assert_eq!(peers.len(), MOST_PEERS.min(usize::from(count) - 1));
                for peer in peers {
                    assert_ne!(peer.node, node.node);
                    *told.entry(peer.node).or_default() += 1;
                }
            }
            let each = MOST_PEERS.min(usize::from(count) - 1);
            assert!(told.values().all(|times| *times == each), "{count}");
        }
    }

    #[test]
    fn a_node_that_is_not_in_the_list_yet_is_told_of_the_others() {
        let all = nodes(3);
        let stranger = NodeId::from_uuid(uuid::Uuid::from_u128(77));
        assert_eq!(next_round(&all, stranger).len(), 3);
    }
}
