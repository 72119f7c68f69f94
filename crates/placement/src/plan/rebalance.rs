//! Rebalancing: repair what is broken, clear the mark, even out what is worth it; or say why not.
//!
//! The passes repeat until none of them finds a move, so that planning again right after finds
//! nothing either.

use std::cmp::Reverse;

use crate::cluster::{Cluster, tenths};
use crate::policy::Policy;
use crate::snapshot::{NodeState, Snapshot};
use crate::survive::unsurvivable;

use super::relief::{ByCost, best_target, cheapest_set, free_to_leave, may_move, trigger};
use super::score::{broken_on, misplaced};
use super::steps::Draft;
use super::{Plan, PlanError};

/// Nodes from which a pass tries to take a server for the sake of evenness.
const HOTTEST: usize = 8;

/// A bounded sequence of moves that makes the cluster better, and why each is made.
///
/// # Errors
/// A contradictory input.
pub fn rebalance(snapshot: &Snapshot, policy: &Policy) -> Result<Plan, PlanError> {
    let mut c = Cluster::new(snapshot, policy)?;
    let mut draft = Draft::new(&c);
    loop {
        let before = draft.steps.len();
        draft.refused.clear();
        repair(&mut c, &mut draft);
        survive(&mut c, &mut draft);
        relieve(&mut c, &mut draft);
        even_out(&mut c, &mut draft);
        if draft.steps.len() == before || draft.steps.len() >= policy.max_moves {
            break;
        }
    }
    draft.steps.truncate(policy.max_moves);
    let cut = draft.steps.len() == policy.max_moves;
    Ok(draft.finish(&c, |d| summary(&c, d, cut)))
}

fn summary(c: &Cluster<'_>, d: &Draft, cut: bool) -> String {
    if d.steps.is_empty() {
        if let Some(r) = d.refused.first() {
            return format!("no useful move: {}: {}", r.subject, r.reason);
        }
        let highest = c.up().map(|n| c.water(n)).max().unwrap_or(0);
        return format!(
            "no useful move: nothing is broken, no node is to be relieved, and the busiest ({} %) \
             is not far enough above the mean ({} %) for a move to be worth its cost",
            tenths(highest),
            tenths(c.mean_water())
        );
    }
    let mib: u64 = d.steps.iter().map(|s| s.copies_mib).sum();
    let cut = if cut {
        ", cut off at the most moves allowed"
    } else {
        ""
    };
    format!(
        "{} moves copy {} GiB{cut}",
        d.steps.len(),
        mib.div_ceil(1024)
    )
}

fn full(c: &Cluster<'_>, draft: &Draft) -> bool {
    draft.steps.len() >= c.policy.max_moves
}

/// Whether moves would leave fewer losses survivable than before.
fn hurts_survival(c: &mut Cluster<'_>, moves: &[(usize, usize)]) -> bool {
    if c.policy.survive_losses == 0 {
        return false;
    }
    let before = unsurvivable(c).len();
    let mut old = Vec::with_capacity(moves.len());
    for &(server, to) in moves {
        old.push((server, c.servers[server].place.clone()));
        let (place, _) = super::steps::after_migration(c, server, to);
        c.set(server, place);
    }
    let after = unsurvivable(c).len();
    for (server, place) in old {
        c.set(server, place);
    }
    after > before
}

/// Servers that stand where they may not, and nodes with more reserved than they have.
fn repair(c: &mut Cluster<'_>, draft: &mut Draft) {
    for n in 0..c.nodes.len() {
        if c.nodes[n].state == NodeState::Lost {
            continue;
        }
        for s in c.nodes[n].owned.clone() {
            if let Some(why) = misplaced(c, s, n) {
                leave(c, draft, s, &format!("must leave: {why}"));
            }
        }
        while broken_on(c, n) > 0 && !full(c, draft) {
            let mut servers = free_to_leave(c, n);
            servers.sort_by_key(|&s| (c.server_info[s].reserved.memory_mib, s));
            let over = (0..3).any(|k| c.nodes[n].reserved[k] > c.nodes[n].limits[k]);
            if !over
                || !servers
                    .into_iter()
                    .any(|s| leave(c, draft, s, "its node is overfull"))
            {
                break;
            }
        }
    }
}

