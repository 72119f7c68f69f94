//! The judge: every hard rule and the whole cost, computed from scratch and shared with no solver.

use std::collections::{HashMap, HashSet};

use super::model::Model;

/// A hard rule that an assignment breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Not one machine for each process.
    #[error("{found} machines for {wanted} processes")]
    Length {
        /// Entries found.
        found: usize,
        /// Processes.
        wanted: usize,
    },
    /// A machine that does not exist.
    #[error("process {process} on machine {machine}, which does not exist")]
    Machine {
        /// The process.
        process: usize,
        /// The machine.
        machine: usize,
    },
    /// More used than there is.
    #[error("machine {machine} is over its capacity of resource {resource} by {by}")]
    Capacity {
        /// The machine.
        machine: usize,
        /// The resource.
        resource: usize,
        /// By how much.
        by: i64,
    },
    /// Two processes of a service on one machine.
    #[error("two processes of service {service} on machine {machine}")]
    Conflict {
        /// The service.
        service: usize,
        /// The machine.
        machine: usize,
    },
    /// Too few locations.
    #[error("service {service} stands in {found} locations, not in {wanted}")]
    Spread {
        /// The service.
        service: usize,
        /// Locations that it has.
        found: usize,
        /// Locations that it needs.
        wanted: usize,
    },
    /// A dependency that is not met in a neighbourhood.
    #[error("service {service} misses service {needs} in neighbourhood {neighbourhood}")]
    Dependency {
        /// The service.
        service: usize,
        /// What it needs.
        needs: usize,
        /// Where.
        neighbourhood: usize,
    },
}

/// The cost of `now`, having started from `first`.
///
/// # Errors
/// The first hard rule that `now` breaks.
pub fn cost(model: &Model, first: &[usize], now: &[usize]) -> Result<i64, CheckError> {
    for list in [first, now] {
        if list.len() != model.processes.len() {
            return Err(CheckError::Length {
                found: list.len(),
                wanted: model.processes.len(),
            });
        }
        for (process, &machine) in list.iter().enumerate() {
            if machine >= model.machines.len() {
                return Err(CheckError::Machine { process, machine });
            }
        }
    }
    let usage = capacities(model, first, now)?;
    services(model, now)?;
    Ok(load_cost(model, &usage) + move_cost(model, first, now))
}

fn capacities(model: &Model, first: &[usize], now: &[usize]) -> Result<Vec<Vec<i64>>, CheckError> {
    let resources = model.resources.len();
    let mut usage = vec![vec![0; resources]; model.machines.len()];
    let mut both = usage.clone();
    for (k, p) in model.processes.iter().enumerate() {
        for r in 0..resources {
            usage[now[k]][r] += p.requirement[r];
            both[now[k]][r] += p.requirement[r];
            if model.resources[r].transient && first[k] != now[k] {
                both[first[k]][r] += p.requirement[r];
            }
        }
    }
    for (machine, m) in model.machines.iter().enumerate() {
        for (resource, used) in both[machine].iter().enumerate() {
            let by = used - m.capacity[resource];
            if by > 0 {
                return Err(CheckError::Capacity {
                    machine,
                    resource,
                    by,
                });
            }
        }
    }
    Ok(usage)
}

fn services(model: &Model, now: &[usize]) -> Result<(), CheckError> {
    let mut machines = HashSet::new();
    let mut locations: HashMap<usize, HashSet<usize>> = HashMap::new();
    let mut neighbourhoods: HashMap<usize, HashSet<usize>> = HashMap::new();
    for (k, p) in model.processes.iter().enumerate() {
        if !machines.insert((p.service, now[k])) {
            return Err(CheckError::Conflict {
                service: p.service,
                machine: now[k],
            });
        }
        let m = &model.machines[now[k]];
        locations.entry(p.service).or_default().insert(m.location);
        neighbourhoods
            .entry(p.service)
            .or_default()
            .insert(m.neighbourhood);
    }
    for (service, s) in model.services.iter().enumerate() {
        let found = locations.get(&service).map_or(0, HashSet::len);
        if found < s.spread {
            return Err(CheckError::Spread {
                service,
                found,
                wanted: s.spread,
            });
        }
        for &neighbourhood in neighbourhoods.get(&service).into_iter().flatten() {
            for &needs in &s.needs {
                if !neighbourhoods
                    .get(&needs)
                    .is_some_and(|n| n.contains(&neighbourhood))
                {
                    return Err(CheckError::Dependency {
                        service,
                        needs,
                        neighbourhood,
                    });
                }
            }
        }
    }
    Ok(())
}

fn load_cost(model: &Model, usage: &[Vec<i64>]) -> i64 {
    let mut sum = 0;
    for (m, used) in model.machines.iter().zip(usage) {
        for (r, resource) in model.resources.iter().enumerate() {
            sum += resource.weight * (used[r] - m.safety[r]).max(0);
        }
        for b in &model.balances {
            let free = |r: usize| m.capacity[r] - used[r];
            sum += b.weight * (b.target * free(b.first) - free(b.second)).max(0);
        }
    }
    sum
}

fn move_cost(model: &Model, first: &[usize], now: &[usize]) -> i64 {
    let [process_weight, service_weight, machine_weight] = model.move_weights;
    let mut moved = vec![0; model.services.len()];
    let mut sum = 0;
    for (k, p) in model.processes.iter().enumerate() {
        if first[k] != now[k] {
            sum += process_weight * p.move_cost;
            moved[p.service] += 1;
        }
        sum += machine_weight * model.machines[first[k]].move_cost[now[k]];
    }
    sum + service_weight * moved.iter().copied().max().unwrap_or(0)
}
