//! The judge: checks a plan against the rules without sharing any code with the planner.
//! Long because it is one list of rules that shares nothing with the planner.
//!
//! It carries the plan out on plain maps, wave by wave, everything that arrives in a wave before
//! anything that leaves, and reports every rule that a moment on the way breaks. A limit that was
//! broken before may stay broken, but not get worse.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Action, Plan};
use crate::policy::{Policy, RackRule};
use crate::snapshot::{NodeState, Resources, Server, Snapshot, Storage};

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Index of the step, or `None` for the plan as a whole.
    pub step: Option<usize>,
    /// The rule and how it is broken.
    pub what: String,
}

/// What the plan was asked for, as far as it changes the rules.
#[derive(Debug, Clone, Default)]
pub struct Context<'a> {
    /// Servers that `place` steps are about.
    pub new: &'a [Server],
    /// Nodes that are drained: nothing may go there.
    pub drained: &'a [String],
    /// Nodes that are lost: nothing may go there, and what stands there counts no more.
    pub lost: &'a [String],
}

#[derive(Clone)]
struct Standing {
    /// Its place in the snapshot, which breaks ties.
    at: usize,
    server: Server,
    owner: String,
    copies: Vec<String>,
    local: bool,
}

struct Court<'a> {
    policy: &'a Policy,
    nodes: BTreeMap<&'a str, &'a crate::snapshot::Node>,
    context: &'a Context<'a>,
    order: Vec<&'a str>,
    servers: BTreeMap<String, Standing>,
    findings: Vec<Finding>,
}

/// Everything that is wrong with `plan`; empty when it is fine.
#[must_use]
pub fn judge(
    snapshot: &Snapshot,
    policy: &Policy,
    plan: &Plan,
    context: &Context<'_>,
) -> Vec<Finding> {
    let standing = |(at, s): (usize, &Server)| Standing {
        at,
        owner: s.owner.clone().unwrap_or_default(),
        copies: s.replicas.clone(),
        local: s.owner_has_copy && s.storage == Storage::Replicated,
        server: s.clone(),
    };
    let mut court = Court {
        policy,
        nodes: snapshot.nodes.iter().map(|n| (n.id.as_str(), n)).collect(),
        context,
        order: snapshot.nodes.iter().map(|n| n.id.as_str()).collect(),
        servers: snapshot
            .servers
            .iter()
            .enumerate()
            .map(|s| (s.1.id.clone(), standing(s)))
            .collect(),
        findings: vec![],
    };
    let (losses, broken) = (court.losses(), court.broken());
    let mut first = 0;
    while first < plan.steps.len() {
        let wave = plan.steps[first].wave;
        let len = plan.steps[first..]
            .iter()
            .take_while(|s| s.wave == wave)
            .count();
        court.wave(plan, first, len);
        first += len;
    }
    for (k, pair) in plan.steps.windows(2).enumerate() {
        if pair[1].wave < pair[0].wave {
            court.find(
                Some(k + 1),
                "its wave comes before that of the step before it".into(),
            );
        }
    }
    let repaired = court.broken() < broken;
    if context.lost.is_empty() && context.drained.is_empty() && !repaired && court.losses() > losses
    {
        court.find(None, "fewer losses can be survived than before".into());
    }
    for (k, step) in plan.steps.iter().enumerate() {
        if step.reason.trim().is_empty() {
            court.find(Some(k), "it has no reason".into());
        }
    }
    court.findings
}

const NAMES: [&str; 5] = ["CPU", "memory", "disk", "disk operations", "network"];

fn amounts(r: &Resources, disk: bool) -> [u64; 5] {
    [
        r.cpu_milli,
        r.memory_mib,
        if disk { r.disk_mib } else { 0 },
        r.io,
        r.net_kbit,
    ]
}

