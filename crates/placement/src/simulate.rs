//! A simulator: days of load over a cluster, with one of three policies that may move servers.
//!
//! Each server follows one of four daily shapes (office, evening, night batch, flat) around its
//! measured load, with weekends, noise and rare bursts of some hours. A tick is one minute; a move
//! takes effect at the next one. All policies see the same load.

use serde::Serialize;

use crate::plan::{Action, PlanError, rebalance};
use crate::policy::Policy;
use crate::predict::History;
use crate::rng::Rng;
use crate::snapshot::{Load, Snapshot};

/// Who decides about moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancer {
    /// Nobody: nothing moves.
    None,
    /// This crate: asked when samples trigger, and once an hour.
    Ours,
    /// Above the mark now: the busiest server goes to the least used node.
    Threshold,
    /// Every minute the single move that evens out most.
    Greedy,
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Who decided.
    pub balancer: Balancer,
    /// Moves made.
    pub moves: usize,
    /// GiB of memory copied.
    pub gib: u64,
    /// Minutes above the mark, added over the nodes.
    pub minutes_above: u64,
    /// Mean over time of the standard deviation of the nodes' use, thousandths.
    pub unevenness: u64,
    /// Highest use of any node at any time, thousandths.
    pub highest: u64,
}

#[derive(Clone)]
struct Habit {
    kind: usize,
    base: [f64; 4],
    burst_until: u64,
    burst: f64,
}

struct World {
    snapshot: Snapshot,
    policy: Policy,
    habits: Vec<Habit>,
    rng: Rng,
    owner: Vec<usize>,
    load: Vec<[f64; 4]>,
    hours: Vec<Vec<Load>>,
    hour_sums: Vec<[f64; 4]>,
    recent: Vec<Vec<u64>>,
    moved_at: Vec<Option<u64>>,
}

const MINUTES: u64 = 1440;

fn shape(kind: usize, minute: u64) -> f64 {
    let hour = (minute % MINUTES) as f64 / 60.0;
    let weekend = minute / MINUTES % 7 >= 5;
    let bump = |mid: f64, width: f64| (-((hour - mid) / width).powi(2)).exp();
    match kind {
        0 if weekend => 0.25,
        0 => 0.25 + 1.0 * bump(13.0, 3.5),
        1 => 0.3 + 1.0 * bump(20.5, 2.0) + if weekend { 0.3 * bump(15.0, 4.0) } else { 0.0 },
        2 => 0.2 + 1.2 * bump(3.0, 1.0),
        _ => 0.6,
    }
}

impl World {
    fn new(snapshot: &Snapshot, policy: &Policy, seed: u64) -> Result<Self, PlanError> {
        snapshot.check()?;
        policy.check()?;
        let mut rng = Rng::new(seed);
        let node = |id: &str| snapshot.nodes.iter().position(|n| n.id == id).unwrap_or(0);
        let habits = snapshot
            .servers
            .iter()
            .map(|s| Habit {
                kind: rng.below(4),
                base: s.measured.unwrap_or_default().parts().map(|v| v as f64),
                burst_until: 0,
                burst: 1.0,
            })
            .collect();
        let count = snapshot.servers.len();
        Ok(Self {
            owner: snapshot
                .servers
                .iter()
                .map(|s| node(s.owner.as_deref().unwrap_or_default()))
                .collect(),
            snapshot: snapshot.clone(),
            policy: policy.clone(),
            habits,
            rng,
            load: vec![[0.0; 4]; count],
            hours: vec![vec![]; count],
            hour_sums: vec![[0.0; 4]; count],
            recent: vec![vec![]; snapshot.nodes.len()],
            moved_at: vec![None; count],
        })
    }

