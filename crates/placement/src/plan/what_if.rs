//! What if: the consequences of changes without any of them being made.

use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::policy::Policy;
use crate::snapshot::{Load, Node, NodeState, Server, Snapshot};

use super::score::{self, Score};
use super::{Plan, PlanError, Refused, drain, failover, place_server, rebalance};
use crate::cluster::Cluster;

/// One imagined change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// These nodes are lost at once.
    LoseNodes {
        /// Their ids.
        nodes: Vec<String>,
    },
    /// These nodes are emptied.
    DrainNodes {
        /// Their ids.
        nodes: Vec<String>,
    },
    /// A node is added.
    AddNode {
        /// The node.
        node: Box<Node>,
    },
    /// Servers are added; their ids are the template's with a number.
    AddServers {
        /// What each is like.
        like: Box<Server>,
        /// How many.
        count: usize,
    },
    /// All load grows or shrinks to this many thousandths.
    ScaleLoad {
        /// Thousandths of today's load.
        to: u64,
    },
    /// The planner rebalances.
    Rebalance,
}

/// What would come of the changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// The cluster today.
    pub before: Score,
    /// The cluster after all changes.
    pub after: Score,
    /// What each change would do, in order.
    pub plans: Vec<Plan>,
    /// What would not be possible.
    pub refused: Vec<Refused>,
    /// In words.
    pub summary: String,
}

/// Carries the changes out on a copy, one after the other.
///
/// # Errors
/// A contradictory input.
pub fn what_if(
    snapshot: &Snapshot,
    policy: &Policy,
    changes: &[Change],
) -> Result<WhatIf, PlanError> {
    let before = score::of(&Cluster::new(snapshot, policy)?);
    let mut now = snapshot.clone();
    let mut plans = Vec::new();
    let mut refused = Vec::new();
    for change in changes {
        imagine(&mut now, policy, change, &mut plans, &mut refused)?;
    }
    refused.extend(plans.iter().flat_map(|p: &Plan| p.refused.iter().cloned()));
    let after = score::of(&Cluster::new(&now, policy)?);
    let steps: usize = plans.iter().map(|p| p.steps.len()).sum();
    let summary = format!(
        "{steps} steps would follow; {} would not be possible; nodes above the mark {} -> {}, \
         losses that cannot be survived {} -> {}",
        refused.len(),
        before.nodes_above_mark,
        after.nodes_above_mark,
        before.unsurvivable_losses,
        after.unsurvivable_losses
    );
    Ok(WhatIf {
        before,
        after,
        plans,
        refused,
        summary,
    })
}

fn imagine(
    now: &mut Snapshot,
    policy: &Policy,
    change: &Change,
    plans: &mut Vec<Plan>,
    refused: &mut Vec<Refused>,
) -> Result<(), PlanError> {
    match change {
        Change::LoseNodes { nodes } => {
            let plan = failover(now, policy, nodes)?;
            *now = now.after(&plan, &[])?;
            mark(now, nodes, NodeState::Lost);
            plans.push(plan);
        }
        Change::DrainNodes { nodes } => {
            let plan = drain(now, policy, nodes)?;
            *now = now.after(&plan, &[])?;
            mark(now, nodes, NodeState::Draining);
            plans.push(plan);
        }
        Change::AddNode { node } => {
            now.nodes.push((**node).clone());
            now.check()?;
        }
        Change::AddServers { like, count } => {
            for k in 1..=*count {
                let mut server = (**like).clone();
                server.id = format!("{}-{k}", like.id);
                match place_server(now, policy, &server) {
                    Ok(plan) => {
                        *now = now.after(&plan, &[server])?;
                        plans.push(plan);
                    }
                    Err(PlanError::Impossible { subject, reason }) => {
                        refused.push(Refused { subject, reason });
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        Change::ScaleLoad { to } => scale(now, *to)?,
        Change::Rebalance => {
            let plan = rebalance(now, policy)?;
            *now = now.after(&plan, &[])?;
            plans.push(plan);
        }
    }
    Ok(())
}

fn mark(now: &mut Snapshot, ids: &[String], state: NodeState) {
    for n in now.nodes.iter_mut().filter(|n| ids.contains(&n.id)) {
        n.state = state;
    }
}

fn scale(now: &mut Snapshot, to: u64) -> Result<(), InputError> {
    if to > 100_000 {
        return Err(InputError::TooLarge {
            of: "the change".into(),
            field: "to",
            value: to,
        });
    }
    let times = |l: &mut Load| {
        for v in [
            &mut l.cpu_milli,
            &mut l.memory_mib,
            &mut l.io,
            &mut l.net_kbit,
        ] {
            *v = *v * to / 1000;
        }
    };
    for s in &mut now.servers {
        s.measured.iter_mut().for_each(times);
        s.history
            .iter_mut()
            .flat_map(|h| h.samples.iter_mut())
            .for_each(times);
    }
    for n in &mut now.nodes {
        n.recent.iter_mut().for_each(|u| *u = *u * to / 1000);
    }
    now.check()
}