impl Court<'_> {
    fn find(&mut self, step: Option<usize>, what: String) {
        self.findings.push(Finding { step, what });
    }

    /// What is reserved on a node, with `extra` arrivals that have not left elsewhere yet.
    fn reserved(&self, node: &str, extra: &[(String, [u64; 5])]) -> [u64; 5] {
        let mut sum = [0; 5];
        let mut add = |by: [u64; 5]| sum.iter_mut().zip(by).for_each(|(s, b)| *s += b);
        for s in self.servers.values() {
            if s.owner == node {
                add(amounts(&s.server.reserved, s.local));
            }
            for _ in s.copies.iter().filter(|c| *c == node) {
                add([0, 0, s.server.reserved.disk_mib, 0, 0]);
            }
        }
        extra.iter().filter(|e| e.0 == node).for_each(|e| add(e.1));
        sum
    }

    fn limits(&self, node: &str) -> [u64; 5] {
        let (c, p) = (&self.nodes[node].capacity, self.policy);
        let share = |a: u64, by: u64| (u128::from(a) * u128::from(by) / 1000) as u64;
        let open = |a: u64, by: u64| if a == 0 { u64::MAX } else { share(a, by) };
        [
            share(c.cpu_milli, p.cpu_overcommit),
            share(c.memory_mib, p.memory_overcommit),
            share(c.disk_mib, p.disk_overcommit),
            open(c.io, p.io_overcommit),
            open(c.net_kbit, p.net_overcommit),
        ]
    }

    /// One wave: all arrivals first, then all departures.
    fn wave(&mut self, plan: &Plan, first: usize, len: usize) {
        let (mut into, mut out_of) = (BTreeSet::new(), BTreeSet::new());
        let mut arrivals: Vec<(String, [u64; 5])> = Vec::new();
        let mut busy = BTreeSet::new();
        for k in first..first + len {
            let action = &plan.steps[k].action;
            if !busy.insert(action.server().to_owned()) {
                self.find(Some(k), "its server is in the same wave twice".into());
            }
            if !self.known(k, action) {
                continue;
            }
            let (to, from) = ends(action);
            for t in &to {
                if !into.insert((*t).to_owned()) {
                    self.find(Some(k), format!("a second step into {t} in one wave"));
                }
            }
            if let Some(f) = from
                && !out_of.insert(f.to_owned())
            {
                self.find(Some(k), format!("a second step out of {f} in one wave"));
            }
            self.targets(k, action);
            let came = self.arrivals(action);
            for (node, _) in &came {
                let before = self.reserved(node, &arrivals);
                let mut with = arrivals.clone();
                with.extend(came.iter().cloned());
                let after = self.reserved(node, &with);
                let limits = self.limits(node);
                for i in 0..5 {
                    if after[i] > limits[i] && after[i] > before[i] {
                        let over = after[i] - limits[i];
                        self.find(
                            Some(k),
                            format!("{node} is over its {} by {over}", NAMES[i]),
                        );
                    }
                }
            }
            arrivals.extend(came);
        }
        for k in first..first + len {
            self.carry_out(&plan.steps[k].action);
        }
    }

    fn known(&mut self, k: usize, action: &Action) -> bool {
        let (to, from) = ends(action);
        for n in to.iter().copied().chain(from) {
            if !self.nodes.contains_key(n) {
                self.find(Some(k), format!("it names the unknown node {n}"));
                return false;
            }
        }
        let standing = self.servers.get(action.server());
        let fault = match (action, standing) {
            (Action::Place { server, .. }, None) => self
                .context
                .new
                .iter()
                .all(|s| s.id != *server)
                .then(|| "it places a server that nobody asked for".to_owned()),
            (Action::Place { .. }, Some(_)) => Some("it places a server that exists".to_owned()),
            (_, None) => Some("it names an unknown server".to_owned()),
            (
                Action::Migrate {
                    from,
                    to,
                    copies_disk,
                    ..
                },
                Some(s),
            ) => {
                let disk = s.server.storage == Storage::Replicated && !s.copies.contains(to);
                if s.owner != *from {
                    Some(format!("the server is on {}, not on {from}", s.owner))
                } else if from == to {
                    Some("it moves a server to where it is".to_owned())
                } else if disk != *copies_disk {
                    Some("it is wrong about whether the disk is copied".to_owned())
                } else if !s.server.movable {
                    Some("the server may not be moved".to_owned())
                } else {
                    None
                }
            }
            (Action::MoveReplica { from, .. }, Some(s)) => (!s.copies.contains(from))
                .then(|| format!("the server has no further copy on {from}")),
            (
                Action::Restart {
                    from,
                    to,
                    local_copy,
                    ..
                },
                Some(s),
            ) => {
                let here = s.copies.contains(to);
                let reachable = s.copies.iter().any(|c| !self.context.lost.contains(c));
                if s.owner != *from || !self.context.lost.contains(from) {
                    Some(format!("{from} does not run it, or is not lost"))
                } else if here != *local_copy {
                    Some("it is wrong about the local copy".to_owned())
                } else if s.server.storage == Storage::Replicated && !reachable {
                    Some("no copy is in reach".to_owned())
                } else {
                    None
                }
            }
            (Action::AddReplica { .. }, Some(_)) => None,
        };
        let fine = fault.is_none();
        if let Some(what) = fault {
            self.find(Some(k), what);
        }
        fine
    }

    /// Rules about the nodes that a step goes to.
    fn targets(&mut self, k: usize, action: &Action) {
        let (to, _) = ends(action);
        for t in &to {
            let n = self.nodes[*t];
            let out = |list: &[String]| list.iter().any(|x| x == t);
            if n.state != NodeState::Up || out(self.context.drained) || out(self.context.lost) {
                self.find(Some(k), format!("{t} takes nothing"));
            }
        }
        let id = action.server();
        let server = match self.servers.get(id) {
            Some(s) => s.server.clone(),
            None => match self.context.new.iter().find(|s| s.id == id) {
                Some(s) => s.clone(),
                None => return,
            },
        };
        if let Action::Place { owner: to, .. }
        | Action::Migrate { to, .. }
        | Action::Restart { to, .. } = action
        {
            let n = self.nodes[to.as_str()];
            if !server.needs_tags.is_subset(&n.tags) {
                self.find(Some(k), format!("{to} lacks a tag that {id} needs"));
            }
            if server.min_cpu_generation > n.cpu_generation {
                self.find(Some(k), format!("{to} has too old a CPU for {id}"));
            }
            let meets = self.servers.iter().any(|(other, s)| {
                other != id
                    && s.owner == *to
                    && server.group.is_some()
                    && s.server.group == server.group
            });
            if meets {
                self.find(
                    Some(k),
                    format!("{to} runs another server of the group of {id}"),
                );
            }
        }
        self.copies(k, action, &server);
    }

    /// Rules about copies: never two on a node, racks apart where the policy requires it.
    fn copies(&mut self, k: usize, action: &Action, server: &Server) {
        if server.storage == Storage::Shared {
            if matches!(
                action,
                Action::AddReplica { .. } | Action::MoveReplica { .. }
            ) {
                self.find(Some(k), "it copies a disk on shared storage".into());
            }
            return;
        }
        let mut all: Vec<String> = Vec::new();
        if let Action::Place {
            owner, replicas, ..
        } = action
        {
            all.push(owner.clone());
            all.extend(replicas.iter().cloned());
        } else if let Some(s) = self.servers.get(action.server()) {
            let mut next = s.clone();
            act(&mut next, action);
            all.push(next.owner);
            all.extend(next.copies);
        }
        let distinct: BTreeSet<&String> = all.iter().collect();
        if distinct.len() != all.len() {
            self.find(Some(k), "two copies would stand on one node".into());
        }
        let builds = match action {
            Action::Migrate { copies_disk, .. } => *copies_disk,
            Action::Restart { .. } => false,
            _ => true,
        };
        if self.policy.racks == RackRule::Require && builds {
            let (to, _) = ends(action);
            all.retain(|n| !self.context.lost.contains(n));
            let rack = |n: &str| self.nodes.get(n).and_then(|n| n.rack.clone());
            let meet = to
                .iter()
                .any(|t| rack(t).is_some() && all.iter().any(|o| o != t && rack(o) == rack(t)));
            if meet {
                self.find(Some(k), "two copies would stand in one rack".into());
            }
        }
    }

    fn arrivals(&self, action: &Action) -> Vec<(String, [u64; 5])> {
        let by_id = |id: &str| {
            self.servers
                .get(id)
                .map(|s| &s.server)
                .or_else(|| self.context.new.iter().find(|s| s.id == id))
        };
        let Some(server) = by_id(action.server()) else {
            return vec![];
        };
        let r = &server.reserved;
        let disk_only = [0, 0, r.disk_mib, 0, 0];
        match action {
            Action::Place {
                owner, replicas, ..
            } => {
                let disk = server.storage == Storage::Replicated;
                let mut out = vec![(owner.clone(), amounts(r, disk))];
                out.extend(replicas.iter().map(|n| (n.clone(), disk_only)));
                out
            }
            Action::Migrate {
                to, copies_disk, ..
            } => vec![(to.clone(), amounts(r, *copies_disk))],
            Action::MoveReplica { to, .. } | Action::AddReplica { to, .. } => {
                vec![(to.clone(), disk_only)]
            }
            Action::Restart { to, .. } => vec![(to.clone(), amounts(r, false))],
        }
    }

    fn carry_out(&mut self, action: &Action) {
        if let Action::Place {
            server,
            owner,
            replicas,
        } = action
        {
            if let Some(s) = self.context.new.iter().find(|s| s.id == *server) {
                let standing = Standing {
                    server: s.clone(),
                    owner: owner.clone(),
                    copies: replicas.clone(),
                    local: s.storage == Storage::Replicated,
                    at: self.servers.len(),
                };
                self.servers.insert(server.clone(), standing);
            }
        } else if let Some(s) = self.servers.get_mut(action.server()) {
            act(s, action);
        }
    }

    /// Nodes whose loss leaves a server that has another copy without a place.
    fn losses(&self) -> usize {
        if self.policy.survive_losses == 0 {
            return 0;
        }
        let reserved = self.all_reserved();
        let free = |n: &str| self.limits(n)[1].saturating_sub(reserved[n][1]);
        let mut alive: Vec<&str> = self
            .order
            .iter()
            .copied()
            .filter(|n| self.nodes[n].state != NodeState::Lost)
            .collect();
        alive.sort_by_key(|n| std::cmp::Reverse(free(n)));
        alive
            .iter()
            .filter(|lost| !self.survives(lost, &alive, reserved.clone()))
            .count()
    }

    /// Hard limits that are broken: amounts, tags, CPUs, groups.
    fn broken(&self) -> usize {
        let reserved = self.all_reserved();
        let alive = |n: &str| {
            self.nodes
                .get(n)
                .is_some_and(|n| n.state != NodeState::Lost)
        };
        let amounts: usize = reserved
            .iter()
            .filter(|(n, _)| alive(n))
            .map(|(n, r)| {
                r.iter()
                    .zip(self.limits(n))
                    .filter(|(a, b)| **a > *b)
                    .count()
            })
            .sum();
        let places = self.servers.values().filter(|s| {
            let Some(node) = self.nodes.get(s.owner.as_str()).filter(|n| alive(&n.id)) else {
                return false;
            };
            !s.server.needs_tags.is_subset(&node.tags)
                || s.server.min_cpu_generation > node.cpu_generation
                || (s.server.group.is_some()
                    && self.servers.values().any(|o| {
                        o.at < s.at && o.owner == s.owner && o.server.group == s.server.group
                    }))
        });
        amounts + places.count()
    }

    fn all_reserved(&self) -> BTreeMap<&str, [u64; 5]> {
        let mut out: BTreeMap<&str, [u64; 5]> = self.nodes.keys().map(|n| (*n, [0; 5])).collect();
        for s in self.servers.values() {
            if let Some(sum) = out.get_mut(s.owner.as_str()) {
                let by = amounts(&s.server.reserved, s.local);
                sum.iter_mut().zip(by).for_each(|(a, b)| *a += b);
            }
            for c in &s.copies {
                if let Some(sum) = out.get_mut(c.as_str()) {
                    sum[2] += s.server.reserved.disk_mib;
                }
            }
        }
        out
    }

    fn survives(&self, lost: &str, alive: &[&str], mut reserved: BTreeMap<&str, [u64; 5]>) -> bool {
        let mut on: Vec<&Standing> = self.servers.values().filter(|s| s.owner == lost).collect();
        on.sort_by_key(|s| (std::cmp::Reverse(s.server.reserved.memory_mib), s.at));
        let mut groups: BTreeSet<(&str, &str)> = self
            .servers
            .values()
            .filter_map(|s| Some((s.owner.as_str(), s.server.group.as_deref()?)))
            .collect();
        for s in on {
            let replicated = s.server.storage == Storage::Replicated;
            if replicated && s.copies.iter().all(|c| c == lost) {
                continue;
            }
            let r = amounts(&s.server.reserved, false);
            let group = s.server.group.as_deref();
            let takes = |n: &&&str| {
                let limits = self.limits(n);
                let node = self.nodes[**n];
                **n != lost
                    && node.state == NodeState::Up
                    && (0..5).all(|i| r[i] == 0 || reserved[**n][i] + r[i] <= limits[i])
                    && s.server.needs_tags.is_subset(&node.tags)
                    && s.server.min_cpu_generation <= node.cpu_generation
                    && group.is_none_or(|g| !groups.contains(&(**n, g)))
            };
            let near = s
                .copies
                .iter()
                .filter_map(|c| alive.iter().find(|n| *n == c))
                .find(takes);
            let far = || alive.iter().find(takes);
            let Some(home) = near.or_else(far).copied() else {
                return false;
            };
            if let Some(sum) = reserved.get_mut(home) {
                sum.iter_mut().zip(r).for_each(|(a, b)| *a += b);
            }
            if let Some(g) = group {
                groups.insert((home, g));
            }
        }
        true
    }
}

