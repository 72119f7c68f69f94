//! Relieving one node: the cheapest set of its servers whose leaving brings it below the mark.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::cluster::{Cluster, Lack, tenths};
use crate::policy::RackRule;
use crate::snapshot::{NodeState, Storage};

use super::steps::migration_mib;

/// Sets looked at before an exact answer is given up for a greedy one.
const MOST_SETS: usize = 30_000;
/// Sets whose targets are looked for.
const MOST_TRIES: usize = 60;

/// A good node for a server that moves; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// MiB copied.
    copies_mib: u64,
    /// The copies would share a rack.
    shared_rack: bool,
    /// Predicted use afterwards.
    pub water: u64,
    pub node: usize,
}

/// The best target of a server, with the predicted use of the target held below `most`.
pub(super) fn best_target(c: &Cluster<'_>, server: usize, most: u64) -> Result<Target, Vec<Lack>> {
    let from = c.servers[server].place.owner;
    let mut lacks = Vec::new();
    let mut best: Option<Target> = None;
    for n in (0..c.nodes.len()).filter(|&n| Some(n) != from) {
        if let Err(lack) = c.fits_owner(server, n) {
            lacks.push(lack);
            continue;
        }
        let water = c.water_with(n, Some(server), None);
        if water > most {
            lacks.push(Lack::Water(water - most));
            continue;
        }
        let builds = c.server_info[server].storage == Storage::Replicated
            && !c.servers[server].place.copies.contains(&n);
        let shared_rack =
            builds && c.policy.racks != RackRule::Ignore && c.shares_rack(server, n, from);
        if shared_rack && c.policy.racks == RackRule::Require {
            lacks.push(Lack::Rack);
            continue;
        }
        let target = Target {
            copies_mib: migration_mib(c, server, n),
            shared_rack,
            water,
            node: n,
        };
        if best.is_none_or(|b| target < b) {
            best = Some(target);
        }
    }
    best.ok_or(lacks)
}

/// Whether a node is to be relieved, why, and the use to bring it to.
pub(super) fn trigger(c: &Cluster<'_>, node: usize) -> Option<(u64, String)> {
    let (at, info, policy) = (&c.nodes[node], c.node_info[node], c.policy);
    if at.state == NodeState::Lost {
        return None;
    }
    let water = c.water(node);
    if !at.touched {
        let p = info.pressure;
        let worst = [
            (p.cpu, "CPU"),
            (p.memory, "memory"),
            (p.io, "I/O"),
            (p.steal, "steal"),
        ]
        .into_iter()
        .max_by_key(|x| x.0)?;
        if worst.0 >= policy.pressure_limit {
            let goal = policy.high_water.min(water.saturating_sub(water / 10));
            return Some((
                goal,
                format!("{} pressure at {} %", worst.1, tenths(worst.0)),
            ));
        }
        let from = info.recent.len().saturating_sub(policy.trigger_window);
        let window = &info.recent[from..];
        let above = window.iter().filter(|u| **u > policy.high_water).count();
        if above >= policy.trigger_samples {
            let share = policy.high_water * 1000 / window.iter().max().copied()?.max(1);
            // The samples may see more than the prediction: relieve by what they ask for.
            let goal = policy.high_water.min(water * share / 1000);
            return Some((
                goal,
                format!("{above} of {} samples above the mark", window.len()),
            ));
        }
        if window.len() >= policy.trigger_window {
            return None;
        }
    }
    (water > policy.high_water).then(|| {
        (
            policy.high_water,
            format!("predicted use {} %", tenths(water)),
        )
    })
}

/// The servers that may leave a node under load.
pub(super) fn free_to_leave(c: &Cluster<'_>, node: usize) -> Vec<usize> {
    c.nodes[node]
        .owned
        .iter()
        .copied()
        .filter(|&s| may_move(c, s, c.policy.rest_s) && c.server_info[s].movable)
        .collect()
}

/// A server that moved lately, or in this plan, rests; one that cannot be copied never moves.
pub(super) fn may_move(c: &Cluster<'_>, server: usize, rest_s: u64) -> bool {
    let info = c.server_info[server];
    !c.servers[server].moved
        && info.movable
        && info.moved_ago_s.is_none_or(|ago| ago >= rest_s)
        && info
            .migration_seconds(c.policy.bandwidth_mib_s, false)
            .is_some()
}

