//! hbal's cluster score, kept incrementally: a step costs what it changed, not the cluster.
//! Long because every term of the score stands beside its own increment.
//!
//! The score (Ganeti 3.0, `Ganeti.HTools.Cluster.Metrics`) is a weighted sum of population standard
//! deviations over the on-line nodes and of plain sums; `docs` in the README lists the terms. For
//! each deviation we keep Σx and Σx², so that a move costs only the nodes that it touches.

use std::collections::{BTreeMap, HashMap};

use super::text::{Template, Text};

/// No node.
pub(super) const NONE: u32 = u32::MAX;
/// Deviations: memory, disk, reserved memory, vCPU ratio, four loads, spindles, memory with what
/// stopped instances would need.
const METRICS: usize = 10;
const WEIGHTS: [f64; METRICS] = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5];
const RESERVED: usize = 2;
const RESERVED_TOTAL_WEIGHT: f64 = 0.25;

/// Primary and secondary node of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub primary: u32,
    pub secondary: u32,
}

/// One change of place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub instance: u32,
    pub to: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub memory: i64,
    pub used_memory: i64,
    pub disk: i64,
    pub local_disk: i64,
    pub vcpus: i64,
    pub spindles: i64,
    pub n1_memory: i64,
    pub load: [f64; 4],
    pub tags: Vec<u32>,
    pub template: Template,
    pub movable: bool,
}

#[derive(Debug, Clone)]
struct Fixed {
    memory: f64,
    disk: f64,
    cores: f64,
    speed: f64,
    spindles: f64,
    offline: bool,
    most_vcpus: f64,
    places: Vec<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    memory: i64,
    memory_all: i64,
    disk: i64,
    vcpus: i64,
    spindles: i64,
    load: [f64; 4],
    primaries: i64,
    secondaries: i64,
    conflicts: i64,
    reserved: i64,
}

#[derive(Debug, Clone, Default)]
struct Lists {
    /// Memory that this node would need if a peer failed.
    peers: Vec<(u32, i64)>,
    tags: Vec<(u32, i32)>,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    sum: [f64; METRICS],
    square: [f64; METRICS],
    counts: f64,
    location: i64,
    pairs: i64,
}

/// The incremental state of one node group.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub instances: Vec<Instance>,
    pub places: Vec<Place>,
    fixed: Vec<Fixed>,
    sums: Vec<Sums>,
    lists: Vec<Lists>,
    pair_counts: Vec<i32>,
    tag_count: usize,
    online: f64,
    /// Also asks whether the secondary can run an instance while its primary is replaced: a rule
    /// about the way, not about the end state, so the search does not set it.
    pub strict: bool,
    totals: Totals,
}

/// What a change would do to the nodes that it touches.
struct Effect {
    nodes: Vec<u32>,
    sums: Vec<Sums>,
    peers: Vec<(u32, u32, i64)>,
    tags: Vec<(u32, u32, i32)>,
}

/// Room reused by one evaluation after the other.
pub(super) struct Scratch(Effect);

impl Scratch {
    pub fn new() -> Self {
        Self(Effect {
            nodes: vec![],
            sums: vec![],
            peers: vec![],
            tags: vec![],
        })
    }
}

struct TagIds {
    exclusion: HashMap<String, u32>,
    places: HashMap<String, u32>,
}

fn tag_ids(text: &Text) -> TagIds {
    let prefixes = |kind: &str| -> Vec<String> {
        text.tags
            .iter()
            .filter_map(|t| t.strip_prefix(kind))
            .map(|p| format!("{p}:"))
            .collect()
    };
    let matching = |wanted: &[String], tags: &mut dyn Iterator<Item = &String>| {
        let mut ids = BTreeMap::new();
        for t in tags.filter(|t| wanted.iter().any(|p| t.starts_with(p.as_str()))) {
            let next = ids.len() as u32;
            ids.entry(t.clone()).or_insert(next);
        }
        ids.into_iter().collect::<HashMap<_, _>>()
    };
    TagIds {
        exclusion: matching(
            &prefixes("htools:iextags:"),
            &mut text.instances.iter().flat_map(|s| s.tags.iter()),
        ),
        places: matching(
            &prefixes("htools:nlocation:"),
            &mut text.nodes.iter().flat_map(|n| n.tags.iter()),
        ),
    }
}