fn leave(c: &mut Cluster<'_>, draft: &mut Draft, server: usize, why: &str) -> bool {
    if full(c, draft) || !may_move(c, server, c.policy.rest_s) {
        return false;
    }
    let target = best_target(c, server, c.policy.target_water)
        .or_else(|_| best_target(c, server, c.policy.high_water));
    match target {
        Ok(t) => {
            let reason = format!(
                "{why}; {} then has {} % predicted use",
                c.node_id(t.node),
                tenths(t.water)
            );
            draft.migrate(c, server, t.node, reason);
            true
        }
        Err(lacks) => {
            let reason = format!(
                "{why}, but it is refused on {}",
                Cluster::tally(lacks.into_iter())
            );
            draft.refuse(c.server_id(server), reason);
            false
        }
    }
}

/// Moves that make more losses survivable.
fn survive(c: &mut Cluster<'_>, draft: &mut Draft) {
    let mut budget = 400;
    'again: while !full(c, draft) {
        let broken = unsurvivable(c);
        if broken.is_empty() {
            return;
        }
        let suspects: Vec<usize> = broken.iter().flatten().copied().collect();
        for &n in &suspects {
            let mut servers = free_to_leave(c, n);
            servers.sort_by_key(|&s| (Reverse(c.server_info[s].reserved.memory_mib), s));
            for s in servers {
                let Ok(t) = best_target(c, s, c.policy.target_water) else {
                    continue;
                };
                budget -= 1;
                if budget == 0 {
                    break 'again;
                }
                let old = c.servers[s].place.clone();
                let (place, _) = super::steps::after_migration(c, s, t.node);
                c.set(s, place);
                let left = unsurvivable(c).len();
                c.set(s, old);
                if left < broken.len() {
                    let reason = format!(
                        "losses that cannot be survived fall from {} to {left}",
                        broken.len()
                    );
                    draft.migrate(c, s, t.node, reason);
                    continue 'again;
                }
            }
        }
        break;
    }
    for set in unsurvivable(c) {
        let ids: Vec<&str> = set.iter().map(|&n| c.node_id(n)).collect();
        draft.refuse(
            &ids.join("+"),
            "its loss cannot be survived, and no single move changes that",
        );
    }
}

/// Brings the nodes above the mark below it with as little copying as possible.
fn relieve(c: &mut Cluster<'_>, draft: &mut Draft) {
    let mut hot: Vec<(u64, usize)> = (0..c.nodes.len())
        .filter(|&n| trigger(c, n).is_some())
        .map(|n| (c.water(n), n))
        .collect();
    hot.sort_by_key(|&(w, n)| (Reverse(w), n));
    for (_, n) in hot {
        let Some((goal, why)) = trigger(c, n) else {
            continue;
        };
        if let Some(moves) = cheapest_set(c, n, goal)
            && draft.steps.len() + moves.len() <= c.policy.max_moves
            && !hurts_survival(c, &moves)
        {
            for (s, t) in moves {
                let reason = format!(
                    "{why}: leaving brings {} from {} % to {} %, {} goes to {} %",
                    c.node_id(n),
                    tenths(c.water(n)),
                    tenths(c.water_with(n, None, Some(s))),
                    c.node_id(t),
                    tenths(c.water_with(t, Some(s), None)),
                );
                draft.migrate(c, s, t, reason);
            }
            continue;
        }
        relieve_partly(c, draft, n, goal, &why);
    }
}

/// Where the mark cannot be cleared: single moves that take at least the least gain off the excess.
fn relieve_partly(c: &mut Cluster<'_>, draft: &mut Draft, n: usize, goal: u64, why: &str) {
    while !full(c, draft) {
        let now = c.water(n);
        let excess = now.saturating_sub(goal);
        if excess == 0 {
            return;
        }
        let mut choices: Vec<(u64, usize, usize, u64)> = Vec::new();
        let mut lacks = Vec::new();
        for s in free_to_leave(c, n) {
            match best_target(c, s, c.policy.target_water) {
                Ok(t) => {
                    let gain = now - c.water_with(n, None, Some(s)).min(now);
                    if gain * 1000 >= excess * c.policy.min_gain && gain > 0 {
                        choices.push((gain, s, t.node, t.water));
                    }
                }
                Err(l) => lacks.extend(l),
            }
        }
        choices.sort_by_key(|&(gain, s, ..)| (Reverse(gain), s));
        let Some(&(gain, s, t, water)) = choices
            .iter()
            .find(|&&(_, s, t, _)| !hurts_survival(c, &[(s, t)]))
        else {
            let reason = if lacks.is_empty() {
                "no server that may move takes enough off it".to_owned()
            } else {
                format!(
                    "its servers are refused on {}",
                    Cluster::tally(lacks.into_iter())
                )
            };
            draft.refuse(
                c.node_id(n),
                format!("stays at {} % ({why}): {reason}", tenths(now)),
            );
            return;
        };
        let reason = format!(
            "{why}: takes {} % off {}, {} goes to {} %",
            tenths(gain),
            c.node_id(n),
            c.node_id(t),
            tenths(water)
        );
        draft.migrate(c, s, t, reason);
    }
}