    fn tick(&mut self, minute: u64) {
        for (i, h) in self.habits.iter_mut().enumerate() {
            let (start, strength) = (self.rng.below(20_000) == 0, 1.5 + self.rng.unit());
            if start {
                h.burst_until = minute + 60 + self.rng.below(240) as u64;
                h.burst = strength;
            }
            let burst = if minute < h.burst_until { h.burst } else { 1.0 };
            let noise = 0.85 + 0.3 * self.rng.unit();
            let level = shape(h.kind, minute) * noise * burst;
            for k in 0..4 {
                // Memory hardly follows the day.
                let level = if k == 1 { 0.8 + 0.05 * noise } else { level };
                self.load[i][k] = h.base[k] * level;
                self.hour_sums[i][k] += self.load[i][k];
            }
        }
        if minute % 60 == 59 {
            for (sums, hours) in self.hour_sums.iter_mut().zip(&mut self.hours) {
                let [c, m, i, n] = sums.map(|v| (v / 60.0) as u64);
                hours.push(Load {
                    cpu_milli: c,
                    memory_mib: m,
                    io: i,
                    net_kbit: n,
                });
                *sums = [0.0; 4];
                if hours.len() > 7 * 24 {
                    hours.remove(0);
                }
            }
        }
    }

    fn uses(&self) -> Vec<u64> {
        let mut sums = vec![[0.0; 4]; self.snapshot.nodes.len()];
        for (o, l) in self.owner.iter().zip(&self.load) {
            for k in 0..4 {
                sums[*o][k] += l[k];
            }
        }
        sums.iter()
            .zip(&self.snapshot.nodes)
            .map(|(s, n)| use_of(s, &n.capacity))
            .collect()
    }

    fn sees(&mut self, minute: u64) -> &Snapshot {
        for (i, s) in self.snapshot.servers.iter_mut().enumerate() {
            let [c, m, io, n] = self.load[i].map(|v| v as u64);
            s.measured = Some(Load {
                cpu_milli: c,
                memory_mib: m,
                io,
                net_kbit: n,
            });
            s.owner = Some(self.snapshot.nodes[self.owner[i]].id.clone());
            s.moved_ago_s = self.moved_at[i].map(|at| (minute - at) * 60);
            s.history = Some(History {
                interval_s: 3600,
                next_at_s: minute / 60 * 3600 % 86_400,
                samples: self.hours[i].clone(),
            });
        }
        for (n, r) in self.snapshot.nodes.iter_mut().zip(&self.recent) {
            n.recent.clone_from(r);
        }
        &self.snapshot
    }

    /// Whether a server may stand on a node: memory, and no other server of its group.
    fn fits(&self, server: usize, node: usize) -> bool {
        let s = &self.snapshot.servers[server];
        let mut memory = s.reserved.memory_mib;
        for (i, o) in self.owner.iter().enumerate().filter(|(_, o)| **o == node) {
            let other = &self.snapshot.servers[i];
            if i == server || (s.group.is_some() && s.group == other.group) {
                return i == server && *o == node;
            }
            memory += other.reserved.memory_mib;
        }
        memory <= self.snapshot.nodes[node].capacity.memory_mib
    }

    fn share(&self, server: usize, node: usize) -> u64 {
        use_of(&self.load[server], &self.snapshot.nodes[node].capacity)
    }
}

fn use_of(load: &[f64; 4], c: &crate::snapshot::Resources) -> u64 {
    [c.cpu_milli, c.memory_mib, c.io, c.net_kbit]
        .iter()
        .zip(load)
        .filter(|(c, _)| **c > 0)
        .map(|(c, l)| (l * 1000.0 / *c as f64) as u64)
        .max()
        .unwrap_or(0)
}

/// Plays `days` days over the snapshot and counts what the balancer makes of them.
///
/// # Errors
/// A contradictory snapshot or policy.
pub fn simulate(
    snapshot: &Snapshot,
    policy: &Policy,
    balancer: Balancer,
    days: u64,
    seed: u64,
) -> Result<Outcome, PlanError> {
    let mut world = World::new(snapshot, policy, seed)?;
    let mut out = Outcome {
        balancer,
        moves: 0,
        gib: 0,
        minutes_above: 0,
        unevenness: 0,
        highest: 0,
    };
    let mut deviations = 0.0;
    for minute in 0..days * MINUTES {
        world.tick(minute);
        let uses = world.uses();
        for (r, u) in world.recent.iter_mut().zip(&uses) {
            r.push(*u);
            if r.len() > policy.trigger_window {
                r.remove(0);
            }
        }
        out.minutes_above += uses.iter().filter(|u| **u > policy.high_water).count() as u64;
        out.highest = out.highest.max(uses.iter().copied().max().unwrap_or(0));
        deviations += deviation(&uses);
        let moves = match balancer {
            Balancer::None => vec![],
            Balancer::Ours => ours(&mut world, minute)?,
            Balancer::Threshold => threshold(&world, &uses),
            Balancer::Greedy => greedy(&world, &uses).into_iter().collect(),
        };
        for (server, to) in moves {
            out.moves += 1;
            out.gib += snapshot.servers[server].reserved.memory_mib / 1024;
            world.owner[server] = to;
            world.moved_at[server] = Some(minute);
        }
    }
    out.unevenness = (deviations / (days * MINUTES).max(1) as f64) as u64;
    Ok(out)
}

