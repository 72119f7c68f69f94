//! A Ganeti text as a snapshot of ours, so that the product's objective can plan on the same file.

use crate::snapshot::{Load, Node, NodeState, Pressure, Resources, Server, Snapshot, Storage};

use super::text::{Template, Text};

/// One unit of disk or network load, of which a node carries [`LINKS`].
const UNIT: f64 = 1000.0;
const LINKS: u64 = 12;
/// MiB of memory that a memory load of 1.0 stands for.
const MEMORY_UNIT: f64 = 16_384.0;

/// See [`Snapshot::from_htools`].
pub(crate) fn to_snapshot(text: &Text) -> Snapshot {
    let nodes = text
        .nodes
        .iter()
        .map(|n| Node {
            id: n.name.clone(),
            capacity: Resources {
                cpu_milli: ((n.cores as f64 * n.cpu_speed * 1000.0) as u64).max(1),
                memory_mib: (n.total_memory - n.node_memory).max(1) as u64,
                disk_mib: n.total_disk as u64,
                io: LINKS * UNIT as u64,
                net_kbit: LINKS * UNIT as u64,
            },
            tags: n.tags.iter().cloned().collect(),
            rack: n.tags.iter().find(|t| t.starts_with("rack:")).cloned(),
            cpu_generation: 0,
            state: if n.offline {
                NodeState::Lost
            } else {
                NodeState::Up
            },
            pressure: Pressure::default(),
            recent: vec![],
        })
        .collect();
    let servers = text
        .instances
        .iter()
        .map(|s| {
            let drbd = s.template == Template::Drbd;
            let mut server = Server::new(
                s.name.clone(),
                Resources {
                    cpu_milli: s.vcpus as u64 * 1000,
                    memory_mib: s.memory as u64,
                    disk_mib: s.disk as u64,
                    io: 0,
                    net_kbit: 0,
                },
            );
            server.owner = Some(text.nodes[s.primary].name.clone());
            server.replicas = s
                .secondary
                .map(|n| text.nodes[n].name.clone())
                .into_iter()
                .collect();
            server.storage = if drbd || s.template == Template::Local {
                Storage::Replicated
            } else {
                Storage::Shared
            };
            server.measured = Some(Load {
                cpu_milli: (s.load[0] * 1000.0) as u64,
                memory_mib: (s.load[1] * MEMORY_UNIT) as u64,
                io: (s.load[2] * UNIT) as u64,
                net_kbit: (s.load[3] * UNIT) as u64,
            });
            server.group = exclusion_group(text, s);
            server.movable = s.auto_balance && (drbd || s.template == Template::Shared);
            server
        })
        .collect();
    Snapshot { nodes, servers }
}

fn exclusion_group(text: &Text, s: &super::TextInstance) -> Option<String> {
    let kinds = text
        .tags
        .iter()
        .filter_map(|t| t.strip_prefix("htools:iextags:"));
    kinds
        .filter_map(|k| s.tags.iter().find(|t| t.starts_with(&format!("{k}:"))))
        .next()
        .cloned()
}