/// The nodes that a step goes to, and the one that it leaves.
fn ends(action: &Action) -> (Vec<&str>, Option<&str>) {
    match action {
        Action::Place {
            owner, replicas, ..
        } => {
            let mut to = vec![owner.as_str()];
            to.extend(replicas.iter().map(String::as_str));
            (to, None)
        }
        Action::Migrate { from, to, .. } | Action::MoveReplica { from, to, .. } => {
            (vec![to], Some(from))
        }
        Action::AddReplica { to, .. } | Action::Restart { to, .. } => (vec![to], None),
    }
}

fn act(s: &mut Standing, action: &Action) {
    match action {
        Action::Place { .. } => {}
        Action::Migrate { from, to, .. } => {
            let held = s.copies.contains(to);
            s.copies.retain(|c| c != to);
            if held && s.local {
                s.copies.push(from.clone());
            }
            s.local = s.server.storage == Storage::Replicated;
            s.owner.clone_from(to);
        }
        Action::MoveReplica { from, to, .. } => {
            s.copies.retain(|c| c != from);
            s.copies.push(to.clone());
        }
        Action::AddReplica { to, .. } if s.owner == *to => s.local = true,
        Action::AddReplica { to, .. } => s.copies.push(to.clone()),
        Action::Restart { to, local_copy, .. } => {
            s.copies.retain(|c| c != to);
            s.local = *local_copy;
            s.owner.clone_from(to);
        }
    }
}
