//! The solver's state: a move costs what it touches, two machines and one or two services.

use super::counts::{Counts, Geography};
use super::model::Model;

/// What a move would change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// The cost.
    pub cost: i64,
    /// Broken rules.
    pub broken: i64,
    /// Units above the capacities.
    pub over: i64,
}

/// The working state of a search.
pub(super) struct State<'a> {
    pub model: &'a Model,
    pub first: &'a [usize],
    pub now: Vec<usize>,
    pub cost: i64,
    /// Spread and dependency rules that are broken: the search may pass through such states.
    pub broken: i64,
    /// Units above the capacities, passed through likewise.
    pub over: i64,
    resources: usize,
    requirement: Vec<i64>,
    capacity: Vec<i64>,
    safety: Vec<i64>,
    usage: Vec<i64>,
    /// Use by processes that moved away, for transient resources.
    left: Vec<i64>,
    /// Cost of a machine and its units above capacity.
    measured: Vec<(i64, i64)>,
    on_machine: Counts,
    in_location: Counts,
    in_neighbourhood: Counts,
    spread: Vec<usize>,
    needed_by: Vec<Vec<usize>>,
    /// Services that have a spread or a dependency on either side.
    bound: Vec<bool>,
    moved: Vec<usize>,
    /// How many services have so many moved processes.
    histogram: Vec<usize>,
    most_moved: usize,
    pub processes_on: Vec<Vec<u32>>,
    position: Vec<u32>,
}

impl<'a> State<'a> {
    /// The state of an assignment that keeps all hard rules.
    pub fn new(model: &'a Model, first: &'a [usize], now: &[usize], geo: &Geography) -> Self {
        let resources = model.resources.len();
        let services = model.services.len();
        let mut needed_by = vec![vec![]; services];
        for (s, service) in model.services.iter().enumerate() {
            for &n in &service.needs {
                needed_by[n].push(s);
            }
        }
        let flat = |pick: &dyn Fn(&super::model::Machine) -> &Vec<i64>| -> Vec<i64> {
            model
                .machines
                .iter()
                .flat_map(|m| pick(m).iter().copied())
                .collect()
        };
        let cells = model.machines.len() * resources;
        let mut state = Self {
            model,
            first,
            now: now.to_vec(),
            cost: 0,
            broken: 0,
            over: 0,
            resources,
            requirement: model
                .processes
                .iter()
                .flat_map(|p| p.requirement.clone())
                .collect(),
            capacity: flat(&|m| &m.capacity),
            safety: flat(&|m| &m.safety),
            usage: vec![0; cells],
            left: vec![0; cells],
            measured: vec![(0, 0); model.machines.len()],
            on_machine: Counts::new(services, model.machines.len()),
            in_location: Counts::new(services, geo.locations),
            in_neighbourhood: Counts::new(services, geo.neighbourhoods),
            spread: vec![0; services],
            bound: (0..services)
                .map(|s| {
                    let service = &model.services[s];
                    service.spread > 1 || !service.needs.is_empty() || !needed_by[s].is_empty()
                })
                .collect(),
            needed_by,
            moved: vec![0; services],
            histogram: vec![0; model.processes.len() + 1],
            most_moved: 0,
            processes_on: vec![vec![]; model.machines.len()],
            position: vec![0; model.processes.len()],
        };
        state.histogram[0] = services;
        for p in 0..now.len() {
            state.load(p, geo);
        }
        for m in 0..model.machines.len() {
            state.measured[m] = state.measure(m, usize::MAX, usize::MAX);
            state.over += state.measured[m].1;
        }
        let [_, service_weight, _] = model.move_weights;
        state.cost += state.measured.iter().map(|m| m.0).sum::<i64>()
            + service_weight * state.most_moved as i64;
        state
    }

    fn load(&mut self, p: usize, geo: &Geography) {
        let (m, home) = (self.now[p], self.first[p]);
        let s = self.model.processes[p].service;
        for r in 0..self.resources {
            let amount = self.requirement[p * self.resources + r];
            self.usage[m * self.resources + r] += amount;
            if m != home && self.model.resources[r].transient {
                self.left[home * self.resources + r] += amount;
            }
        }
        self.on_machine.add(s, m, 1);
        if self.in_location.add(s, geo.location[m], 1) == 1 {
            self.spread[s] += 1;
        }
        self.in_neighbourhood.add(s, geo.neighbourhood[m], 1);
        if m != home {
            self.count_moved(s, 1);
        }
        self.cost += self.move_cost(p, m);
        self.position[p] = self.processes_on[m].len() as u32;
        self.processes_on[m].push(p as u32);
    }

    fn count_moved(&mut self, s: usize, by: isize) {
        self.histogram[self.moved[s]] -= 1;
        self.moved[s] = self.moved[s].wrapping_add_signed(by);
        self.histogram[self.moved[s]] += 1;
        self.most_moved = self.most_moved.max(self.moved[s]);
        while self.most_moved > 0 && self.histogram[self.most_moved] == 0 {
            self.most_moved -= 1;
        }
    }

