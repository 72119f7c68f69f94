//! Random small clusters for the property tests: mixed, sometimes broken, never contradictory.

use std::collections::BTreeSet;

use undine_placement::Policy;
use undine_placement::policy::RackRule;
use undine_placement::rng::Rng;
use undine_placement::snapshot::{
    Load, Node, NodeState, Pressure, Resources, Server, Snapshot, Storage,
};

/// A policy that differs with the seed.
pub fn policy(rng: &mut Rng) -> Policy {
    Policy {
        survive_losses: rng.below(3).min(1),
        racks: *rng.pick(&[RackRule::Ignore, RackRule::Prefer, RackRule::Require]),
        evenness_gap: *rng.pick(&[100, 250]),
        copies: 1 + rng.below(3),
        ..Policy::default()
    }
}

fn node(rng: &mut Rng, i: usize) -> Node {
    Node {
        id: format!("n{i}"),
        capacity: Resources {
            cpu_milli: 1000 * *rng.pick(&[8, 16, 32]),
            memory_mib: 1024 * *rng.pick(&[32, 64, 128]),
            disk_mib: 1024 * 1000,
            io: *rng.pick(&[0, 10_000]),
            net_kbit: *rng.pick(&[0, 1_000_000]),
        },
        tags: if rng.below(3) == 0 {
            BTreeSet::from(["ssd".to_owned()])
        } else {
            BTreeSet::new()
        },
        rack: (rng.below(5) > 0).then(|| format!("r{}", i % 3)),
        cpu_generation: rng.below(3) as u32,
        state: if rng.below(12) == 0 {
            NodeState::Cordoned
        } else {
            NodeState::Up
        },
        pressure: Pressure {
            cpu: if rng.below(15) == 0 { 500 } else { 0 },
            ..Pressure::default()
        },
        recent: if rng.below(3) == 0 {
            (0..5).map(|_| 500 + rng.below(500) as u64).collect()
        } else {
            vec![]
        },
    }
}

/// A server that stands nowhere yet.
pub fn server(rng: &mut Rng, i: usize) -> Server {
    let memory_mib = 1024 * *rng.pick(&[1, 2, 2, 4, 8]);
    let cpu_milli = 1000 * *rng.pick(&[1, 2, 4]);
    let mut s = Server::new(
        format!("s{i}"),
        Resources {
            cpu_milli,
            memory_mib,
            disk_mib: 1024 * 20,
            io: 100,
            net_kbit: 5000,
        },
    );
    s.measured = Some(Load {
        cpu_milli: cpu_milli * rng.below(100) as u64 / 60,
        memory_mib: memory_mib * (40 + rng.below(60) as u64) / 100,
        io: rng.below(400) as u64,
        net_kbit: rng.below(20_000) as u64,
    });
    if rng.below(4) == 0 {
        s.group = Some(format!("g{}", rng.below(6)));
    }
    if rng.below(8) == 0 {
        s.needs_tags = BTreeSet::from(["ssd".to_owned()]);
    }
    if rng.below(4) == 0 {
        s.storage = Storage::Shared;
    }
    s.min_cpu_generation = u32::from(rng.below(6) == 0);
    s.importance = rng.below(4) as u8;
    s.account = format!("a{}", rng.below(10));
    s.dirty_mib_s = *rng.pick(&[0, 0, 10, 200, 5000]);
    s.moved_ago_s = *rng.pick(&[None, None, Some(10), Some(600), Some(100_000)]);
    s.movable = rng.below(20) > 0;
    s
}

/// A cluster with servers strewn over the nodes, the early ones more often hit.
pub fn snapshot(rng: &mut Rng) -> Snapshot {
    let nodes: Vec<Node> = (0..3 + rng.below(8)).map(|i| node(rng, i)).collect();
    let count = nodes.len() * (2 + rng.below(8));
    let mut servers = Vec::new();
    for i in 0..count {
        let mut s = server(rng, i);
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        rng.shuffle(&mut order);
        order[..2].sort_unstable();
        s.owner = Some(nodes[order[0]].id.clone());
        if s.storage == Storage::Replicated {
            let copies = rng.below(3);
            s.replicas = order[1..=copies]
                .iter()
                .map(|&n| nodes[n].id.clone())
                .collect();
            s.owner_has_copy = copies == 0 || rng.below(10) > 0;
        }
        servers.push(s);
    }
    Snapshot { nodes, servers }
}
