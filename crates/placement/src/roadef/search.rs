//! The solver: simulated annealing over shifts and swaps with reheating, deterministic by seed.

use crate::rng::Rng;

use super::check::{self, CheckError};
use super::model::Model;
use super::state::{Change, Geography, State};

/// How long to search.
pub struct Effort<'a> {
    /// Seed of the search.
    pub seed: u64,
    /// Begins hot, which finds places for the largest processes but takes time from the rest; with
    /// two threads, one of each kind is best.
    pub hot: bool,
    /// Share of the time that is used up, from 0.0; at 1.0 the search ends. The library reads no
    /// clock: the caller counts seconds or calls.
    pub progress: &'a dyn Fn() -> f64,
}

/// The best assignment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solution {
    /// The machine of each process.
    pub assignment: Vec<usize>,
    /// Its cost.
    pub cost: i64,
    /// Moves tried.
    pub trials: u64,
}

/// Trials between two looks at the clock.
const BATCH: usize = 2000;
/// Large processes brought elsewhere between two looks at the clock.
const OUSTS: usize = 8;
/// Annealing runs: when each begins and how hot. Each begins with the best so far.
const COOL: [(f64, f64); 3] = [(0.0, 1.0), (0.6, 0.15), (0.85, 0.05)];
/// The same with a hot and slow first run, which alone moves the largest processes.
const HOT: [(f64, f64); 3] = [(0.0, 20.0), (0.65, 1.0), (0.85, 0.1)];
/// Heat at the end of each run, as a share of a usual step.
const COLDEST: f64 = 2e-4;
/// Share of the cost that is not worth a search.
const FINEST: f64 = 1e-7;

/// Improves `first`, which must keep all hard rules.
///
/// # Errors
/// The hard rule that `first` breaks.
pub fn solve(model: &Model, first: &[usize], effort: &Effort<'_>) -> Result<Solution, CheckError> {
    let cost = check::cost(model, first, first)?;
    let geo = Geography::new(model);
    let mut search = Search {
        state: State::new(model, first, first, &geo),
        geo: &geo,
        rng: Rng::new(effort.seed),
        best: Solution {
            assignment: first.to_vec(),
            cost,
            trials: 0,
        },
        trials: 0,
        fine: 0.0,
        size: sizes(model),
        members: members(model),
    };
    if first.is_empty() || model.machines.len() < 2 {
        return Ok(search.best);
    }
    let scale = search.usual_step();
    search.fine = scale;
    let runs = if effort.hot { HOT } else { COOL };
    for (k, &(begin, heat)) in runs.iter().enumerate() {
        let end = runs.get(k + 1).map_or(1.0, |r| r.0);
        if k > 0 {
            let best = search.best.assignment.clone();
            search.state = State::new(model, first, &best, &geo);
        }
        // As cold as changes of the cost still matter, down to less than one unit.
        let cold = (search.best.cost as f64 * FINEST).clamp(0.3, (scale * COLDEST).max(0.3));
        search.anneal([scale * heat, cold], begin, end, effort.progress);
    }
    search.best.trials = search.trials;
    Ok(search.best)
}

/// What a process weighs on the cost, whichever machine it is on.
fn sizes(model: &Model) -> Vec<i64> {
    let weigh = |p: &super::model::Process| {
        p.requirement
            .iter()
            .zip(&model.resources)
            .map(|(amount, r)| amount * r.weight)
            .sum()
    };
    model.processes.iter().map(weigh).collect()
}

/// The processes of each service.
fn members(model: &Model) -> Vec<Vec<u32>> {
    let mut out = vec![vec![]; model.services.len()];
    for (p, process) in model.processes.iter().enumerate() {
        out[process.service].push(p as u32);
    }
    out
}

pub(super) struct Search<'a> {
    pub(super) state: State<'a>,
    pub(super) geo: &'a Geography,
    pub(super) rng: Rng,
    /// What each process weighs.
    pub(super) size: Vec<i64>,
    /// The processes of each service.
    members: Vec<Vec<u32>>,
    best: Solution,
    trials: u64,
    /// What a broken rule costs.
    pub(super) fine: f64,
}