    /// Process and machine move cost of a process on a machine.
    #[inline]
    fn move_cost(&self, p: usize, m: usize) -> i64 {
        let home = self.first[p];
        if m == home {
            return self.model.move_weights[2] * self.model.machines[home].move_cost[m];
        }
        self.model.move_weights[0] * self.model.processes[p].move_cost
            + self.model.move_weights[2] * self.model.machines[home].move_cost[m]
    }

    /// Cost of a machine, and its units above capacity, with one process more and one less.
    #[inline]
    fn measure(&self, m: usize, plus: usize, minus: usize) -> (i64, i64) {
        let width = self.resources;
        let mut few = [0i64; 32];
        let mut many = Vec::new();
        let free: &mut [i64] = if width <= 32 {
            &mut few[..width]
        } else {
            many.resize(width, 0);
            &mut many
        };
        let comes_home = plus != usize::MAX && self.first[plus] == m;
        let leaves_home = minus != usize::MAX && self.first[minus] == m;
        let (mut cost, mut over) = (0, 0);
        for (r, free) in free.iter_mut().enumerate() {
            let at = m * width + r;
            let resource = &self.model.resources[r];
            let mut used = self.usage[at];
            let mut both = used + self.left[at];
            if plus != usize::MAX {
                let amount = self.requirement[plus * width + r];
                used += amount;
                // Coming home, a process no longer counts as having left.
                if !(resource.transient && comes_home) {
                    both += amount;
                }
            }
            if minus != usize::MAX {
                let amount = self.requirement[minus * width + r];
                used -= amount;
                // Leaving home, it counts on.
                if !(resource.transient && leaves_home) {
                    both -= amount;
                }
            }
            cost += resource.weight * (used - self.safety[at]).max(0);
            over += (both - self.capacity[at]).max(0);
            *free = self.capacity[at] - used;
        }
        for b in &self.model.balances {
            cost += b.weight * (b.target * free[b.first] - free[b.second]).max(0);
        }
        (cost, over)
    }

    /// Change of cost and of units above capacity on two machines.
    #[inline]
    fn load_change(&self, a: usize, b: usize, after: [(i64, i64); 2]) -> (i64, i64) {
        let before = [self.measured[a], self.measured[b]];
        (
            after[0].0 + after[1].0 - before[0].0 - before[1].0,
            after[0].1 + after[1].1 - before[0].1 - before[1].1,
        )
    }

    /// Change of the service move cost when the moved counts of one or two services change.
    fn service_change(&mut self, changes: &[(usize, isize)]) -> i64 {
        if changes.iter().all(|c| c.1 == 0) {
            return 0;
        }
        let before = self.most_moved;
        for &(s, by) in changes.iter().filter(|c| c.1 != 0) {
            self.count_moved(s, by);
        }
        let after = self.most_moved;
        for &(s, by) in changes.iter().rev().filter(|c| c.1 != 0) {
            self.count_moved(s, -by);
        }
        self.model.move_weights[1] * (after as i64 - before as i64)
    }

    fn moved_change(&self, p: usize, to: usize) -> isize {
        isize::from(to != self.first[p]) - isize::from(self.now[p] != self.first[p])
    }

    /// The change of cost when `p` moves to `to`, or `None` when a hard rule forbids it.
    pub fn shift_change(&mut self, p: usize, to: usize, geo: &Geography) -> Option<Change> {
        let change = self.shift_loads(p, to)?;
        let broken = self.rule_change(&[(p, to)], geo);
        Some(Change { broken, ..change })
    }

    /// The same without the rules that it would break, which take longest to count.
    pub fn shift_loads(&mut self, p: usize, to: usize) -> Option<Change> {
        let from = self.now[p];
        let s = self.model.processes[p].service;
        if from == to || self.on_machine.get(s, to) > 0 {
            return None;
        }
        let after = [
            self.measure(from, usize::MAX, p),
            self.measure(to, p, usize::MAX),
        ];
        let (loads, over) = self.load_change(from, to, after);
        let moves = self.move_cost(p, to) - self.move_cost(p, from);
        let by = self.moved_change(p, to);
        Some(Change {
            cost: loads + moves + self.service_change(&[(s, by)]),
            broken: 0,
            over,
        })
    }

    /// The change of cost when `p` and `q` change places.
    pub fn swap_change(&mut self, p: usize, q: usize, geo: &Geography) -> Option<Change> {
        let change = self.swap_loads(p, q)?;
        let broken = self.rule_change(&self.exchange(p, q), geo);
        Some(Change { broken, ..change })
    }

    /// The same without the rules that it would break.
    pub fn swap_loads(&mut self, p: usize, q: usize) -> Option<Change> {
        let (a, b) = (self.now[p], self.now[q]);
        let (s, t) = (
            self.model.processes[p].service,
            self.model.processes[q].service,
        );
        if a == b || (s != t && (self.on_machine.get(s, b) > 0 || self.on_machine.get(t, a) > 0)) {
            return None;
        }
        let (loads, over) = self.load_change(a, b, [self.measure(a, q, p), self.measure(b, p, q)]);
        let moves = self.move_cost(p, b) + self.move_cost(q, a)
            - self.move_cost(p, a)
            - self.move_cost(q, b);
        let changes = [(s, self.moved_change(p, b)), (t, self.moved_change(q, a))];
        Some(Change {
            cost: loads + moves + self.service_change(&changes),
            broken: 0,
            over,
        })
    }

