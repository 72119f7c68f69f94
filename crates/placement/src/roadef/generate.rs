//! Made-up instances of any size, for the promise that nothing blows up at the largest.

use crate::rng::Rng;

use super::model::{Balance, Machine, Model, Process, Resource, Service};

/// A feasible instance: the model and its first assignment, skewed and far from balanced.
#[must_use]
pub fn generate(machines: usize, processes: usize, seed: u64) -> (Model, Vec<usize>) {
    let mut rng = Rng::new(seed);
    let machines = machines.max(2);
    let resources = vec![
        Resource {
            transient: false,
            weight: 10,
        },
        Resource {
            transient: true,
            weight: 10,
        },
        Resource {
            transient: false,
            weight: 1,
        },
    ];
    // Always more places than processes: a service stands on a machine once.
    let service_count = (processes / 4).max(2 * processes / machines + 1);
    let mut used = vec![[0i64; 3]; machines];
    let mut on: Vec<Vec<usize>> = vec![vec![]; machines];
    let (mut all, mut first) = (Vec::new(), Vec::new());
    for _ in 0..processes {
        let mut service = rng.below(service_count);
        while on.iter().all(|there| there.contains(&service)) {
            service = (service + 1) % service_count;
        }
        let requirement: Vec<i64> = (0..3).map(|_| 1 + rng.below(1000) as i64).collect();
        // Low numbers are taken more often, which leaves something to balance.
        let mut m = (rng.unit().powi(2) * machines as f64) as usize;
        while on[m].contains(&service) {
            m = (m + 1) % machines;
        }
        on[m].push(service);
        for r in 0..3 {
            used[m][r] += requirement[r];
        }
        first.push(m);
        all.push(Process {
            service,
            requirement,
            move_cost: 1 + rng.below(10) as i64,
        });
    }
    let average = 500 * processes as i64 / machines as i64;
    let machines = (0..machines)
        .map(|m| {
            let capacity: Vec<i64> = used[m]
                .iter()
                .map(|u| (u + u / 10).max(average * 2) + 2000)
                .collect();
            Machine {
                neighbourhood: m % 10,
                location: m % 25,
                safety: capacity.iter().map(|_| average).collect(),
                capacity,
                move_cost: (0..used.len())
                    .map(|o| i64::from(o % 25 != m % 25))
                    .collect(),
            }
        })
        .collect();
    let services = vec![
        Service {
            spread: 0,
            needs: vec![]
        };
        service_count
    ];
    let balances = vec![Balance {
        first: 0,
        second: 1,
        target: 1,
        weight: 10,
    }];
    let model = Model {
        resources,
        machines,
        services,
        processes: all,
        balances,
        move_weights: [1, 10, 100],
    };
    (model, first)
}
