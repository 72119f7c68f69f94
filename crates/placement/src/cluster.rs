//! The planner's working copy of a snapshot: ids are indices, every total is kept incrementally.
//! Long because every total stands beside the step that keeps it.
//!
//! All numbers are whole, so a total never depends on the order in which servers came and went.

use std::collections::{BTreeMap, HashMap};

use crate::error::InputError;
use crate::policy::{Policy, RackRule};
use crate::predict::predict;
use crate::snapshot::{Node, NodeState, Server, Snapshot, Storage, check_server};

/// Hours that a placement should hold.
const HORIZON_H: u64 = 4;

/// Where a server stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The node that runs it; `None` while it is lost.
    pub owner: Option<usize>,
    /// Nodes with further copies.
    pub copies: Vec<usize>,
    /// The owner's node holds a copy.
    pub local: bool,
}

/// What a node lacks for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    State,
    Tag,
    Generation,
    Group,
    Copy,
    Rack,
    Cpu(u64),
    Memory(u64),
    Disk(u64),
    Io(u64),
    Net(u64),
    Water(u64),
    Survival,
}

impl Lack {
    /// What the limit is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "not up",
            Self::Tag => "a missing tag",
            Self::Generation => "too old a CPU",
            Self::Group => "another server of the group",
            Self::Copy => "a copy already there",
            Self::Rack => "the rack of another copy",
            Self::Cpu(_) => "CPU",
            Self::Memory(_) => "memory",
            Self::Disk(_) => "disk",
            Self::Io(_) => "disk operations",
            Self::Net(_) => "network",
            Self::Water(_) => "predicted use",
            Self::Survival => "the spare room for a lost node",
        }
    }

    /// By how much the limit is missed, in words; empty where it is not a quantity.
    pub fn amount(self) -> String {
        match self {
            Self::Cpu(by) => format!("{by} thousandths of a core"),
            Self::Memory(by) | Self::Disk(by) => format!("{by} MiB"),
            Self::Io(by) => format!("{by} operations/s"),
            Self::Net(by) => format!("{by} kbit/s"),
            Self::Water(by) => format!("{} %", tenths(by)),
            _ => String::new(),
        }
    }
}

/// Thousandths as a percentage with one decimal.
pub(crate) fn tenths(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

#[derive(Debug, Clone)]
pub(crate) struct ServerAt {
    pub place: Place,
    pub usual: [u64; 4],
    pub spread: [u64; 4],
    pub group: Option<usize>,
    pub account: usize,
    pub moved: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NodeAt {
    pub state: NodeState,
    /// Reserved CPU, memory, disk, I/O, network.
    pub reserved: [u64; 5],
    /// Limits for the same.
    pub limits: [u64; 5],
    /// Sum of the usual loads and of the squared distances to their peaks.
    pub usual: [u64; 4],
    pub square: [u128; 4],
    pub carries: [u64; 4],
    pub owned: Vec<usize>,
    pub copies: Vec<usize>,
    pub rack: Option<usize>,
    /// Its samples describe a past that moves have changed.
    pub touched: bool,
}

/// The working copy.
#[derive(Debug, Clone)]
pub(crate) struct Cluster<'a> {
    pub policy: &'a Policy,
    pub nodes: Vec<NodeAt>,
    pub servers: Vec<ServerAt>,
    pub node_info: Vec<&'a Node>,
    pub server_info: Vec<&'a Server>,
    accounts: HashMap<&'a str, usize>,
    groups: HashMap<&'a str, usize>,
}

fn scale(amount: u64, share: u64) -> u64 {
    (u128::from(amount) * u128::from(share) / 1000).min(u128::from(u64::MAX)) as u64
}

fn unlimited(amount: u64, share: u64) -> u64 {
    if amount == 0 {
        u64::MAX
    } else {
        scale(amount, share)
    }
}

fn number<'a>(map: &mut HashMap<&'a str, usize>, key: &'a str) -> usize {
    let next = map.len();
    *map.entry(key).or_insert(next)
}