fn deviation(uses: &[u64]) -> f64 {
    let count = uses.len().max(1) as f64;
    let mean = uses.iter().sum::<u64>() as f64 / count;
    (uses.iter().map(|u| (*u as f64 - mean).powi(2)).sum::<f64>() / count).sqrt()
}

fn ours(world: &mut World, minute: u64) -> Result<Vec<(usize, usize)>, PlanError> {
    let p = &world.policy;
    let triggered = world
        .recent
        .iter()
        .any(|r| r.iter().filter(|u| **u > p.high_water).count() >= p.trigger_samples);
    // A trigger that nothing helps against is not asked about every minute.
    if !(minute.is_multiple_of(60) || (triggered && minute.is_multiple_of(5))) {
        return Ok(vec![]);
    }
    let policy = world.policy.clone();
    let plan = rebalance(world.sees(minute), &policy)?;
    let node = |id: &str| world.snapshot.nodes.iter().position(|n| n.id == id);
    let server = |id: &str| world.snapshot.servers.iter().position(|s| s.id == id);
    Ok(plan
        .steps
        .iter()
        .filter_map(|s| match &s.action {
            Action::Migrate { server: id, to, .. } => Some((server(id)?, node(to)?)),
            _ => None,
        })
        .collect())
}

fn threshold(world: &World, uses: &[u64]) -> Vec<(usize, usize)> {
    let mut moves: Vec<(usize, usize)> = Vec::new();
    for n in (0..uses.len()).filter(|&n| uses[n] > world.policy.high_water) {
        let on = (0..world.owner.len()).filter(|&s| world.owner[s] == n);
        let Some(s) = on.max_by_key(|&s| world.share(s, n)) else {
            continue;
        };
        let free = |t: &usize| *t != n && world.fits(s, *t) && !moves.iter().any(|m| m.1 == *t);
        if let Some(t) = (0..uses.len()).filter(free).min_by_key(|&t| uses[t]) {
            moves.push((s, t));
        }
    }
    moves
}

fn greedy(world: &World, uses: &[u64]) -> Option<(usize, usize)> {
    let hot = (0..uses.len()).max_by_key(|&n| uses[n])?;
    let mut best = (uses[hot], None);
    for s in (0..world.owner.len()).filter(|&s| world.owner[s] == hot) {
        for t in (0..uses.len()).filter(|&t| t != hot) {
            let there = uses[t] + world.share(s, t);
            let here = uses[hot].saturating_sub(world.share(s, hot));
            if there.max(here) < best.0 && world.fits(s, t) {
                best = (there.max(here), Some((s, t)));
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Storage, cluster};
    use crate::htools::Text;

    #[test]
    fn our_policy_moves_less_than_the_others_and_leaves_less_time_above_the_mark_than_nobody() {
        let files = cluster(10, 100, Storage::Shared, 3);
        let mut text = Text::parse(&files.data).unwrap();
        text.apply_load(&files.load).unwrap();
        let snapshot = Snapshot::from_htools(&text);
        let run = |b| simulate(&snapshot, &Policy::default(), b, 3, 1).unwrap();
        let (none, ours, threshold, greedy) = (
            run(Balancer::None),
            run(Balancer::Ours),
            run(Balancer::Threshold),
            run(Balancer::Greedy),
        );
        assert!(ours.minutes_above < none.minutes_above, "{ours:?} {none:?}");
        assert!(ours.moves < greedy.moves, "{ours:?} {greedy:?}");
        assert_eq!(ours, run(Balancer::Ours));
        assert!(threshold.moves > 0);
    }
}
