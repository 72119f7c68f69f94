//! Capacity: how many more of a size fit, when the pool is full, what hardware would help most.

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Place};
use crate::policy::Policy;
use crate::snapshot::{Node, NodeState, Pressure, Server, Snapshot};
use crate::survive::unsurvivable;

use super::PlanError;
use super::place::choose;

/// No more than this many are counted.
const MOST: usize = 100_000;

/// What one more machine would bring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HardwareAdvice {
    /// The machine, in words.
    pub machine: String,
    /// How many more servers fit with it.
    pub more: usize,
}

/// How much room is left for servers of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// How many more fit while every rule is kept.
    pub fit: usize,
    /// What stops the next one.
    pub stopped_by: String,
    /// Days until the pool is full at today's growth; `None` when it does not grow.
    pub full_in_days: Option<f64>,
    /// One more machine of each kind that the cluster has, the most helpful first.
    pub advice: Vec<HardwareAdvice>,
}

/// Counts how many more servers like `size` fit, with `growth_per_day` such servers coming each day.
///
/// # Errors
/// A contradictory input.
pub fn capacity(
    snapshot: &Snapshot,
    policy: &Policy,
    size: &Server,
    growth_per_day: f64,
) -> Result<Capacity, PlanError> {
    let mut size = size.clone();
    size.owner = None;
    size.replicas.clear();
    size.owner_has_copy = true;
    let (fit, stopped_by) = count(snapshot, policy, &size)?;
    let mut advice = Vec::new();
    for node in kinds(snapshot) {
        let mut more = snapshot.clone();
        let c = &node.capacity;
        let machine = format!(
            "one more node with {} cores, {} GiB memory, {} GiB disk",
            c.cpu_milli / 1000,
            c.memory_mib / 1024,
            c.disk_mib / 1024
        );
        more.nodes.push(node);
        let (with, _) = count(&more, policy, &size)?;
        advice.push(HardwareAdvice {
            machine,
            more: with.saturating_sub(fit),
        });
    }
    advice.sort_by(|a, b| b.more.cmp(&a.more).then_with(|| a.machine.cmp(&b.machine)));
    let full_in_days =
        (growth_per_day.is_finite() && growth_per_day > 0.0).then(|| fit as f64 / growth_per_day);
    Ok(Capacity {
        fit,
        stopped_by,
        full_in_days,
        advice,
    })
}

/// Fills the pool, then takes back what would leave a loss unsurvivable.
fn count(
    snapshot: &Snapshot,
    policy: &Policy,
    size: &Server,
) -> Result<(usize, String), PlanError> {
    // The rule about losses is checked by bisection below: it costs the whole cluster each time.
    let lax = Policy {
        survive_losses: 0,
        ..policy.clone()
    };
    crate::snapshot::check_server(size)?;
    let mut c = Cluster::new(snapshot, &lax)?;
    let mut places: Vec<Place> = Vec::new();
    let first = c.servers.len();
    let mut why = loop {
        if places.len() == MOST {
            break format!("not counted beyond {MOST}");
        }
        let at = c.push(size);
        match choose(&mut c, at) {
            Ok((place, _)) => {
                c.set(at, place.clone());
                if place.owner.is_some_and(|n| c.water(n) > policy.high_water) {
                    c.set(at, Place::default());
                    break "every node with room would rise above the high-water mark".to_owned();
                }
                places.push(place);
            }
            Err(why) => break why,
        }
    };
    c.policy = policy;
    let losses = unsurvivable(&Cluster::new(snapshot, policy)?).len();
    let (mut fit, mut beyond) = (0, places.len() + 1);
    while beyond - fit > 1 {
        let middle = usize::midpoint(fit, beyond);
        for (k, place) in places.iter().enumerate() {
            let place = if k < middle {
                place.clone()
            } else {
                Place::default()
            };
            if c.servers[first + k].place != place {
                c.set(first + k, place);
            }
        }
        if unsurvivable(&c).len() <= losses {
            fit = middle;
        } else {
            beyond = middle;
        }
    }
    if fit < places.len() {
        why = "the loss of a node could not be survived any more".to_owned();
    }
    Ok((fit, why))
}

/// One empty node of each kind in the snapshot.
fn kinds(snapshot: &Snapshot) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    for n in &snapshot.nodes {
        let same = |o: &Node| o.capacity == n.capacity && o.cpu_generation == n.cpu_generation;
        if out.len() < 6 && !out.iter().any(same) {
            let mut id = format!("new-{}", n.id);
            while snapshot.nodes.iter().any(|o| o.id == id) {
                id.push('+');
            }
            out.push(Node {
                id,
                state: NodeState::Up,
                rack: None,
                recent: vec![],
                pressure: Pressure::default(),
                ..n.clone()
            });
        }
    }
    out
}