impl State {
    /// The state of the nodes `node_ids` and the instances `instance_ids` of `text`.
    pub fn new(text: &Text, node_ids: &[usize], instance_ids: &[usize]) -> Self {
        let ids = tag_ids(text);
        let local: HashMap<usize, u32> = node_ids
            .iter()
            .enumerate()
            .map(|(i, &n)| (n, i as u32))
            .collect();
        let fixed: Vec<Fixed> = node_ids
            .iter()
            .map(|&n| {
                let n = &text.nodes[n];
                Fixed {
                    memory: (n.total_memory as f64).max(1.0),
                    disk: (n.total_disk as f64).max(1.0),
                    cores: (n.cores as f64).max(1.0),
                    speed: n.cpu_speed,
                    spindles: (n.spindles as f64 * text.spindle_ratio).max(1e-9),
                    offline: n.offline,
                    most_vcpus: n.cores as f64 * text.vcpu_ratio,
                    places: n
                        .tags
                        .iter()
                        .filter_map(|t| ids.places.get(t).copied())
                        .collect(),
                }
            })
            .collect();
        let sums = node_ids
            .iter()
            .map(|&n| {
                let n = &text.nodes[n];
                Sums {
                    memory: n.free_memory,
                    memory_all: n.free_memory,
                    disk: n.free_disk,
                    vcpus: n.node_cpu,
                    ..Sums::default()
                }
            })
            .collect();
        let mut state = Self {
            instances: Vec::with_capacity(instance_ids.len()),
            places: Vec::with_capacity(instance_ids.len()),
            lists: vec![Lists::default(); fixed.len()],
            online: fixed.iter().filter(|f| !f.offline).count().max(1) as f64,
            fixed,
            strict: false,
            sums,
            pair_counts: vec![0; ids.places.len() * ids.exclusion.len()],
            tag_count: ids.exclusion.len(),
            totals: Totals {
                sum: [0.0; METRICS],
                square: [0.0; METRICS],
                counts: 0.0,
                location: 0,
                pairs: 0,
            },
        };
        for &i in instance_ids {
            state.load_instance(text, i, &local, &ids);
        }
        state.recount();
        state
    }

    fn load_instance(&mut self, text: &Text, i: usize, local: &HashMap<usize, u32>, ids: &TagIds) {
        let s = &text.instances[i];
        let drbd = s.template == Template::Drbd;
        let instance = Instance {
            memory: s.memory,
            used_memory: if s.running { s.memory } else { 0 },
            disk: s.disk,
            local_disk: if drbd || s.template == Template::Local {
                s.disk
            } else {
                0
            },
            vcpus: s.vcpus,
            spindles: if drbd || s.template == Template::Local {
                s.spindle_use
            } else {
                0
            },
            n1_memory: if s.auto_balance { s.memory } else { 0 },
            load: s.load,
            tags: s
                .tags
                .iter()
                .filter_map(|t| ids.exclusion.get(t).copied())
                .collect(),
            template: s.template,
            movable: s.auto_balance && matches!(s.template, Template::Shared | Template::Drbd),
        };
        let place = Place {
            primary: local[&s.primary],
            secondary: s
                .secondary
                .and_then(|n| local.get(&n).copied())
                .unwrap_or(NONE),
        };
        // The text's free memory and disk already hold the instances; only the rest is counted.
        let p = &mut self.sums[place.primary as usize];
        p.memory_all -= s.memory - instance.used_memory;
        p.vcpus += s.vcpus;
        p.spindles += instance.spindles;
        p.primaries += 1;
        for k in 0..4 {
            p.load[k] += s.load[k];
        }
        let lists = &mut self.lists[place.primary as usize];
        for &t in &instance.tags {
            p.conflicts += i64::from(bump(&mut lists.tags, t, 1) > 1);
            for &at in &self.fixed[place.primary as usize].places {
                self.pair_counts[at as usize * self.tag_count + t as usize] += 1;
            }
        }
        if place.secondary != NONE {
            let q = &mut self.sums[place.secondary as usize];
            q.spindles += instance.spindles;
            q.secondaries += 1;
            q.load[2] += s.load[2];
            bump_memory(
                &mut self.lists[place.secondary as usize].peers,
                place.primary,
                instance.n1_memory,
            );
        }
        self.instances.push(instance);
        self.places.push(place);
    }

