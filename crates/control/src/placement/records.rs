//! The store's records as the placement library's snapshot, and its plans as records' ids again.
//!
//! Nodes and servers go by their names there, so that its reasons can be read as they are.

use std::collections::BTreeMap;

use undine_api::node::Inventory;
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, NodeId, ServerId, Slug};
use undine_placement::policy::RackRule;
use undine_placement::snapshot::{self, Load, Resources, Snapshot};
use undine_placement::{Action, PlanError, Policy};
use undine_store::{Node, Replica, ReplicaState, Server};

use super::OVERHEAD;

/// The records that matter for placement, at one moment.
#[derive(Debug, Default)]
pub struct Records {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All servers.
    pub servers: Vec<Server>,
    /// All their copies.
    pub replicas: Vec<Replica>,
    /// What servers used lately.
    pub loads: BTreeMap<ServerId, Load>,
    /// How many times a node's CPUs may be promised.
    pub cpu_overcommit: u32,
}

/// Where a new server goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Its owner.
    pub owner: NodeId,
    /// Nodes of its other copies.
    pub others: Vec<NodeId>,
    /// Why, in words.
    pub reason: String,
}

/// Where a server of a lost node goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuge {
    /// Which server.
    pub server: ServerId,
    /// There; none when it has to wait.
    pub node: Option<NodeId>,
    /// The node has a copy in sync itself; else the server uses one from afar.
    pub local_copy: bool,
    /// Why, in words.
    pub reason: String,
}

/// Which copies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// All, as each takes its room.
    All,
    /// Those with every acknowledged write: no other may become the server's disk.
    InSync,
}

const MIB: u64 = 1 << 20;

fn mib(bytes: Bytes) -> u64 {
    bytes.0.div_ceil(MIB)
}

/// What a server of these sizes sets aside.
pub fn reserved(cpu: undine_model::MilliCpu, memory: Bytes, disk: Bytes) -> Resources {
    Resources {
        cpu_milli: u64::from(cpu.0),
        memory_mib: mib(Bytes(memory.0 + OVERHEAD.0)),
        disk_mib: mib(disk),
        ..Resources::default()
    }
}

impl Records {
    /// The rules: racks kept apart, no load that one lost node could not hand on.
    pub fn policy(&self, copies: u32) -> Policy {
        Policy {
            cpu_overcommit: u64::from(self.cpu_overcommit.clamp(1, 100)) * 1000,
            copies: copies.max(1) as usize,
            racks: RackRule::Require,
            ..Policy::default()
        }
    }

    /// All copies, for everything that asks for room.
    pub fn snapshot(&self) -> Snapshot {
        self.view(Copies::All)
    }

    /// Only copies with every acknowledged write, for everything that restarts servers.
    pub fn in_sync(&self) -> Snapshot {
        self.view(Copies::InSync)
    }

    fn view(&self, copies: Copies) -> Snapshot {
        let nodes: Vec<snapshot::Node> = self.nodes.iter().filter_map(node).collect();
        let servers = self.servers.iter().filter_map(|server| {
            let owner = self.name_of(server.node?)?;
            nodes
                .iter()
                .any(|n| n.id == owner)
                .then(|| self.server(server, owner, copies, &nodes))
        });
        Snapshot {
            servers: servers.collect(),
            nodes,
        }
    }

    fn server(
        &self,
        server: &Server,
        owner: String,
        copies: Copies,
        nodes: &[snapshot::Node],
    ) -> snapshot::Server {
        let mut own = false;
        let mut others = Vec::new();
        for copy in self.replicas.iter().filter(|r| r.server == server.id) {
            if copies == Copies::InSync && copy.state != ReplicaState::InSync {
                continue;
            }
            match self.name_of(copy.node) {
                Some(name) if name == owner => own = true,
                Some(name) if nodes.iter().any(|n| n.id == name) => others.push(name),
                _ => {}
            }
        }
        others.sort();
        others.dedup();
        let mut found = fresh(server);
        found.measured = self.loads.get(&server.id).copied();
        found.owner = Some(owner);
        // A server without any record of a copy waits for its owner's disk.
        found.owner_has_copy = own || others.is_empty();
        found.replicas = others;
        found
    }

    fn name_of(&self, id: NodeId) -> Option<String> {
        let node = self.nodes.iter().find(|node| node.id == id)?;
        Some(node.name.to_string())
    }

    fn id_of(&self, name: &str) -> Option<NodeId> {
        let node = self.nodes.iter().find(|node| node.name.as_str() == name)?;
        Some(node.id)
    }