impl<'a> Cluster<'a> {
    pub fn new(snapshot: &'a Snapshot, policy: &'a Policy) -> Result<Self, InputError> {
        snapshot.check()?;
        policy.check()?;
        let mut racks = HashMap::new();
        let ids: HashMap<&str, usize> = snapshot
            .nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (n.id.as_str(), i))
            .collect();
        let mut cluster = Self {
            policy,
            nodes: snapshot
                .nodes
                .iter()
                .map(|n| node_at(n, policy, &mut racks))
                .collect(),
            servers: Vec::with_capacity(snapshot.servers.len()),
            node_info: snapshot.nodes.iter().collect(),
            server_info: Vec::with_capacity(snapshot.servers.len()),
            accounts: HashMap::new(),
            groups: HashMap::new(),
        };
        for s in &snapshot.servers {
            let place = Place {
                owner: s.owner.as_ref().map(|o| ids[o.as_str()]),
                copies: s.replicas.iter().map(|r| ids[r.as_str()]).collect(),
                local: s.owner_has_copy && s.storage == Storage::Replicated,
            };
            let at = cluster.push(s);
            cluster.set(at, place);
        }
        for n in &mut cluster.nodes {
            n.touched = false;
        }
        Ok(cluster)
    }

    /// Adds a server that stands nowhere yet.
    pub fn add(&mut self, server: &'a Server) -> Result<usize, InputError> {
        check_server(server)?;
        if self.server_info.iter().any(|s| s.id == server.id) {
            return Err(InputError::Twice {
                kind: "server",
                id: server.id.clone(),
            });
        }
        Ok(self.push(server))
    }

    /// The same without the checks, for a copy of a server that was checked.
    pub fn push(&mut self, server: &'a Server) -> usize {
        let p = predict(server, HORIZON_H);
        let mut spread = [0; 4];
        for ((out, peak), usual) in spread.iter_mut().zip(p.peak).zip(p.usual) {
            *out = peak - usual;
        }
        self.servers.push(ServerAt {
            place: Place::default(),
            usual: p.usual,
            spread,
            group: server.group.as_deref().map(|g| number(&mut self.groups, g)),
            account: number(&mut self.accounts, &server.account),
            moved: false,
        });
        self.server_info.push(server);
        self.servers.len() - 1
    }

    pub fn node_id(&self, node: usize) -> &str {
        &self.node_info[node].id
    }

    pub fn server_id(&self, server: usize) -> &str {
        &self.server_info[server].id
    }

    pub fn find_node(&self, id: &str, by: &str) -> Result<usize, InputError> {
        self.node_info
            .iter()
            .position(|n| n.id == id)
            .ok_or_else(|| InputError::Unknown {
                by: by.to_owned(),
                kind: "node",
                id: id.to_owned(),
            })
    }

    /// Moves a server: a step costs what it changes.
    pub fn set(&mut self, server: usize, place: Place) {
        let old = std::mem::replace(&mut self.servers[server].place, place);
        self.count(server, &old, false);
        let new = self.servers[server].place.clone();
        self.count(server, &new, true);
    }

    fn count(&mut self, server: usize, place: &Place, add: bool) {
        let s = &self.servers[server];
        let r = &self.server_info[server].reserved;
        let sign = |total: &mut u64, by: u64| {
            *total = if add { *total + by } else { *total - by };
        };
        if let Some(owner) = place.owner {
            let n = &mut self.nodes[owner];
            n.touched = true;
            let disk = if place.local { r.disk_mib } else { 0 };
            for (total, by) in
                n.reserved
                    .iter_mut()
                    .zip([r.cpu_milli, r.memory_mib, disk, r.io, r.net_kbit])
            {
                sign(total, by);
            }
            for k in 0..4 {
                sign(&mut n.usual[k], s.usual[k]);
                let square = u128::from(s.spread[k]).pow(2);
                n.square[k] = if add {
                    n.square[k] + square
                } else {
                    n.square[k] - square
                };
            }
            keep(&mut n.owned, server, add);
        }
        for &c in &place.copies {
            let n = &mut self.nodes[c];
            sign(&mut n.reserved[2], r.disk_mib);
            keep(&mut n.copies, server, add);
        }
    }

    /// Predicted use (95th percentile) of the busiest resource, thousandths.
    pub fn water(&self, node: usize) -> u64 {
        self.water_with(node, None, None)
    }

    /// The same, were one server here (`plus`) or gone (`minus`).
    pub fn water_with(&self, node: usize, plus: Option<usize>, minus: Option<usize>) -> u64 {
        let n = &self.nodes[node];
        let mut highest = 0;
        for k in 0..4 {
            let mut usual = n.usual[k];
            let mut square = n.square[k];
            if let Some(p) = plus {
                usual += self.servers[p].usual[k];
                square += u128::from(self.servers[p].spread[k]).pow(2);
            }
            if let Some(m) = minus {
                usual -= self.servers[m].usual[k];
                square -= u128::from(self.servers[m].spread[k]).pow(2);
            }
            highest = highest.max(share(usual, square, n.carries[k]));
        }
        highest
    }

    /// The predicted use of a node without a set of servers.
    pub fn water_without(&self, node: usize, gone: &[usize]) -> u64 {
        let n = &self.nodes[node];
        (0..4)
            .map(|k| {
                let usual: u64 = gone.iter().map(|&s| self.servers[s].usual[k]).sum();
                let square: u128 = gone
                    .iter()
                    .map(|&s| u128::from(self.servers[s].spread[k]).pow(2))
                    .sum();
                share(n.usual[k] - usual, n.square[k] - square, n.carries[k])
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether `node` can run `server`: the first limit that it breaks.
    pub fn fits_owner(&self, server: usize, node: usize) -> Result<(), Lack> {
        let (s, info) = (&self.servers[server], self.server_info[server]);
        self.fits_kind(server, node)?;
        if let Some(g) = s.group {
            let other = |o: &usize| *o != server && self.servers[*o].group == Some(g);
            if self.nodes[node].owned.iter().any(other) {
                return Err(Lack::Group);
            }
        }
        let r = &info.reserved;
        let has_copy = s.place.copies.contains(&node);
        let disk = if info.storage == Storage::Shared || has_copy {
            0
        } else {
            r.disk_mib
        };
        self.fits_amounts(node, [r.cpu_milli, r.memory_mib, disk, r.io, r.net_kbit])
    }

    /// The same for running it from a copy elsewhere.
    pub fn fits_remote(&self, server: usize, node: usize) -> Result<(), Lack> {
        match self.fits_owner(server, node) {
            Err(Lack::Disk(_)) => {
                let r = &self.server_info[server].reserved;
                self.fits_amounts(node, [r.cpu_milli, r.memory_mib, 0, r.io, r.net_kbit])
            }
            other => other,
        }
    }

    /// Whether `node` may run `server` whatever else stands there.
    pub fn fits_kind(&self, server: usize, node: usize) -> Result<(), Lack> {
        let info = self.server_info[server];
        if self.nodes[node].state != NodeState::Up {
            return Err(Lack::State);
        }
        if !info.needs_tags.is_subset(&self.node_info[node].tags) {
            return Err(Lack::Tag);
        }
        if info.min_cpu_generation > self.node_info[node].cpu_generation {
            return Err(Lack::Generation);
        }
        Ok(())
    }

    fn fits_amounts(&self, node: usize, amounts: [u64; 5]) -> Result<(), Lack> {
        let n = &self.nodes[node];
        const LACKS: [fn(u64) -> Lack; 5] =
            [Lack::Cpu, Lack::Memory, Lack::Disk, Lack::Io, Lack::Net];
        for k in [1, 2, 0, 3, 4] {
            let over = (n.reserved[k] + amounts[k]).saturating_sub(n.limits[k]);
            if over > 0 && amounts[k] > 0 {
                return Err(LACKS[k](over));
            }
        }
        Ok(())
    }

    /// Whether `node` can hold another copy of `server`'s disk.
    pub fn fits_copy(&self, server: usize, node: usize) -> Result<(), Lack> {
        let place = &self.servers[server].place;
        if self.nodes[node].state != NodeState::Up {
            return Err(Lack::State);
        }
        if place.owner == Some(node) || place.copies.contains(&node) {
            return Err(Lack::Copy);
        }
        if self.policy.racks == RackRule::Require && self.shares_rack(server, node, None) {
            return Err(Lack::Rack);
        }
        self.fits_amounts(
            node,
            [0, 0, self.server_info[server].reserved.disk_mib, 0, 0],
        )
    }

    /// Whether `node` stands in the rack of one of the server's copies other than that on `but`.
    pub fn shares_rack(&self, server: usize, node: usize, but: Option<usize>) -> bool {
        let place = &self.servers[server].place;
        let rack = self.nodes[node].rack;
        rack.is_some()
            && place
                .owner
                .iter()
                .chain(&place.copies)
                .any(|&n| n != node && Some(n) != but && self.nodes[n].rack == rack)
    }

    /// Servers of one account on a node; none for a server of nobody.
    pub fn account_on(&self, server: usize, node: usize) -> usize {
        if self.server_info[server].account.is_empty() {
            return 0;
        }
        let account = self.servers[server].account;
        self.nodes[node]
            .owned
            .iter()
            .filter(|&&o| self.servers[o].account == account)
            .count()
    }

    /// Servers of one profile on a node; none where no profile is named.
    pub fn profile_on(&self, server: usize, node: usize) -> usize {
        let profile = &self.server_info[server].profile;
        let alike = |o: &&usize| self.server_info[**o].profile == *profile;
        if profile.is_empty() {
            0
        } else {
            self.nodes[node].owned.iter().filter(alike).count()
        }
    }

    /// Mean predicted use of the nodes that are up.
    pub fn mean_water(&self) -> u64 {
        let up: Vec<u64> = self.up().map(|n| self.water(n)).collect();
        up.iter().sum::<u64>() / (up.len() as u64).max(1)
    }

    /// The nodes that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&n| self.nodes[n].state == NodeState::Up)
    }

    /// Most used limit of a node by reservation, thousandths.
    pub fn fullness(&self, node: usize) -> u64 {
        let n = &self.nodes[node];
        (0..5)
            .filter(|&k| n.limits[k] != u64::MAX)
            .map(|k| (u128::from(n.reserved[k]) * 1000 / u128::from(n.limits[k].max(1))) as u64)
            .max()
            .unwrap_or(0)
    }

    /// Refusals counted by limit, for telling why nothing fits: limit, nodes, least shortfall.
    pub fn tally(lacks: impl Iterator<Item = Lack>) -> String {
        let mut by: BTreeMap<&'static str, (usize, Lack)> = BTreeMap::new();
        for l in lacks {
            let e = by.entry(l.name()).or_insert((0, l));
            e.0 += 1;
            e.1 = e.1.min(l);
        }
        let mut parts: Vec<(usize, String)> = by
            .into_iter()
            .map(|(name, (count, least))| {
                let nodes = if count == 1 {
                    "1 node".to_owned()
                } else {
                    format!("{count} nodes")
                };
                let short = least.amount();
                let text = if short.is_empty() {
                    format!("{nodes} by {name}")
                } else {
                    format!("{nodes} by {name} (short by {short} at least)")
                };
                (count, text)
            })
            .collect();
        parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        parts
            .into_iter()
            .map(|p| p.1)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn keep(list: &mut Vec<usize>, server: usize, add: bool) {
    match (list.binary_search(&server), add) {
        (Err(at), true) => list.insert(at, server),
        (Ok(at), false) => {
            list.remove(at);
        }
        _ => {}
    }
}

/// `(usual + √square) ÷ carries` in thousandths, rounded up.
fn share(usual: u64, square: u128, carries: u64) -> u64 {
    if carries == 0 {
        return 0;
    }
    let peak = u128::from(usual) + square.isqrt();
    (peak * 1000)
        .div_ceil(u128::from(carries))
        .min(u128::from(u64::MAX)) as u64
}

fn node_at<'a>(n: &'a Node, policy: &Policy, racks: &mut HashMap<&'a str, usize>) -> NodeAt {
    let c = &n.capacity;
    NodeAt {
        state: n.state,
        limits: [
            scale(c.cpu_milli, policy.cpu_overcommit),
            scale(c.memory_mib, policy.memory_overcommit),
            scale(c.disk_mib, policy.disk_overcommit),
            unlimited(c.io, policy.io_overcommit),
            unlimited(c.net_kbit, policy.net_overcommit),
        ],
        carries: [c.cpu_milli, c.memory_mib, c.io, c.net_kbit],
        rack: n.rack.as_deref().map(|r| number(racks, r)),
        ..NodeAt::default()
    }
}
