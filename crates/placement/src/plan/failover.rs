//! Fail-over: where the servers of lost nodes start again, most important first, spread out.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::cluster::{Cluster, Lack, tenths};
use crate::policy::{Policy, RackRule};
use crate::snapshot::{NodeState, Snapshot, Storage};

use super::place::best_copy;
use super::steps::Draft;
use super::{Plan, PlanError};

/// How good a node is for a restart; lower is better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fitness {
    /// It would use a copy from afar.
    remote: bool,
    /// It would be above the high-water mark.
    above_mark: bool,
    /// Restarts that it was given already: they run in parallel, so they are spread.
    restarts: usize,
    water: u64,
    node: usize,
}

/// Targets for all servers of the lost nodes, whatever set of nodes that is.
///
/// # Errors
/// A contradictory input or an unknown node.
pub fn failover(snapshot: &Snapshot, policy: &Policy, lost: &[String]) -> Result<Plan, PlanError> {
    let mut c = Cluster::new(snapshot, policy)?;
    let mut gone = Vec::new();
    for id in lost {
        let n = c.find_node(id, "the fail-over")?;
        c.nodes[n].state = NodeState::Lost;
        gone.push(n);
    }
    let mut draft = Draft::new(&c);
    let mut servers: Vec<(usize, usize)> = gone
        .iter()
        .flat_map(|&n| c.nodes[n].owned.iter().map(move |&s| (s, n)))
        .collect();
    servers.sort_by_key(|&(s, _)| {
        let info = c.server_info[s];
        (
            Reverse(info.importance),
            Reverse(info.reserved.memory_mib),
            s,
        )
    });
    let mut restarts = HashMap::new();
    let short = drop_lost_copies(&mut c);
    for &(s, from) in &servers {
        restart(&mut c, &mut draft, s, from, &mut restarts);
    }
    for s in short {
        replicate(&mut c, &mut draft, s);
    }
    Ok(draft.finish(&c, |d| {
        if servers.is_empty() {
            return "nothing to start: no server ran on the lost nodes".to_owned();
        }
        let waiting = servers
            .iter()
            .filter(|(s, _)| d.refused.iter().any(|r| r.subject == c.server_id(*s)))
            .count();
        format!(
            "{} of {} servers start elsewhere",
            servers.len() - waiting,
            servers.len()
        )
    }))
}

/// Takes the copies on lost nodes out of the reckoning; the servers that are short of copies then.
fn drop_lost_copies(c: &mut Cluster<'_>) -> Vec<usize> {
    let mut short = Vec::new();
    for s in 0..c.servers.len() {
        if c.server_info[s].storage == Storage::Shared {
            continue;
        }
        let mut place = c.servers[s].place.clone();
        let had = place.copies.len() + usize::from(place.local);
        let lost = |n: &usize| c.nodes[*n].state == NodeState::Lost;
        place.copies.retain(|n| !lost(n));
        place.local = place.local && !place.owner.iter().any(lost);
        let left = place.copies.len() + usize::from(place.local);
        if left < had {
            short.push(s);
            // The owner stays on paper until it is restarted.
            c.set(s, place);
        }
    }
    short
}

fn restart(
    c: &mut Cluster<'_>,
    draft: &mut Draft,
    s: usize,
    from: usize,
    restarts: &mut HashMap<usize, usize>,
) {
    let id = c.server_id(s).to_owned();
    let shared = c.server_info[s].storage == Storage::Shared;
    if !shared && c.servers[s].place.copies.is_empty() {
        return draft.refuse(&id, "waits for a replica: no copy of its disk is in reach");
    }
    let mut lacks: Vec<Lack> = Vec::new();
    let mut best: Option<Fitness> = None;
    for n in 0..c.nodes.len() {
        if let Err(lack) = c.fits_remote(s, n) {
            lacks.push(lack);
            continue;
        }
        let water = c.water_with(n, Some(s), None);
        let f = Fitness {
            remote: !shared && !c.servers[s].place.copies.contains(&n),
            above_mark: water > c.policy.high_water,
            restarts: restarts.get(&n).copied().unwrap_or(0),
            water,
            node: n,
        };
        if best.as_ref().is_none_or(|b| f < *b) {
            best = Some(f);
        }
    }
    let Some(f) = best else {
        return draft.refuse(
            &id,
            format!("refused on {}", Cluster::tally(lacks.into_iter())),
        );
    };
    *restarts.entry(f.node).or_default() += 1;
    let how = match (shared, f.remote) {
        (true, _) => "reaches its disk",
        (false, false) => "holds a copy",
        (false, true) => "has room, and no node with a copy has",
    };
    let reason = format!(
        "{} is lost; {} {how}, {} % predicted use with it",
        c.node_id(from),
        c.node_id(f.node),
        tenths(f.water)
    );
    draft.restart(c, s, (from, f.node), reason);
}

/// Brings a server back to the copies that it should have.
fn replicate(c: &mut Cluster<'_>, draft: &mut Draft, s: usize) {
    let alive = c.servers[s]
        .place
        .owner
        .is_some_and(|n| c.nodes[n].state != NodeState::Lost);
    if !alive {
        return;
    }
    loop {
        let place = &c.servers[s].place;
        if place.copies.len() + usize::from(place.local) >= c.policy.copies {
            return;
        }
        let owner = place.owner;
        let local = owner.filter(|&n| !place.local && room_for_own_copy(c, s, n));
        match local.map_or_else(|| best_copy(c, s), Ok) {
            Ok(to) => {
                let reason = format!("a copy was lost; {} has room for a new one", c.node_id(to));
                draft.add_replica(c, s, to, reason);
            }
            Err(lack) => {
                let id = c.server_id(s).to_owned();
                let reason = format!("stays short of copies: {} {}", lack.name(), lack.amount());
                return draft.refuse(&format!("{id} (copy)"), reason.trim_end());
            }
        }
    }
}

fn room_for_own_copy(c: &Cluster<'_>, s: usize, n: usize) -> bool {
    let at = &c.nodes[n];
    let apart = c.policy.racks != RackRule::Require || !c.shares_rack(s, n, None);
    apart
        && at.state == NodeState::Up
        && at.reserved[2] + c.server_info[s].reserved.disk_mib <= at.limits[2]
}
