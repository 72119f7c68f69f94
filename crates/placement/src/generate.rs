//! Made-up clusters for benchmarks and tests: mixed nodes, skewed load, service tags, racks.
//!
//! They are written in the htools text format, so that every tool can read the same file. A load of
//! 1.0 is one busy core, a full memory bus, disk or network link of the smallest node.

use std::fmt::Write as _;

use crate::rng::Rng;

/// Where the servers' disks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Storage that all nodes see.
    Shared,
    /// Mirrored to a secondary node.
    Mirrored,
}

/// The two files of a made-up cluster.
#[derive(Debug, Clone)]
pub struct Files {
    /// Content of the `-t` file.
    pub data: String,
    /// Content of the `-U` file.
    pub load: String,
}

struct Node {
    memory: i64,
    disk: i64,
    cores: i64,
    free: i64,
    free_disk: i64,
    vcpus: i64,
    popularity: f64,
    services: Vec<usize>,
}

struct Server {
    memory: i64,
    disk: i64,
    vcpus: i64,
    load: [f64; 4],
    service: Option<usize>,
    primary: usize,
    secondary: Option<usize>,
}

const NODE_KINDS: [(i64, i64, i64); 4] = [
    (98_304, 4_000_000, 24),
    (131_072, 6_000_000, 32),
    (196_608, 8_000_000, 48),
    (262_144, 8_000_000, 64),
];
const VCPU_RATIO: i64 = 8;

/// A cluster of `nodes` nodes and up to `servers` servers, wholly determined by `seed`.
#[must_use]
pub fn cluster(nodes: usize, servers: usize, storage: Storage, seed: u64) -> Files {
    let mut rng = Rng::new(seed ^ 0x5EED_C1A5);
    let mut all: Vec<Node> = (0..nodes.max(2)).map(|_| node(&mut rng)).collect();
    let services = (servers / 5).max(1);
    let placed: Vec<Server> = (0..servers)
        .filter_map(|_| server(&mut rng, &mut all, storage, services))
        .collect();
    Files {
        data: data(&all, &placed),
        load: load(&placed),
    }
}

fn node(rng: &mut Rng) -> Node {
    let (memory, disk, cores) = *rng.pick(&NODE_KINDS);
    Node {
        memory,
        disk,
        cores,
        free: memory - 4096,
        free_disk: disk,
        vcpus: 0,
        // Skew: some nodes took far more than their share.
        popularity: 0.35 + rng.unit(),
        services: vec![],
    }
}

fn server(rng: &mut Rng, nodes: &mut [Node], storage: Storage, services: usize) -> Option<Server> {
    let memory = 1024 * rng.pick(&[2_i64, 2, 4, 4, 8, 8, 16, 24]);
    let disk = 1024 * rng.pick(&[20_i64, 40, 80, 160]);
    let vcpus = (memory / 4096).clamp(1, 8);
    let service = (rng.below(3) == 0).then(|| rng.below(services));
    let busy = rng.unit();
    // Most servers idle, a few use nearly all that they have.
    let cpu = vcpus as f64 * (0.08 + 0.9 * busy.powi(2)) * 3.0;
    let load = [
        cpu,
        memory as f64 / 16_384.0 * (0.3 + 0.6 * rng.unit()),
        1.2 * rng.unit().powi(3),
        1.2 * rng.unit().powi(3),
    ];
    let primary = choose(rng, nodes, |n| {
        n.free > memory + n.memory / 16
            && n.free_disk > disk
            && n.vcpus + vcpus <= n.cores * VCPU_RATIO
            && service.is_none_or(|s| !n.services.contains(&s))
    })?;
    let secondary = match storage {
        Storage::Shared => None,
        Storage::Mirrored => {
            let taken = primary;
            let memory_ok: Vec<bool> = nodes
                .iter()
                .enumerate()
                .map(|(i, n)| i != taken && n.free > memory)
                .collect();
            let mut at = None;
            for _ in 0..200 {
                let i = rng.below(nodes.len());
                // Most, but not all, mirrors stand in another rack.
                let apart = i % racks(nodes.len()) != taken % racks(nodes.len());
                if memory_ok[i] && nodes[i].free_disk > disk && (apart || rng.below(20) == 0) {
                    at = Some(i);
                    break;
                }
            }
            Some(at?)
        }
    };
    let p = &mut nodes[primary];
    p.free -= memory;
    p.vcpus += vcpus;
    p.services.extend(service);
    if let Some(s) = secondary {
        nodes[primary].free_disk -= disk;
        nodes[s].free_disk -= disk;
    }
    Some(Server {
        memory,
        disk,
        vcpus,
        load,
        service,
        primary,
        secondary,
    })
}

fn racks(nodes: usize) -> usize {
    (nodes / 2).clamp(2, 40)
}

/// A node that fits, more often one that is popular and large.
fn choose(rng: &mut Rng, nodes: &[Node], fits: impl Fn(&Node) -> bool) -> Option<usize> {
    for _ in 0..400 {
        let i = rng.below(nodes.len());
        let n = &nodes[i];
        if rng.unit() < n.popularity / 1.35 * n.memory as f64 / 262_144.0 && fits(n) {
            return Some(i);
        }
    }
    (0..nodes.len()).find(|&i| fits(&nodes[i]))
}

fn data(nodes: &[Node], servers: &[Server]) -> String {
    let mut out = String::from("default|uuid-0|preferred||\n\n");
    for (i, n) in nodes.iter().enumerate() {
        let _ = writeln!(
            out,
            "node{i}|{}|4096|{}|{}|{}|{}|N|uuid-0|8|rack:{}|N|0|0|1.0",
            n.memory,
            n.free,
            n.disk,
            n.free_disk,
            n.cores,
            i % racks(nodes.len()),
        );
    }
    out.push('\n');
    for (i, s) in servers.iter().enumerate() {
        let secondary = s.secondary.map_or(String::new(), |n| format!("node{n}"));
        let template = if s.secondary.is_some() { "drbd" } else { "ext" };
        let tag = s.service.map_or(String::new(), |t| format!("svc:{t}"));
        let _ = writeln!(
            out,
            "vm{i}|{}|{}|{}|running|Y|node{}|{secondary}|{template}|{tag}|1|-",
            s.memory, s.disk, s.vcpus, s.primary,
        );
    }
    out.push_str("\nhtools:iextags:svc\nhtools:nlocation:rack\n\n");
    let _ = writeln!(
        out,
        "|128,1,1024,1,1,1|128,1,1024,1,1,1;262144,64,8388608,16,8,12|diskless,file,sharedfile,plain,blockdev,drbd,rbd,ext|{VCPU_RATIO}.0|32.0"
    );
    out
}

fn load(servers: &[Server]) -> String {
    let mut out = String::new();
    for (i, s) in servers.iter().enumerate() {
        let [c, m, d, n] = s.load;
        let _ = writeln!(out, "vm{i} {c:.4} {m:.4} {d:.4} {n:.4}");
    }
    out
}
