//! On which nodes servers and their copies go, and why. New servers and fail-over are decided by the
//! placement library over all records (`records`); `choose` only tells which of some nodes has room
//! for an amount, for a server that stays or grows where its disk is.

mod records;

pub use records::{Places, Records, Refuge, reserved};

use undine_api::public::Resources;
use undine_model::{Bytes, MilliCpu, NodeId, Slug};

/// What QEMU itself and a storage daemon take beside the memory of the guest.
pub const OVERHEAD: Bytes = Bytes::mib(96);

/// A node that takes servers.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Slug,
    /// What it has; CPU times the overcommit.
    pub total: Resources,
    /// What is promised.
    pub committed: Resources,
    /// Servers on it with the same profile as the new one.
    pub alike: u32,
}

impl Candidate {
    /// What is left.
    pub fn free(&self) -> Resources {
        Resources {
            cpu: MilliCpu(self.total.cpu.0.saturating_sub(self.committed.cpu.0)),
            memory: Bytes(self.total.memory.0.saturating_sub(self.committed.memory.0)),
            disk: Bytes(self.total.disk.0.saturating_sub(self.committed.disk.0)),
        }
    }

    /// The same, holding a copy of the disk already: it takes no further room.
    #[must_use]
    pub fn holding(mut self, disk: Bytes) -> Self {
        self.total.disk.0 = self.total.disk.0.saturating_add(disk.0);
        self
    }

    /// Promises that much more of it.
    pub fn promise(&mut self, wish: &Resources) {
        self.committed.cpu.0 += wish.cpu.0;
        self.committed.memory.0 += wish.memory.0;
        self.alike += 1;
    }

    /// Why the wish does not fit, by what and how much; none when it does.
    fn lacks(&self, wish: &Resources) -> Option<String> {
        let free = self.free();
        let mut lacks = Vec::new();
        if wish.memory > free.memory {
            lacks.push(format!(
                "memory: {} needed, {} free",
                wish.memory, free.memory
            ));
        }
        if wish.disk > free.disk {
            lacks.push(format!("disk: {} needed, {} free", wish.disk, free.disk));
        }
        if wish.cpu > free.cpu {
            lacks.push(format!("CPU: {} needed, {} free", wish.cpu, free.cpu));
        }
        (!lacks.is_empty()).then(|| format!("{} lacks {}", self.name, lacks.join(", ")))
    }
}

/// Where it goes and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: NodeId,
    /// Why that one, in words.
    pub reason: String,
}

/// What orders the nodes that fit; the lowest wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    alike: u32,
    /// Memory left afterwards, negated: more is better.
    memory_left: std::cmp::Reverse<u64>,
    name: String,
}

/// Chooses; the error says for each node what it lacks.
pub fn choose(nodes: &[Candidate], wish: &Resources) -> Result<Choice, String> {
    if nodes.is_empty() {
        return Err("no hardware node takes servers now".to_owned());
    }
    let best = nodes
        .iter()
        .filter(|node| node.lacks(wish).is_none())
        .min_by_key(|node| Score {
            alike: node.alike,
            memory_left: std::cmp::Reverse(node.free().memory.0 - wish.memory.0),
            name: node.name.to_string(),
        });
    let Some(best) = best else {
        let lacks: Vec<String> = nodes.iter().filter_map(|node| node.lacks(wish)).collect();
        return Err(lacks.join("; "));
    };
    let left = Bytes(best.free().memory.0 - wish.memory.0);
    let alike = match best.alike {
        0 => "no server of its profile is there yet".to_owned(),
        count => format!("{count} of its profile are there, no node has fewer"),
    };
    Ok(Choice {
        node: best.id,
        reason: format!(
            "{} of {} nodes: {alike}; {left} of memory stay free",
            best.name,
            nodes.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, memory_mib: u64, used_mib: u64, alike: u32) -> Candidate {
        Candidate {
            id: NodeId::from_parts(1, [name.len() as u8 + alike as u8; 10]),
            name: name.parse().unwrap(),
            total: Resources {
                cpu: MilliCpu(8_000),
                memory: Bytes::mib(memory_mib),
                disk: Bytes::gib(100),
            },
            committed: Resources {
                memory: Bytes::mib(used_mib),
                ..Resources::default()
            },
            alike,
        }
    }

    fn wish(memory_mib: u64) -> Resources {
        Resources {
            cpu: MilliCpu(500),
            memory: Bytes::mib(memory_mib),
            disk: Bytes::gib(10),
        }
    }

    #[test]
    fn servers_of_a_kind_spread_before_memory_counts() {
        let nodes = [node("a", 4096, 0, 1), node("bb", 4096, 2048, 0)];
        let choice = choose(&nodes, &wish(512)).unwrap();
        assert_eq!(choice.node, nodes[1].id);
        assert!(choice.reason.contains("bb"), "{}", choice.reason);
    }

    #[test]
    fn a_full_cluster_says_by_what_and_how_much() {
        let error = choose(&[node("a", 1024, 900, 0)], &wish(512)).unwrap_err();
        assert_eq!(error, "a lacks memory: 512 MiB needed, 124 MiB free");
    }
}