    /// Two processes that change places, and where each goes.
    pub fn exchange(&self, p: usize, q: usize) -> [(usize, usize); 2] {
        [(p, self.now[q]), (q, self.now[p])]
    }

    /// How many more spread and dependency rules the moves would break.
    pub fn rule_change(&mut self, moves: &[(usize, usize)], geo: &Geography) -> i64 {
        if moves
            .iter()
            .all(|&(p, _)| !self.bound[self.model.processes[p].service])
        {
            return 0;
        }
        let mut by = 0;
        for &(p, to) in moves {
            by += self.recount(p, self.now[p], to, geo);
        }
        for &(p, to) in moves {
            self.recount(p, to, self.now[p], geo);
        }
        by
    }

    /// Moves a process in the counts of its service; how many more rules are broken then.
    fn recount(&mut self, p: usize, from: usize, to: usize, geo: &Geography) -> i64 {
        let s = self.model.processes[p].service;
        if !self.bound[s] {
            return 0;
        }
        let mut by = 0;
        let (a, b) = (geo.location[from], geo.location[to]);
        if a != b {
            let wanted = self.model.services[s].spread;
            if self.in_location.add(s, a, -1) == 0 {
                self.spread[s] -= 1;
                by += i64::from(self.spread[s] < wanted);
            }
            if self.in_location.add(s, b, 1) == 1 {
                by -= i64::from(self.spread[s] < wanted);
                self.spread[s] += 1;
            }
        }
        let (a, b) = (geo.neighbourhood[from], geo.neighbourhood[to]);
        if a != b {
            if self.in_neighbourhood.add(s, a, -1) == 0 {
                by -= self.unmet(s, a) - self.needed(s, a);
            }
            if self.in_neighbourhood.add(s, b, 1) == 1 {
                by += self.unmet(s, b) - self.needed(s, b);
            }
        }
        by
    }

    /// What a service lacks in a neighbourhood.
    #[inline]
    fn unmet(&self, s: usize, n: usize) -> i64 {
        let absent = |t: &&usize| **t != s && self.in_neighbourhood.get(**t, n) == 0;
        self.model.services[s].needs.iter().filter(absent).count() as i64
    }

    /// How many services of a neighbourhood need this one there.
    #[inline]
    fn needed(&self, s: usize, n: usize) -> i64 {
        let present = |t: &&usize| **t != s && self.in_neighbourhood.get(**t, n) > 0;
        self.needed_by[s].iter().filter(present).count() as i64
    }

    /// Carries a shift out, whose change of cost is known.
    pub fn shift(&mut self, p: usize, to: usize, change: Change, geo: &Geography) {
        self.put(p, to, geo);
        self.cost += change.cost;
    }

    /// Carries a swap out, whose change of cost is known.
    pub fn swap(&mut self, p: usize, q: usize, change: Change, geo: &Geography) {
        let (a, b) = (self.now[p], self.now[q]);
        self.put(p, b, geo);
        self.put(q, a, geo);
        self.cost += change.cost;
    }

    /// Whether a machine has a process of a service.
    #[inline]
    pub fn holds(&self, service: usize, machine: usize) -> bool {
        self.on_machine.get(service, machine) > 0
    }

    /// The load and balance cost of a machine.
    #[inline]
    pub fn load_cost(&self, m: usize) -> i64 {
        self.measured[m].0
    }

    /// Whether a machine is above a capacity.
    #[inline]
    pub fn is_over(&self, m: usize) -> bool {
        self.measured[m].1 > 0
    }

    /// Moves a process; the cost is the caller's to change.
    pub fn put(&mut self, p: usize, to: usize, geo: &Geography) {
        let (from, home) = (self.now[p], self.first[p]);
        let s = self.model.processes[p].service;
        self.broken += self.recount(p, from, to, geo);
        let by = self.moved_change(p, to);
        if by != 0 {
            self.count_moved(s, by);
        }
        let width = self.resources;
        for r in 0..width {
            let amount = self.requirement[p * width + r];
            self.usage[from * width + r] -= amount;
            self.usage[to * width + r] += amount;
            if by != 0 && self.model.resources[r].transient {
                self.left[home * width + r] += amount * by as i64;
            }
        }
        self.on_machine.add(s, from, -1);
        self.on_machine.add(s, to, 1);
        let at = self.position[p] as usize;
        self.processes_on[from].swap_remove(at);
        if let Some(&other) = self.processes_on[from].get(at) {
            self.position[other as usize] = at as u32;
        }
        self.position[p] = self.processes_on[to].len() as u32;
        self.processes_on[to].push(p as u32);
        self.now[p] = to;
        for m in [from, to] {
            self.over -= self.measured[m].1;
            self.measured[m] = self.measure(m, usize::MAX, usize::MAX);
            self.over += self.measured[m].1;
        }
    }
}
