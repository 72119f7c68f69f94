//! The solver: simulated annealing over shifts and swaps with reheating, deterministic by seed.

use crate::rng::Rng;

use super::check::{self, CheckError};
use super::counts::Geography;
use super::model::Model;
use super::state::{Change, State};

/// How long to search.
pub struct Effort<'a> {
    /// Seed of the search.
    pub seed: u64,
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
/// Annealing runs: the share of the time when each ends, and its heat at the begin and at the end, in
/// usual steps. Each begins with the best so far. Where the largest processes stand is settled while
/// it is hot, and rarely changed after that.
const RUNS: [(f64, [f64; 2]); 4] = [
    (0.6, [30.0, 0.2]),
    (0.75, [0.4, 0.0]),
    (0.9, [0.15, 0.0]),
    (1.0, [0.05, 0.0]),
];
/// The least heat, in usual steps.
const COLDEST: f64 = 2e-4;
/// Share of the cost that is not worth a search.
const FINEST: f64 = 1e-7;
/// What a unit above a capacity costs at first, and at least.
const OVER: [f64; 2] = [20.0, 1.0];

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
        over_fine: OVER[0],
        size: sizes(model),
        members: members(model),
    };
    if first.is_empty() || model.machines.len() < 2 {
        return Ok(search.best);
    }
    let scale = search.usual_step();
    search.fine = scale;
    let mut begin = 0.0;
    for (until, heat) in RUNS {
        let best = search.best.assignment.clone();
        search.state = State::new(model, first, &best, &geo);
        // As cold as changes of the cost still matter, down to less than one unit.
        let cold = (search.best.cost as f64 * FINEST).clamp(0.3, (scale * COLDEST).max(0.3));
        let heat = heat.map(|it| (it * scale).max(cold));
        search.anneal(heat, begin, until, effort.progress);
        begin = until;
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

/// A process was brought to a machine.
pub(super) struct Sent {
    change: Change,
    /// The one of its service that went to where it had been.
    pub(super) instead: Option<usize>,
    /// The process, where it was and where it is.
    back: [usize; 3],
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
    /// What a unit above a capacity costs.
    over_fine: f64,
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
            let by = if self.state.over > 0 { 1.02 } else { 0.98 };
            self.over_fine = (self.over_fine * by).clamp(OVER[1], 1e15);
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
            let loads = self.state.shift_loads(p, to);
            if let Some(change) = self.accepted(loads, [(p, to)], heat) {
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
            let loads = self.state.swap_loads(p, q);
            if let Some(change) = self.accepted(loads, self.state.exchange(p, q), heat) {
                self.state.swap(p, q, change, self.geo);
                self.note();
            }
        }
    }

    /// The change, if these moves are accepted. Most are not, and of most of them their loads say
    /// so already: rules are counted only where that may help.
    fn accepted<const N: usize>(
        &mut self,
        loads: Option<Change>,
        moves: [(usize, usize); N],
        heat: f64,
    ) -> Option<Change> {
        let mut change = loads?;
        let limit = -self.rng.unit().ln() * heat;
        if self.at_best(change) > limit {
            return None;
        }
        change.broken = self.state.rule_change(&moves, self.geo);
        (self.worse(change) <= limit).then_some(change)
    }

    /// How much worse a change makes it at least, whose rules are not counted: it cannot mend more
    /// than are broken.
    #[inline]
    pub(super) fn at_best(&self, loads: Change) -> f64 {
        self.worse(loads) - self.fine * self.state.broken as f64
    }

    /// One process goes where another makes room by going elsewhere.
    fn chain(&mut self, p: usize, heat: f64) {
        let machines = self.state.model.machines.len();
        let to = self.rng.below(machines);
        let there = self.state.processes_on[to].len();
        if there == 0 {
            return;
        }
        let beside = self.state.processes_on[to][self.rng.below(there)] as usize;
        let before = self.state.cost;
        let Some(first) = self.send(p, to) else {
            return;
        };
        // Whom it took the place of goes on, or another one.
        let q = match first.instead {
            Some(q) if q == beside || self.rng.below(2) == 0 => q,
            _ => beside,
        };
        let out = if self.rng.below(4) == 0 {
            self.state.first[q]
        } else {
            self.rng.below(machines)
        };
        if let Some(second) = self.send(q, out) {
            let both = Change {
                cost: first.change.cost + second.change.cost,
                broken: first.change.broken + second.change.broken,
                over: first.change.over + second.change.over,
            };
            if self.accepts(both, heat) {
                self.note();
                return;
            }
            self.take_back(&second);
        }
        self.take_back(&first);
        self.state.cost = before;
    }

    /// Brings a process to a machine, in exchange for the one of its service there, if any.
    pub(super) fn send(&mut self, p: usize, to: usize) -> Option<Sent> {
        let at = self.state.now[p];
        let service = self.state.model.processes[p].service;
        let (change, instead) = if self.state.holds(service, to) {
            let same = |q: &&u32| self.state.model.processes[**q as usize].service == service;
            let q = *self.state.processes_on[to].iter().find(same)? as usize;
            let change = self.state.swap_change(p, q, self.geo)?;
            self.state.swap(p, q, change, self.geo);
            (change, Some(q))
        } else {
            let change = self.state.shift_change(p, to, self.geo)?;
            self.state.shift(p, to, change, self.geo);
            (change, None)
        };
        Some(Sent {
            change,
            instead,
            back: [p, at, to],
        })
    }

    /// Undoes what [`Search::send`] did last; the cost is the caller's to restore.
    fn take_back(&mut self, sent: &Sent) {
        let [p, at, to] = sent.back;
        self.state.put(p, at, self.geo);
        if let Some(q) = sent.instead {
            self.state.put(q, to, self.geo);
        }
    }

    #[inline]
    pub(super) fn accepts(&mut self, change: Change, heat: f64) -> bool {
        let worse = self.worse(change);
        worse <= 0.0 || self.rng.unit() < (-worse / heat).exp()
    }

    /// How much worse a change makes it, with what broken rules and capacities cost.
    #[inline]
    pub(super) fn worse(&self, change: Change) -> f64 {
        change.cost as f64 + self.fine * change.broken as f64 + self.over_fine * change.over as f64
    }

    #[inline]
    pub(super) fn note(&mut self) {
        if self.state.broken == 0 && self.state.over == 0 && self.state.cost < self.best.cost {
            self.best.cost = self.state.cost;
            self.best.assignment.clone_from(&self.state.now);
        }
    }
}