impl Search<'_> {
    /// The usual size of a change for the worse, from which the heat follows.
    fn usual_step(&mut self) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for _ in 0..20_000 {
            let p = self.rng.below(self.state.now.len());
            let to = self.rng.below(self.state.model.machines.len());
            if let Some(change) = self.state.shift_change(p, to, self.geo)
                && change.cost != 0
            {
                sum += (change.cost.unsigned_abs() as f64).ln();
                count += 1;
            }
        }
        if count == 0 {
            1.0
        } else {
            (sum / f64::from(count)).exp()
        }
    }

    fn anneal(&mut self, [hot, cold]: [f64; 2], begin: f64, end: f64, progress: &dyn Fn() -> f64) {
        loop {
            let at = ((progress() - begin) / (end - begin)).max(0.0);
            if at >= 1.0 {
                return;
            }
            let heat = hot * (cold / hot).powf(at);
            for _ in 0..BATCH {
                self.trial(heat);
            }
            for _ in 0..OUSTS {
                self.oust(heat);
            }
            // Broken rules cost more the longer they last, and less the longer there are none.
            let by = if self.state.broken > 0 { 1.02 } else { 0.99 };
            self.fine = (self.fine * by).clamp(heat, 1e15);
            self.trials += BATCH as u64;
        }
    }

    fn trial(&mut self, heat: f64) {
        let count = self.state.now.len();
        let p = self.rng.below(count);
        let kind = self.rng.below(20);
        if kind > 16 {
            self.chain(p, heat);
        } else if kind < 8 {
            let to = if kind == 0 {
                self.state.first[p]
            } else {
                self.rng.below(self.state.model.machines.len())
            };
            if let Some(change) = self.state.shift_change(p, to, self.geo)
                && self.accepts(change, heat)
            {
                self.state.shift(p, to, change, self.geo);
                self.note();
            }
        } else {
            // Two of one service change places without touching any rule of theirs.
            let alike = &self.members[self.state.model.processes[p].service];
            let q = if kind < 13 && alike.len() > 1 {
                alike[self.rng.below(alike.len())] as usize
            } else {
                self.rng.below(count)
            };
            if let Some(change) = self.state.swap_change(p, q, self.geo)
                && self.accepts(change, heat)
            {
                self.state.swap(p, q, change, self.geo);
                self.note();
            }
        }
    }

    /// One process goes where another makes room by going elsewhere.
    fn chain(&mut self, p: usize, heat: f64) {
        let machines = self.state.model.machines.len();
        let (from, to) = (self.state.now[p], self.rng.below(machines));
        let there = self.state.processes_on[to].len();
        if there == 0 {
            return;
        }
        let q = self.state.processes_on[to][self.rng.below(there)] as usize;
        let Some(first) = self.state.shift_change(p, to, self.geo) else {
            return;
        };
        self.state.shift(p, to, first, self.geo);
        let out = if self.rng.below(4) == 0 {
            self.state.first[q]
        } else {
            self.rng.below(machines)
        };
        if let Some(second) = self.state.shift_change(q, out, self.geo) {
            let both = Change {
                cost: first.cost + second.cost,
                broken: first.broken + second.broken,
                over: first.over + second.over,
            };
            if self.accepts(both, heat) {
                self.state.shift(q, out, second, self.geo);
                self.note();
                return;
            }
        }
        let back = Change {
            cost: -first.cost,
            broken: -first.broken,
            over: -first.over,
        };
        self.state.shift(p, from, back, self.geo);
    }

    #[inline]
    pub(super) fn accepts(&mut self, change: Change, heat: f64) -> bool {
        // Only a chain passes above a capacity, and not at its end.
        if change.over > 0 {
            return false;
        }
        let worse = change.cost as f64 + self.fine * change.broken as f64;
        worse <= 0.0 || self.rng.unit() < (-worse / heat).exp()
    }

    #[inline]
    pub(super) fn note(&mut self) {
        if self.state.broken == 0 && self.state.over == 0 && self.state.cost < self.best.cost {
            self.best.cost = self.state.cost;
            self.best.assignment.clone_from(&self.state.now);
        }
    }
}
