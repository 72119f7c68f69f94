//! The node's peers, as its guard sees them; pure. Whoever reaches half of them is not cut off,
//! whatever became of control.
//!
//! A peer is *gone* when a probe that was sent after the trouble began has ended without an
//! answer, and no later one brought one. One that was not tried yet counts neither way: a guard
//! that was itself stalled first asks.

use std::collections::BTreeMap;

use undine_api::guard::Peer;
use undine_model::NodeId;

/// The peers.
#[derive(Debug, Clone, Default)]
pub struct Circle {
    peers: BTreeMap<NodeId, Sight>,
}

/// A peer, and when the probes that were last answered, and last not, had been sent.
#[derive(Debug, Clone)]
struct Sight {
    peer: Peer,
    answered_ms: Option<u64>,
    silent_ms: Option<u64>,
}

impl Circle {
    /// Control told of these. None at all is no news: an instance that has just started knows
    /// nobody yet. Tells whether anything changed.
    pub fn told(&mut self, peers: Vec<Peer>) -> bool {
        if peers.is_empty() || peers.iter().eq(self.peers.values().map(|it| &it.peer)) {
            return false;
        }
        let mut old = std::mem::take(&mut self.peers);
        for peer in peers {
            let kept = old.remove(&peer.node).filter(|it| it.peer == peer);
            let sight = kept.unwrap_or_else(|| Sight {
                peer: peer.clone(),
                answered_ms: None,
                silent_ms: None,
            });
            self.peers.insert(peer.node, sight);
        }
        true
    }

    /// The peers, in the order of their ids.
    pub fn peers(&self) -> Vec<Peer> {
        self.peers.values().map(|it| it.peer.clone()).collect()
    }

    /// A probe sent then was answered.
    pub fn answered(&mut self, node: NodeId, sent_ms: u64) {
        if let Some(sight) = self.peers.get_mut(&node) {
            sight.answered_ms = sight.answered_ms.max(Some(sent_ms));
        }
    }

    /// A probe sent then has ended without an answer.
    pub fn silent(&mut self, node: NodeId, sent_ms: u64) {
        if let Some(sight) = self.peers.get_mut(&node) {
            sight.silent_ms = sight.silent_ms.max(Some(sent_ms));
        }
    }

    /// Is more than half of it gone since then? Without peers there is nobody who could have taken
    /// anything over, and nothing is concluded.
    pub fn is_lost(&self, since_ms: u64) -> bool {
        let gone = self.peers.values().filter(|it| it.is_gone(since_ms));
        gone.count() * 2 > self.peers.len()
    }
}

impl Sight {
    fn is_gone(&self, since_ms: u64) -> bool {
        self.silent_ms >= Some(since_ms) && self.silent_ms > self.answered_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Peer {
        Peer {
            node: NodeId::from_parts(u64::from(number), [0; 10]),
            address: ([10, 0, 0, number], 7300).into(),
            storage: None,
        }
    }

    fn circle(count: u8) -> (Circle, Vec<NodeId>) {
        let peers: Vec<Peer> = (1..=count).map(peer).collect();
        let nodes = peers.iter().map(|it| it.node).collect();
        let mut circle = Circle::default();
        assert_eq!(circle.told(peers), count > 0);
        (circle, nodes)
    }

    #[test]
    fn half_of_the_peers_is_enough_and_less_is_not() {
        for (count, gone, lost) in [
            (0, 0, false),
            (1, 0, false),
            (1, 1, true),
            (2, 1, false),
            (2, 2, true),
            (3, 1, false),
            (3, 2, true),
            (8, 4, false),
            (8, 5, true),
        ] {
            let (mut circle, nodes) = circle(count);
            for (at, node) in nodes.iter().enumerate() {
                if at < gone {
                    circle.silent(*node, 5_000);
                } else {
                    circle.answered(*node, 5_000);
                }
            }
            assert_eq!(circle.is_lost(4_000), lost, "{gone} of {count}");
        }
    }

    #[test]
    fn who_was_not_tried_since_the_trouble_began_counts_neither_way() {
        let (mut circle, nodes) = circle(1);
        assert!(!circle.is_lost(0));
        circle.silent(nodes[0], 1_000);
        assert!(!circle.is_lost(1_001));
        assert!(circle.is_lost(1_000));
        circle.answered(nodes[0], 1_500);
        assert!(!circle.is_lost(1_000));
        circle.silent(nodes[0], 2_000);
        // The answer to the older probe was only slow.
        circle.answered(nodes[0], 1_800);
        assert!(circle.is_lost(1_000));
    }

    #[test]
    fn what_is_known_of_a_peer_stays_while_its_address_does() {
        let (mut circle, nodes) = circle(2);
        circle.silent(nodes[0], 1_000);
        circle.silent(nodes[1], 1_000);
        assert!(circle.is_lost(1_000));
        assert!(!circle.told(vec![]));
        assert!(!circle.told(vec![peer(1), peer(2)]));
        assert!(circle.told(vec![peer(1), peer(2), peer(3)]));
        assert!(circle.is_lost(1_000), "two of three");
        let moved = Peer {
            address: ([10, 0, 9, 9], 7300).into(),
            ..peer(1)
        };
        assert!(circle.told(vec![moved, peer(2), peer(3)]));
        assert!(!circle.is_lost(1_000), "one of three");
        circle.silent(peer(9).node, 5_000);
        assert_eq!(circle.peers().len(), 3);
    }
}
