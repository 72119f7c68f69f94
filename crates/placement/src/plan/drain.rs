//! Draining: everything leaves the named nodes, servers and copies alike.

use std::cmp::Reverse;

use crate::cluster::{Cluster, tenths};
use crate::policy::Policy;
use crate::snapshot::{NodeState, Snapshot};

use super::place::best_copy;
use super::relief::best_target;
use super::steps::Draft;
use super::{Plan, PlanError};

/// Empties the named nodes. Cool-downs do not count; hard limits do.
///
/// # Errors
/// A contradictory input or an unknown node.
pub fn drain(snapshot: &Snapshot, policy: &Policy, nodes: &[String]) -> Result<Plan, PlanError> {
    let mut c = Cluster::new(snapshot, policy)?;
    let mut drained = Vec::new();
    for id in nodes {
        let n = c.find_node(id, "the drain")?;
        if c.nodes[n].state != NodeState::Lost {
            c.nodes[n].state = NodeState::Draining;
        }
        drained.push(n);
    }
    let mut draft = Draft::new(&c);
    for &n in &drained {
        let mut servers = c.nodes[n].owned.clone();
        // The largest first: the small ones find a place more easily.
        servers.sort_by_key(|&s| (Reverse(c.server_info[s].reserved.memory_mib), s));
        for s in servers {
            move_server(&mut c, &mut draft, s, n);
        }
        for s in c.nodes[n].copies.clone() {
            move_copy(&mut c, &mut draft, s, n);
        }
    }
    Ok(draft.finish(&c, |d| {
        let left: usize = drained
            .iter()
            .map(|&n| c.nodes[n].owned.len() + c.nodes[n].copies.len())
            .sum();
        let mib: u64 = d.steps.iter().map(|s| s.copies_mib).sum();
        match (d.steps.len(), left) {
            (0, 0) => "no useful move: nothing stands on the nodes to be drained".to_owned(),
            (steps, 0) => format!(
                "{steps} steps copy {} GiB and leave nothing",
                mib.div_ceil(1024)
            ),
            (steps, left) => format!("{steps} steps; {left} servers and copies cannot leave"),
        }
    }))
}

fn move_server(c: &mut Cluster<'_>, draft: &mut Draft, s: usize, from: usize) {
    let id = c.server_id(s).to_owned();
    if !c.server_info[s].movable {
        return draft.refuse(&id, "it is marked as not to be moved");
    }
    if c.server_info[s]
        .migration_seconds(c.policy.bandwidth_mib_s, false)
        .is_none()
    {
        return draft.refuse(
            &id,
            format!(
                "it rewrites {} MiB/s of memory, as much as a migration copies; stop it to move it",
                c.server_info[s].dirty_mib_s
            ),
        );
    }
    let policy = c.policy;
    let target = best_target(c, s, policy.target_water)
        .or_else(|_| best_target(c, s, policy.high_water))
        .or_else(|_| best_target(c, s, u64::MAX));
    match target {
        Ok(t) => {
            let reason = format!(
                "{} is drained; {} has room and then {} % predicted use",
                c.node_id(from),
                c.node_id(t.node),
                tenths(t.water)
            );
            draft.migrate(c, s, t.node, reason);
        }
        Err(lacks) => {
            draft.refuse(
                &id,
                format!("refused on {}", Cluster::tally(lacks.into_iter())),
            );
        }
    }
}

fn move_copy(c: &mut Cluster<'_>, draft: &mut Draft, s: usize, from: usize) {
    match best_copy(c, s) {
        Ok(to) => {
            let reason = format!(
                "{} is drained; {} has room for the copy",
                c.node_id(from),
                c.node_id(to)
            );
            draft.move_replica(c, s, (from, to), reason);
        }
        Err(lack) => {
            let amount = lack.amount();
            let by = if amount.is_empty() {
                String::new()
            } else {
                format!(", short by {amount}")
            };
            let id = c.server_id(s).to_owned();
            draft.refuse(
                &id,
                format!("its copy has no other node: {}{by}", lack.name()),
            );
        }
    }
}