    /// Computes every total from the nodes, which also removes rounding that has added up.
    pub fn recount(&mut self) {
        for (s, l) in self.sums.iter_mut().zip(&self.lists) {
            s.reserved = l.peers.iter().map(|p| p.1).max().unwrap_or(0);
        }
        let mut t = Totals {
            sum: [0.0; METRICS],
            square: [0.0; METRICS],
            counts: 0.0,
            location: 0,
            pairs: self
                .pair_counts
                .iter()
                .map(|&c| i64::from((c - 1).max(0)))
                .sum(),
        };
        for (f, s) in self.fixed.iter().zip(&self.sums) {
            add_node(&mut t, f, s, 1.0);
        }
        for p in &self.places {
            t.location += self.shared_places(*p);
        }
        self.totals = t;
    }

    pub fn node_count(&self) -> usize {
        self.fixed.len()
    }

    pub fn is_offline(&self, node: usize) -> bool {
        self.fixed[node].offline
    }

    /// The score of the state as it is.
    pub fn score(&self) -> f64 {
        self.score_of(&self.totals)
    }

    #[inline]
    fn score_of(&self, t: &Totals) -> f64 {
        let mut score = t.counts + t.location as f64 + t.pairs as f64;
        for (k, weight) in WEIGHTS.into_iter().enumerate() {
            let mean = t.sum[k] / self.online;
            score += weight * (t.square[k] / self.online - mean * mean).max(0.0).sqrt();
        }
        score
    }

    /// How many failure domains the two nodes of a place share.
    fn shared_places(&self, p: Place) -> i64 {
        if p.secondary == NONE {
            return 0;
        }
        let (a, b) = (
            &self.fixed[p.primary as usize],
            &self.fixed[p.secondary as usize],
        );
        a.places.iter().filter(|x| b.places.contains(x)).count() as i64
    }

    /// The score after `changes`, or `None` when hbal would refuse one of the resulting nodes.
    pub fn try_changes(&self, changes: &[Change], scratch: &mut Scratch) -> Option<f64> {
        let e = &mut scratch.0;
        self.effect(changes, e);
        if !self.is_legal(changes, e) {
            return None;
        }
        let mut t = self.totals;
        for (k, &n) in e.nodes.iter().enumerate() {
            let f = &self.fixed[n as usize];
            add_node(&mut t, f, &self.sums[n as usize], -1.0);
            add_node(&mut t, f, &e.sums[k], 1.0);
        }
        for c in changes {
            t.location +=
                self.shared_places(c.to) - self.shared_places(self.places[c.instance as usize]);
        }
        t.pairs += self.pair_change(e);
        Some(self.score_of(&t))
    }

    /// Carries `changes` out, legal or not.
    pub fn apply(&mut self, changes: &[Change], scratch: &mut Scratch) {
        let e = &mut scratch.0;
        self.effect(changes, e);
        let pairs = self.pair_change(e);
        for c in changes {
            let old = self.places[c.instance as usize];
            self.totals.location += self.shared_places(c.to) - self.shared_places(old);
            self.places[c.instance as usize] = c.to;
        }
        self.totals.pairs += pairs;
        for (k, &n) in e.nodes.iter().enumerate() {
            let f = &self.fixed[n as usize];
            add_node(&mut self.totals, f, &self.sums[n as usize], -1.0);
            add_node(&mut self.totals, f, &e.sums[k], 1.0);
            self.sums[n as usize] = e.sums[k];
        }
        for &(n, peer, memory) in &e.peers {
            bump_memory(&mut self.lists[n as usize].peers, peer, memory);
        }
        for &(n, tag, by) in &e.tags {
            bump(&mut self.lists[n as usize].tags, tag, by);
            for &at in &self.fixed[n as usize].places {
                self.pair_counts[at as usize * self.tag_count + tag as usize] += by;
            }
        }
    }

