//! The simulated week: the same load under each balancer.

use serde::Serialize;
use undine_placement::generate::{Storage, cluster};
use undine_placement::htools::Text;
use undine_placement::simulate::{Balancer, Outcome, simulate};
use undine_placement::{Policy, Snapshot};

use crate::files::Done;

const NODES: usize = 40;
const SERVERS: usize = 400;

/// What came of one week.
#[derive(Serialize)]
pub(super) struct Week {
    pub nodes: usize,
    pub servers: usize,
    pub days: u64,
    pub seed: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Plays `days` days over `seeds` clusters with each balancer.
pub(super) fn run(days: u64, seeds: u64) -> Done<Vec<Week>> {
    let mut out = Vec::new();
    for seed in 1..=seeds {
        let files = cluster(NODES, SERVERS, Storage::Shared, seed);
        let mut text = Text::parse(&files.data)?;
        text.apply_load(&files.load)?;
        let snapshot = Snapshot::from_htools(&text);
        let policy = Policy {
            cpu_overcommit: (text.vcpu_ratio * 1000.0) as u64,
            ..Policy::default()
        };
        for balancer in [
            Balancer::None,
            Balancer::Ours,
            Balancer::Threshold,
            Balancer::Greedy,
        ] {
            out.push(Week {
                nodes: NODES,
                servers: SERVERS,
                days,
                seed,
                outcome: simulate(&snapshot, &policy, balancer, days, seed)?,
            });
        }
    }
    Ok(out)
}
