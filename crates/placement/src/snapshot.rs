//! A cluster at one moment: nodes, servers, where they stand and what they use.
//!
//! All quantities are whole numbers, so that sums never depend on the order of adding.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::predict::History;

/// The largest number accepted for a quantity; far above any machine, far below overflow.
pub const LARGEST: u64 = 1 << 44;

/// Amounts of everything that a node has and a server reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk space, MiB.
    #[serde(default)]
    pub disk_mib: u64,
    /// Disk operations a second; 0 for a node: not known, not limited.
    #[serde(default)]
    pub io: u64,
    /// Network, kbit/s; 0 for a node: not known, not limited.
    #[serde(default)]
    pub net_kbit: u64,
}

/// What a server was measured to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk operations a second.
    #[serde(default)]
    pub io: u64,
    /// Network, kbit/s.
    #[serde(default)]
    pub net_kbit: u64,
}

impl Load {
    /// The four numbers in a fixed order: CPU, memory, I/O, network.
    #[must_use]
    pub fn parts(&self) -> [u64; 4] {
        [self.cpu_milli, self.memory_mib, self.io, self.net_kbit]
    }
}

/// Whether a node takes servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes servers.
    #[default]
    Up,
    /// Keeps what it has, takes nothing new.
    Cordoned,
    /// To be emptied.
    Draining,
    /// Gone: its servers and copies are out of reach.
    Lost,
}

/// Signs that a node is short of something whatever its use says, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pressure {
    /// Share of time that tasks waited for CPU (PSI some, 60 s).
    pub cpu: u64,
    /// The same for memory.
    pub memory: u64,
    /// The same for I/O.
    pub io: u64,
    /// Share of CPU time that the host did not get (steal).
    pub steal: u64,
}

/// A machine that servers run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// What it offers to servers.
    pub capacity: Resources,
    /// What it is good for.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Where it stands; nodes of one rack fail together.
    #[serde(default)]
    pub rack: Option<String>,
    /// Generation of its CPU; a server may need a least one.
    #[serde(default)]
    pub cpu_generation: u32,
    /// Whether it takes servers.
    #[serde(default)]
    pub state: NodeState,
    /// Pressure, where measured.
    #[serde(default)]
    pub pressure: Pressure,
    /// Use of its busiest resource in the last ten-second samples, thousandths, newest last.
    #[serde(default)]
    pub recent: Vec<u64>,
}

/// Where a server's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// One copy on the owner's node, further ones on the replicas.
    #[default]
    Replicated,
    /// On storage that all nodes see; it takes no space of a node.
    Shared,
}

fn yes() -> bool {
    true
}

/// A server: a virtual machine with its disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// The node that runs it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Nodes that hold further copies of its disk.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// Where its disk is.
    #[serde(default)]
    pub storage: Storage,
    /// The owner's node holds a copy as well (after a fail-over it may not).
    #[serde(default = "yes")]
    pub owner_has_copy: bool,
    /// What is set aside for it.
    pub reserved: Resources,
    /// What it uses now.
    #[serde(default)]
    pub measured: Option<Load>,
    /// What it used before.
    #[serde(default)]
    pub history: Option<History>,
    /// Name of its size.
    #[serde(default)]
    pub profile: String,
    /// Whose it is.
    #[serde(default)]
    pub account: String,
    /// Servers of one group never share a node.
    #[serde(default)]
    pub group: Option<String>,
    /// Restarted first when nodes are lost: higher first.
    #[serde(default)]
    pub importance: u8,
    /// Tags that its node must have.
    #[serde(default)]
    pub needs_tags: BTreeSet<String>,
    /// Least generation of CPU.
    #[serde(default)]
    pub min_cpu_generation: u32,
    /// How fast it rewrites its memory, MiB/s.
    #[serde(default)]
    pub dirty_mib_s: u64,
    /// Seconds since it last moved.
    #[serde(default)]
    pub moved_ago_s: Option<u64>,
    /// It may be moved at all.
    #[serde(default = "yes")]
    pub movable: bool,
}

impl Server {
    /// A server that stands nowhere yet, with nothing but an id and a reservation.
    #[must_use]
    pub fn new(id: impl Into<String>, reserved: Resources) -> Self {
        Self {
            id: id.into(),
            owner: None,
            replicas: vec![],
            storage: Storage::Replicated,
            owner_has_copy: true,
            reserved,
            measured: None,
            history: None,
            profile: String::new(),
            account: String::new(),
            group: None,
            importance: 0,
            needs_tags: BTreeSet::new(),
            min_cpu_generation: 0,
            dirty_mib_s: 0,
            moved_ago_s: None,
            movable: true,
        }
    }