    fn pair_change(&self, e: &Effect) -> i64 {
        let mut by = 0;
        for (k, &(n, tag, sign)) in e.tags.iter().enumerate() {
            for &at in &self.fixed[n as usize].places {
                let mut count = self.pair_counts[at as usize * self.tag_count + tag as usize];
                for &(m, other, earlier) in &e.tags[..k] {
                    if other == tag && self.fixed[m as usize].places.contains(&at) {
                        count += earlier;
                    }
                }
                by += i64::from((count + sign - 1).max(0) - (count - 1).max(0));
            }
        }
        by
    }

    fn effect(&self, changes: &[Change], e: &mut Effect) {
        e.nodes.clear();
        e.sums.clear();
        e.peers.clear();
        e.tags.clear();
        for c in changes {
            let i = &self.instances[c.instance as usize];
            let from = self.places[c.instance as usize];
            self.add_role(e, i, from, -1);
            self.add_role(e, i, c.to, 1);
        }
        for k in 0..e.nodes.len() {
            e.sums[k].reserved = if e.peers.iter().any(|p| p.0 == e.nodes[k]) {
                self.reserved_after(e, e.nodes[k])
            } else {
                self.sums[e.nodes[k] as usize].reserved
            };
            if !e.tags.is_empty() {
                e.sums[k].conflicts += self.conflict_change(e, e.nodes[k]);
            }
        }
    }

    fn slot(&self, e: &mut Effect, node: u32) -> usize {
        if let Some(k) = e.nodes.iter().position(|&n| n == node) {
            return k;
        }
        e.nodes.push(node);
        e.sums.push(self.sums[node as usize]);
        e.nodes.len() - 1
    }

    fn add_role(&self, e: &mut Effect, i: &Instance, place: Place, sign: i64) {
        let k = self.slot(e, place.primary);
        let s = &mut e.sums[k];
        s.memory -= sign * i.used_memory;
        s.memory_all -= sign * i.memory;
        s.disk -= sign * i.local_disk;
        s.vcpus += sign * i.vcpus;
        s.spindles += sign * i.spindles;
        s.primaries += sign;
        let by = sign as f64;
        for d in 0..4 {
            s.load[d] += by * i.load[d];
        }
        for &t in &i.tags {
            e.tags.push((place.primary, t, sign as i32));
        }
        if place.secondary != NONE {
            let k = self.slot(e, place.secondary);
            let s = &mut e.sums[k];
            s.disk -= sign * i.local_disk;
            s.spindles += sign * i.spindles;
            s.secondaries += sign;
            s.load[2] += by * i.load[2];
            e.peers
                .push((place.secondary, place.primary, sign * i.n1_memory));
        }
    }

    fn reserved_after(&self, e: &Effect, node: u32) -> i64 {
        let changed = |peer: u32| -> i64 {
            e.peers
                .iter()
                .filter(|p| p.0 == node && p.1 == peer)
                .map(|p| p.2)
                .sum()
        };
        let peers = &self.lists[node as usize].peers;
        let known = peers
            .iter()
            .map(|&(peer, m)| m + changed(peer))
            .max()
            .unwrap_or(0);
        let new = e
            .peers
            .iter()
            .filter(|p| p.0 == node && peers.iter().all(|q| q.0 != p.1));
        new.map(|p| changed(p.1))
            .max()
            .unwrap_or(0)
            .max(known)
            .max(0)
    }

    fn conflict_change(&self, e: &Effect, node: u32) -> i64 {
        let mut by = 0;
        for (k, &(n, tag, sign)) in e.tags.iter().enumerate() {
            if n != node {
                continue;
            }
            let base = self.tag_count_at(node, tag);
            let before: i32 = e.tags[..k]
                .iter()
                .filter(|x| x.0 == n && x.1 == tag)
                .map(|x| x.2)
                .sum();
            let count = base + before;
            by += i64::from((count + sign - 1).max(0) - (count - 1).max(0));
        }
        by
    }

    fn tag_count_at(&self, node: u32, tag: u32) -> i32 {
        self.lists[node as usize]
            .tags
            .iter()
            .find(|t| t.0 == tag)
            .map_or(0, |t| t.1)
    }