    /// The owner and the other copies of a new server; with `only`, that node owns it.
    ///
    /// A cluster that cannot survive the loss of a node with it takes it all the same and says so:
    /// the customer's server runs today, the operator reads the reason.
    ///
    /// # Errors
    /// Which limit keeps it out, and by how much.
    pub fn place(&self, server: &Server, only: Option<&Slug>) -> Result<Places, String> {
        let mut snapshot = self.snapshot();
        let mut wish = fresh(server);
        if let Some(only) = only {
            wish.needs_tags.insert(CHOSEN.to_owned());
            for node in snapshot.nodes.iter_mut().filter(|n| n.id == only.as_str()) {
                node.tags.insert(CHOSEN.to_owned());
            }
        }
        if snapshot.nodes.is_empty() {
            return Err("no hardware node takes servers now".to_owned());
        }
        let strict = self.policy(server.replica_count);
        let lax = Policy {
            survive_losses: 0,
            ..strict.clone()
        };
        let (plan, warning) = match undine_placement::place_server(&snapshot, &strict, &wish) {
            Ok(plan) => (plan, ""),
            Err(PlanError::Impossible { .. }) => (
                undine_placement::place_server(&snapshot, &lax, &wish).map_err(words)?,
                "; with it the loss of some node could not be made good: add a node",
            ),
            Err(other) => return Err(words(other)),
        };
        let step = plan.steps.first().ok_or("the plan is empty")?;
        let Action::Place {
            owner, replicas, ..
        } = &step.action
        else {
            return Err("the plan does not place the server".to_owned());
        };
        Ok(Places {
            owner: self.id_of(owner).ok_or("the plan names no known node")?,
            others: replicas
                .iter()
                .filter_map(|name| self.id_of(name))
                .collect(),
            reason: format!("{}{warning}", step.reason),
        })
    }

    /// Where the servers of lost nodes go, whatever set of nodes that is: the most important first,
    /// each to a node with a copy in sync where one has room, spread over them.
    ///
    /// # Errors
    /// What contradicts itself in the records.
    pub fn refuges(&self, lost: &[NodeId]) -> Result<Vec<Refuge>, String> {
        let snapshot = self.in_sync();
        let names: Vec<String> = lost
            .iter()
            .filter_map(|id| self.name_of(*id))
            .filter(|name| snapshot.nodes.iter().any(|n| n.id == *name))
            .collect();
        let plan = undine_placement::failover(&snapshot, &self.policy(1), &names).map_err(words)?;
        let id = |name: &str| {
            let server = self.servers.iter().find(|s| s.name.as_str() == name)?;
            Some(server.id)
        };
        let mut found = Vec::new();
        for step in &plan.steps {
            if let Action::Restart {
                server,
                to,
                local_copy,
                ..
            } = &step.action
            {
                found.extend(id(server).map(|server| Refuge {
                    server,
                    node: self.id_of(to),
                    local_copy: *local_copy,
                    reason: step.reason.clone(),
                }));
            }
        }
        for refused in &plan.refused {
            found.extend(id(&refused.subject).map(|server| Refuge {
                server,
                node: None,
                local_copy: false,
                reason: refused.reason.clone(),
            }));
        }
        Ok(found)
    }
}

/// Marks the one node that was asked for; no slug can be it.
const CHOSEN: &str = "asked for";

fn words(error: PlanError) -> String {
    match error {
        PlanError::Impossible { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// A node that said what it is made of.
fn node(node: &Node) -> Option<snapshot::Node> {
    let inventory: Inventory = serde_json::from_value(node.inventory.clone()).ok()?;
    let capacity = Resources {
        cpu_milli: u64::from(inventory.cpu.0),
        memory_mib: inventory.memory.0 / MIB,
        disk_mib: inventory.disk.0 / MIB,
        ..Resources::default()
    };
    (capacity.cpu_milli > 0 && capacity.memory_mib > 0).then(|| snapshot::Node {
        id: node.name.to_string(),
        capacity,
        tags: std::collections::BTreeSet::new(),
        rack: node.rack.as_ref().map(ToString::to_string),
        cpu_generation: 0,
        state: match node.state {
            NodeState::Ready => snapshot::NodeState::Up,
            NodeState::Cordoned => snapshot::NodeState::Cordoned,
            _ => snapshot::NodeState::Lost,
        },
        pressure: snapshot::Pressure::default(),
        recent: vec![],
    })
}

/// A server that stands nowhere yet.
fn fresh(server: &Server) -> snapshot::Server {
    let reserved = reserved(server.cpu, server.memory, server.disk);
    let mut found = snapshot::Server::new(server.name.to_string(), reserved);
    found.profile = server.profile.to_string();
    found.importance = u8::try_from(server.importance).unwrap_or(9);
    found
}