/// Moves off the busiest nodes while they are far above the mean and the gain is worth the copying.
fn even_out(c: &mut Cluster<'_>, draft: &mut Draft) {
    while !full(c, draft) {
        let mean = c.mean_water();
        let mut hot: Vec<(u64, usize)> = c
            .up()
            .map(|n| (c.water(n), n))
            .filter(|(w, _)| *w > mean + c.policy.evenness_gap)
            .collect();
        hot.sort_by_key(|&(w, n)| (Reverse(w), n));
        hot.truncate(HOTTEST);
        let Some((s, t, reason)) = hot.iter().find_map(|&(w, n)| worth_it(c, n, w)) else {
            return;
        };
        draft.migrate(c, s, t, reason);
    }
}

fn worth_it(c: &mut Cluster<'_>, n: usize, now: u64) -> Option<(usize, usize, String)> {
    let mut best: Option<(u64, Reverse<u64>, usize, usize)> = None;
    for s in free_to_leave(c, n) {
        if !may_move(c, s, c.policy.cool_down_s) {
            continue;
        }
        let Ok(t) = best_target(c, s, c.policy.target_water) else {
            continue;
        };
        let higher = c.water_with(n, None, Some(s)).max(t.water);
        let gain = now.saturating_sub(higher);
        let disk = super::steps::after_migration(c, s, t.node).1;
        let Some(seconds) = c.server_info[s].migration_seconds(c.policy.bandwidth_mib_s, disk)
        else {
            continue;
        };
        let worth = gain * 1000 >= now * c.policy.min_gain
            && gain.saturating_mul(c.policy.seconds_per_point) >= seconds;
        let key = (gain, Reverse(seconds), s, t.node);
        if worth && best.is_none_or(|b| (key.0, key.1) > (b.0, b.1)) {
            best = Some(key);
        }
    }
    let (gain, Reverse(seconds), s, t) = best?;
    if hurts_survival(c, &[(s, t)]) {
        return None;
    }
    let reason = format!(
        "evens out: the busier of {} and {} falls by {} % for {seconds} s of copying",
        c.node_id(n),
        c.node_id(t),
        tenths(gain)
    );
    Some((s, t, reason))
}

/// A lower bound on the MiB that clearing the high-water mark must copy: for each node above it, the
/// cheapest set of its servers whose leaving is enough, wherever they would go.
///
/// # Errors
/// A contradictory input.
pub fn least_relief_mib(snapshot: &Snapshot, policy: &Policy) -> Result<u64, PlanError> {
    const SETS: usize = 2_000_000;
    let c = Cluster::new(snapshot, policy)?;
    let mut sum = 0;
    for n in c.up().filter(|&n| c.water(n) > policy.high_water) {
        let mut servers: Vec<(u64, usize)> = c.nodes[n]
            .owned
            .iter()
            .map(|&s| (c.server_info[s].reserved.memory_mib, s))
            .collect();
        servers.sort_unstable();
        let costs: Vec<u64> = servers.iter().map(|s| s.0).collect();
        let mut reached = 0;
        for (cost, set) in ByCost::new(&costs).take(SETS) {
            reached = cost;
            let gone: Vec<usize> = set.iter().map(|&k| servers[k].1).collect();
            if c.water_without(n, &gone) <= policy.high_water {
                break;
            }
        }
        // Every cheaper set was looked at, so even an unfinished search bounds from below.
        sum += reached;
    }
    Ok(sum)
}