    /// Seconds that a live migration takes: memory ÷ (bandwidth − dirty rate).
    ///
    /// `None` when the server rewrites its memory as fast as it can be copied.
    #[must_use]
    pub fn migration_seconds(&self, bandwidth_mib_s: u64, disk: bool) -> Option<u64> {
        let left = bandwidth_mib_s
            .checked_sub(self.dirty_mib_s)
            .filter(|l| *l > 0)?;
        let disk = if disk {
            self.reserved.disk_mib.div_ceil(bandwidth_mib_s.max(1))
        } else {
            0
        };
        Some(self.reserved.memory_mib.div_ceil(left) + disk)
    }
}

/// The whole cluster at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The servers.
    #[serde(default)]
    pub servers: Vec<Server>,
}

fn bounded(of: &str, field: &'static str, value: u64) -> Result<(), InputError> {
    if value > LARGEST {
        return Err(InputError::TooLarge {
            of: of.to_owned(),
            field,
            value,
        });
    }
    Ok(())
}

fn check_resources(of: &str, r: &Resources) -> Result<(), InputError> {
    bounded(of, "cpu_milli", r.cpu_milli)?;
    bounded(of, "memory_mib", r.memory_mib)?;
    bounded(of, "disk_mib", r.disk_mib)?;
    bounded(of, "io", r.io)?;
    bounded(of, "net_kbit", r.net_kbit)
}

impl Snapshot {
    /// Reads and checks a snapshot in JSON.
    ///
    /// # Errors
    /// The position of a malformed value, or the first contradiction.
    pub fn from_json(text: &str) -> Result<Self, InputError> {
        let snapshot: Self = serde_json::from_str(text)?;
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Finds the first contradiction.
    ///
    /// # Errors
    /// That contradiction.
    pub fn check(&self) -> Result<(), InputError> {
        let mut ids: HashMap<&str, &Node> = HashMap::new();
        for n in &self.nodes {
            if ids.insert(&n.id, n).is_some() {
                return Err(InputError::Twice {
                    kind: "node",
                    id: n.id.clone(),
                });
            }
            check_node(n)?;
        }
        let mut seen = BTreeSet::new();
        for s in &self.servers {
            if !seen.insert(&s.id) {
                return Err(InputError::Twice {
                    kind: "server",
                    id: s.id.clone(),
                });
            }
            check_server(s)?;
            let Some(owner) = &s.owner else {
                return Err(InputError::Homeless {
                    server: s.id.clone(),
                });
            };
            for (node, role) in
                std::iter::once((owner, "owner")).chain(s.replicas.iter().map(|r| (r, "replica")))
            {
                if !ids.contains_key(node.as_str()) {
                    return Err(InputError::Unknown {
                        by: format!("the {role} of server {:?}", s.id),
                        kind: "node",
                        id: node.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// A snapshot made from a Ganeti text: a core of load is 1,000 thousandths, load of disk and
    /// network is a share of the node's one link, memory load counts 16 GiB as 1.0.
    #[must_use]
    pub fn from_htools(text: &crate::htools::Text) -> Self {
        crate::htools::to_snapshot(text)
    }
}

fn check_node(n: &Node) -> Result<(), InputError> {
    let of = format!("node {:?}", n.id);
    check_resources(&of, &n.capacity)?;
    for sample in &n.recent {
        bounded(&of, "recent", *sample)?;
    }
    for (value, resource) in [
        (n.capacity.cpu_milli, "cpu_milli"),
        (n.capacity.memory_mib, "memory_mib"),
    ] {
        if value == 0 {
            return Err(InputError::NoCapacity {
                node: n.id.clone(),
                resource,
            });
        }
    }
    Ok(())
}

/// What can be wrong with a server whatever its place.
pub(crate) fn check_server(s: &Server) -> Result<(), InputError> {
    let of = format!("server {:?}", s.id);
    check_resources(&of, &s.reserved)?;
    if let Some(l) = &s.measured {
        for (k, field) in ["cpu_milli", "memory_mib", "io", "net_kbit"]
            .into_iter()
            .enumerate()
        {
            bounded(&of, field, l.parts()[k])?;
        }
    }
    bounded(&of, "dirty_mib_s", s.dirty_mib_s)?;
    if let Some(h) = &s.history {
        h.check(&of)?;
    }
    let storage = |what| {
        Err(InputError::Storage {
            server: s.id.clone(),
            what,
        })
    };
    if s.storage == Storage::Shared && !s.replicas.is_empty() {
        return storage("it lists replicas although its storage is shared");
    }
    if s.storage == Storage::Replicated && !s.owner_has_copy && s.replicas.is_empty() {
        return storage("no node holds a copy of its disk");
    }
    for (i, r) in s.replicas.iter().enumerate() {
        if s.replicas[..i].contains(r) || s.owner.as_ref() == Some(r) {
            return Err(InputError::CopyTwice {
                server: s.id.clone(),
                node: r.clone(),
            });
        }
    }
    Ok(())
}