    /// hbal's own rules for taking an instance: memory, disk, N+1, vCPU ratio, spindles, tags.
    fn is_legal(&self, changes: &[Change], e: &Effect) -> bool {
        for c in changes {
            let i = &self.instances[c.instance as usize];
            let old = self.places[c.instance as usize];
            if c.to.primary == c.to.secondary {
                return false;
            }
            for n in [c.to.primary, c.to.secondary] {
                if n != NONE
                    && n != old.primary
                    && n != old.secondary
                    && self.fixed[n as usize].offline
                {
                    return false;
                }
            }
            if c.to.secondary != NONE && c.to.secondary != old.secondary {
                let k = e
                    .nodes
                    .iter()
                    .position(|&n| n == c.to.secondary)
                    .unwrap_or(0);
                if i.n1_memory >= e.sums[k].memory {
                    return false;
                }
            }
            if c.to.primary != old.primary {
                let stays = self.strict && old.secondary != NONE && c.to.secondary == old.secondary;
                if self.fixed[c.to.primary as usize].offline || (stays && !self.can_host(i, old)) {
                    return false;
                }
            }
        }
        e.nodes
            .iter()
            .enumerate()
            .all(|(k, &n)| self.node_is_legal(n, &e.sums[k]))
    }

    /// Whether the secondary can run the instance while its primary is replaced (`f r:X f`).
    fn can_host(&self, i: &Instance, at: Place) -> bool {
        let mut s = self.sums[at.secondary as usize];
        let peers = &self.lists[at.secondary as usize].peers;
        let left = |&(p, m): &(u32, i64)| if p == at.primary { m - i.n1_memory } else { m };
        s.reserved = peers.iter().map(left).max().unwrap_or(0).max(0);
        s.memory -= i.used_memory;
        s.vcpus += i.vcpus;
        let meets = |t: &u32| self.tag_count_at(at.secondary, *t) > 0;
        s.conflicts += i.tags.iter().filter(|t| meets(t)).count() as i64;
        self.node_is_legal(at.secondary, &s)
    }

    fn node_is_legal(&self, node: u32, new: &Sums) -> bool {
        let (f, old) = (&self.fixed[node as usize], &self.sums[node as usize]);
        (new.memory > 0 || new.memory >= old.memory)
            && (new.disk > 0 || new.disk >= old.disk)
            && (new.vcpus as f64 <= f.most_vcpus || new.vcpus <= old.vcpus)
            && (new.spindles as f64 <= f.spindles || new.spindles <= old.spindles)
            && (new.memory >= new.reserved || old.memory < old.reserved)
            && new.conflicts <= old.conflicts
    }
}

/// Adds (or with -1 takes away) what one node brings to the totals.
#[inline]
fn add_node(t: &mut Totals, f: &Fixed, s: &Sums, sign: f64) {
    if f.offline {
        let all = (s.primaries + s.secondaries) as f64;
        t.counts += sign * (4.0 * all + 16.0 * s.primaries as f64);
        return;
    }
    let values = [
        s.memory as f64 / f.memory,
        s.disk as f64 / f.disk,
        s.reserved as f64 / f.memory,
        s.vcpus as f64 / f.cores / f.speed,
        s.load[0],
        s.load[1],
        s.load[2],
        s.load[3],
        s.spindles as f64 / f.spindles,
        s.memory_all as f64 / f.memory,
    ];
    for (k, value) in values.into_iter().enumerate() {
        t.sum[k] += sign * value;
        t.square[k] += sign * value * value;
    }
    let failing = if s.memory < s.reserved {
        s.primaries + s.secondaries
    } else {
        0
    };
    t.counts += sign
        * (failing as f64 + 2.0 * s.conflicts as f64 + RESERVED_TOTAL_WEIGHT * values[RESERVED]);
}

fn bump(list: &mut Vec<(u32, i32)>, key: u32, by: i32) -> i32 {
    if let Some(k) = list.iter().position(|x| x.0 == key) {
        list[k].1 += by;
        let now = list[k].1;
        if now == 0 {
            list.swap_remove(k);
        }
        return now;
    }
    list.push((key, by));
    by
}

fn bump_memory(list: &mut Vec<(u32, i64)>, key: u32, by: i64) {
    if let Some(k) = list.iter().position(|x| x.0 == key) {
        list[k].1 += by;
        if list[k].1 == 0 {
            list.swap_remove(k);
        }
    } else if by != 0 {
        list.push((key, by));
    }
}