/// Every set of servers in the order of its cost, cheapest first, as indices into `costs`, which
/// must ascend. Each step either exchanges the last member for the next or adds the next.
pub(super) struct ByCost<'a> {
    costs: &'a [u64],
    heap: BinaryHeap<Reverse<(u64, Vec<usize>)>>,
}

impl<'a> ByCost<'a> {
    pub fn new(costs: &'a [u64]) -> Self {
        let mut heap = BinaryHeap::new();
        if let Some(first) = costs.first() {
            heap.push(Reverse((*first, vec![0])));
        }
        Self { costs, heap }
    }
}

impl Iterator for ByCost<'_> {
    type Item = (u64, Vec<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((cost, set)) = self.heap.pop()?;
        let last = *set.last()?;
        if last + 1 < self.costs.len() {
            let mut more = set.clone();
            more.push(last + 1);
            self.heap.push(Reverse((cost + self.costs[last + 1], more)));
            let mut other = set.clone();
            other.pop();
            other.push(last + 1);
            self.heap.push(Reverse((
                cost - self.costs[last] + self.costs[last + 1],
                other,
            )));
        }
        Some((cost, set))
    }
}

/// The cheapest set whose leaving brings `node` to `goal` and for which targets exist.
///
/// `blocked` are servers known to have no target.
pub(super) fn cheapest_set(c: &Cluster<'_>, node: usize, goal: u64) -> Option<Vec<(usize, usize)>> {
    let mut servers: Vec<(u64, usize)> = free_to_leave(c, node)
        .into_iter()
        .filter_map(|s| {
            let target = best_target(c, s, c.policy.target_water).ok()?;
            Some((target.copies_mib, s))
        })
        .collect();
    servers.sort_unstable();
    let all: Vec<usize> = servers.iter().map(|s| s.1).collect();
    if c.water_without(node, &all) > goal {
        return None;
    }
    let costs: Vec<u64> = servers.iter().map(|s| s.0).collect();
    let mut tries = 0;
    for (_, set) in ByCost::new(&costs).take(MOST_SETS) {
        let chosen: Vec<usize> = set.iter().map(|&k| all[k]).collect();
        if c.water_without(node, &chosen) > goal {
            continue;
        }
        if let Some(moves) = targets(c, &chosen) {
            return Some(moves);
        }
        tries += 1;
        if tries >= MOST_TRIES {
            return None;
        }
    }
    greedy_set(c, node, goal, &servers)
}

/// When exact search is too long: the servers that relieve most for a MiB, one after the other.
fn greedy_set(
    c: &Cluster<'_>,
    node: usize,
    goal: u64,
    servers: &[(u64, usize)],
) -> Option<Vec<(usize, usize)>> {
    let mut chosen: Vec<usize> = Vec::new();
    while c.water_without(node, &chosen) > goal {
        let now = c.water_without(node, &chosen);
        let gain = |s: usize| {
            let mut with = chosen.clone();
            with.push(s);
            now - c.water_without(node, &with).min(now)
        };
        let best = servers
            .iter()
            .filter(|(_, s)| !chosen.contains(s))
            .max_by_key(|(mib, s)| (gain(*s) * 1_000_000 / mib.max(&1), Reverse(*s)))?;
        chosen.push(best.1);
    }
    targets(c, &chosen)
}

/// A target for each of a set of servers that leave one node, or `None`.
fn targets(c: &Cluster<'_>, chosen: &[usize]) -> Option<Vec<(usize, usize)>> {
    let mut trial = None;
    let mut out = Vec::new();
    let mut order = chosen.to_vec();
    // The one that loads a target most chooses first.
    order.sort_by_key(|&s| (Reverse(c.servers[s].usual.iter().sum::<u64>()), s));
    for (k, &s) in order.iter().enumerate() {
        let at: &Cluster<'_> = trial.as_ref().unwrap_or(c);
        let target = best_target(at, s, c.policy.target_water).ok()?;
        out.push((s, target.node));
        if k + 1 < order.len() {
            let (place, _) = super::steps::after_migration(at, s, target.node);
            trial.get_or_insert_with(|| c.clone()).set(s, place);
        }
    }
    Some(out)
}
