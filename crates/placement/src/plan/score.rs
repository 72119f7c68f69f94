//! The product's objective as an ordered struct: an earlier field outweighs all later ones.

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::error::InputError;
use crate::policy::{Policy, RackRule};
use crate::snapshot::{NodeState, Snapshot};
use crate::survive::unsurvivable;

/// How good a cluster's state is: lower is better, the first field that differs decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Score {
    /// Hard limits broken.
    pub broken_limits: usize,
    /// Sets of nodes (one node for N+1) whose loss would leave a server without a place.
    pub unsurvivable_losses: usize,
    /// Nodes whose predicted use is above the high-water mark.
    pub nodes_above_mark: usize,
    /// How far above in sum, thousandths.
    pub excess: u64,
    /// Highest predicted use, thousandths.
    pub highest_use: u64,
    /// Standard deviation of the predicted use, thousandths.
    pub unevenness: u64,
    /// Copies that share a rack with another copy of the same server.
    pub shared_racks: usize,
}

/// The score of a snapshot.
///
/// # Errors
/// The first contradiction in the snapshot or the policy.
pub fn score(snapshot: &Snapshot, policy: &Policy) -> Result<Score, InputError> {
    Ok(of(&Cluster::new(snapshot, policy)?))
}

pub(super) fn of(c: &Cluster<'_>) -> Score {
    let waters: Vec<u64> = c.up().map(|n| c.water(n)).collect();
    let excess = |w: &u64| w.saturating_sub(c.policy.high_water);
    let count = (waters.len() as u128).max(1);
    let sum: u128 = waters.iter().map(|w| u128::from(*w)).sum();
    let square: u128 = waters.iter().map(|w| u128::from(*w).pow(2)).sum();
    Score {
        broken_limits: (0..c.nodes.len()).map(|n| broken_on(c, n)).sum(),
        unsurvivable_losses: unsurvivable(c).len(),
        nodes_above_mark: waters.iter().filter(|w| excess(w) > 0).count(),
        excess: waters.iter().map(excess).sum(),
        highest_use: waters.iter().copied().max().unwrap_or(0),
        unevenness: ((square * count - sum.pow(2)) / count.pow(2)).isqrt() as u64,
        shared_racks: if c.policy.racks == RackRule::Ignore {
            0
        } else {
            (0..c.servers.len())
                .map(|s| {
                    let copies = &c.servers[s].place.copies;
                    copies
                        .iter()
                        .filter(|&&n| c.shares_rack(s, n, None))
                        .count()
                })
                .sum()
        },
    }
}

/// Hard limits that the node and its servers break.
pub(super) fn broken_on(c: &Cluster<'_>, node: usize) -> usize {
    let n = &c.nodes[node];
    if n.state == NodeState::Lost {
        return 0;
    }
    let limits = (0..5).filter(|&k| n.reserved[k] > n.limits[k]).count();
    limits
        + n.owned
            .iter()
            .filter(|&&s| misplaced(c, s, node).is_some())
            .count()
}

/// Why a server may not stand where it stands, whatever room there is.
pub(super) fn misplaced(c: &Cluster<'_>, server: usize, node: usize) -> Option<&'static str> {
    let info = c.server_info[server];
    if !info.needs_tags.is_subset(&c.node_info[node].tags) {
        return Some("its node lacks a tag that it needs");
    }
    if info.min_cpu_generation > c.node_info[node].cpu_generation {
        return Some("its node's CPU is too old");
    }
    let group = c.servers[server].group?;
    // Of two that must not meet, the later one is misplaced.
    let other = |o: &usize| *o < server && c.servers[*o].group == Some(group);
    c.nodes[node]
        .owned
        .iter()
        .any(other)
        .then_some("its node runs another server of its group")
}
