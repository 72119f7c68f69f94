//! Whether every server with another copy could be restarted after a loss (N+1, or k by policy).
//!
//! A loss is survivable when packing the lost servers, largest memory first, finds each a place: on
//! a node with a copy first, otherwise on the node with the most free memory (a copy may be used
//! from afar). Packing is a heuristic: it may call a loss unsurvivable that a cleverer packing
//! would survive, never the other way round.

use std::collections::HashMap;

use crate::cluster::Cluster;
use crate::snapshot::{NodeState, Storage};

/// With more than one loss at once, only sets of the nodes that carry most memory are tried.
const SUSPECTS: usize = 12;

/// Sets of nodes whose loss would leave a server without a place.
pub(crate) fn unsurvivable(cluster: &Cluster<'_>) -> Vec<Vec<usize>> {
    let k = cluster.policy.survive_losses;
    if k == 0 {
        return vec![];
    }
    let order = by_free_memory(cluster);
    let mut out: Vec<Vec<usize>> = running(cluster)
        .filter(|&n| !survives(cluster, &[n], &order))
        .map(|n| vec![n])
        .collect();
    for size in 2..=k {
        let mut suspects: Vec<usize> = running(cluster).collect();
        suspects.sort_by_key(|&n| (std::cmp::Reverse(cluster.nodes[n].reserved[1]), n));
        suspects.truncate(SUSPECTS);
        suspects.sort_unstable();
        for set in subsets(&suspects, size) {
            if !survives(cluster, &set, &order) {
                out.push(set);
            }
        }
    }
    out
}

fn running<'a>(cluster: &'a Cluster<'_>) -> impl Iterator<Item = usize> + 'a {
    (0..cluster.nodes.len()).filter(|&n| cluster.nodes[n].state != NodeState::Lost)
}

fn by_free_memory(cluster: &Cluster<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = cluster.up().collect();
    order.sort_by_key(|&n| (std::cmp::Reverse(free(cluster, n)), n));
    order
}

fn free(cluster: &Cluster<'_>, n: usize) -> u64 {
    cluster.nodes[n].limits[1].saturating_sub(cluster.nodes[n].reserved[1])
}

fn subsets(of: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![vec![]];
    }
    let mut out = Vec::new();
    for (i, &first) in of.iter().enumerate() {
        for mut rest in subsets(&of[i + 1..], size - 1) {
            rest.insert(0, first);
            out.push(rest);
        }
    }
    out
}

/// What the packing has put on the nodes that it used.
#[derive(Default)]
struct Extra {
    amounts: HashMap<usize, [u64; 2]>,
    groups: Vec<(usize, usize)>,
}

fn survives(cluster: &Cluster<'_>, lost: &[usize], order: &[usize]) -> bool {
    let mut servers: Vec<usize> = lost
        .iter()
        .flat_map(|&n| cluster.nodes[n].owned.iter().copied())
        .collect();
    servers.sort_by_key(|&s| {
        (
            std::cmp::Reverse(cluster.server_info[s].reserved.memory_mib),
            s,
        )
    });
    let mut extra = Extra::default();
    for s in servers {
        let copies = &cluster.servers[s].place.copies;
        let reachable = || copies.iter().copied().filter(|c| !lost.contains(c));
        let replicated = cluster.server_info[s].storage == Storage::Replicated;
        if replicated && reachable().next().is_none() {
            // Its only copies are lost with it: room elsewhere would not help.
            continue;
        }
        let home = reachable()
            .chain(order.iter().copied())
            .find(|&n| !lost.contains(&n) && takes(cluster, s, n, &extra));
        let Some(home) = home else { return false };
        let r = &cluster.server_info[s].reserved;
        let e = extra.amounts.entry(home).or_default();
        e[0] += r.cpu_milli;
        e[1] += r.memory_mib;
        if let Some(g) = cluster.servers[s].group {
            extra.groups.push((home, g));
        }
    }
    true
}

fn takes(cluster: &Cluster<'_>, s: usize, n: usize, extra: &Extra) -> bool {
    let more = extra.amounts.get(&n).copied().unwrap_or_default();
    let r = &cluster.server_info[s].reserved;
    let at = &cluster.nodes[n];
    if at.reserved[1] + more[1] + r.memory_mib > at.limits[1]
        || at.reserved[0] + more[0] + r.cpu_milli > at.limits[0]
    {
        return false;
    }
    if cluster.servers[s]
        .group
        .is_some_and(|g| extra.groups.contains(&(n, g)))
    {
        return false;
    }
    cluster.fits_remote(s, n).is_ok()
}
