//! Making room for a large process: it goes where it is wanted, and what is too much there goes
//! elsewhere one by one, each to the best of some places. Single shifts and swaps never bring a
//! process through that fills a third of a machine, as all states between are too dear.

use super::search::Search;
use super::state::Change;

/// Most processes that make room.
const MOST: usize = 16;
/// Processes looked at for each that makes room, and places looked at for each of them.
const LOOKS: usize = 6;

impl Search<'_> {
    /// The largest of some processes.
    fn large(&mut self) -> usize {
        let count = self.state.now.len();
        let mut best = self.rng.below(count);
        for _ in 0..self.rng.below(6) {
            let p = self.rng.below(count);
            if self.size[p] > self.size[best] {
                best = p;
            }
        }
        best
    }

    /// Brings a large process to another machine and repairs both machines.
    pub(super) fn oust(&mut self, heat: f64) {
        let p = self.large();
        let from = self.state.now[p];
        let to = self.rng.below(self.state.model.machines.len());
        if from == to || self.size[p] == 0 {
            return;
        }
        let before = (self.state.cost, self.state.broken, self.state.over);
        let worth = [self.state.load_cost(to), self.state.load_cost(from)];
        let mut done = Vec::with_capacity(MOST + 2);
        let Some(partner) = self.bring(p, to, &mut done) else {
            return;
        };
        for _ in 0..MOST {
            let (a, b) = (self.state.load_cost(to), self.state.load_cost(from));
            let out_of = if self.state.is_over(to) || a > worth[0] {
                to
            } else if self.state.is_over(from) || b > worth[1] {
                from
            } else {
                break;
            };
            if !self.relieve(out_of, from + to - out_of, [p, partner], &mut done) {
                break;
            }
        }
        let change = Change {
            cost: self.state.cost - before.0,
            broken: self.state.broken - before.1,
            over: self.state.over - before.2,
        };
        if self.accepts(change, heat) {
            self.note();
            return;
        }
        for (q, at) in done.into_iter().rev() {
            self.state.put(q, at, self.geo);
        }
        self.state.cost = before.0;
    }

    /// The first step, in exchange for a process of the same service if one is there (which is
    /// returned, else `p` itself); `None` when nothing was done.
    fn bring(&mut self, p: usize, to: usize, done: &mut Vec<(usize, usize)>) -> Option<usize> {
        let from = self.state.now[p];
        let sent = self.send(p, to)?;
        done.push((p, from));
        done.extend(sent.instead.map(|q| (q, to)));
        Some(sent.instead.unwrap_or(p))
    }

    /// Sends one process of a machine elsewhere; whether one could go.
    fn relieve(
        &mut self,
        out_of: usize,
        other: usize,
        stay: [usize; 2],
        done: &mut Vec<(usize, usize)>,
    ) -> bool {
        let machines = self.state.model.machines.len();
        let mut best: Option<((i64, f64), usize, usize, Change)> = None;
        for _ in 0..LOOKS {
            let there = self.state.processes_on[out_of].len();
            if there == 0 {
                return false;
            }
            let q = self.state.processes_on[out_of][self.rng.below(there)] as usize;
            if stay.contains(&q) {
                continue;
            }
            for k in 0..LOOKS {
                let to = match k {
                    0 => other,
                    1 => self.state.first[q],
                    _ => self.rng.below(machines),
                };
                let Some(loads) = self.state.shift_loads(q, to) else {
                    continue;
                };
                let wins = |value: (i64, f64)| best.as_ref().is_none_or(|b| value < b.0);
                if !wins((loads.over, self.at_best(loads))) {
                    continue;
                }
                let broken = self.state.rule_change(&[(q, to)], self.geo);
                let change = Change { broken, ..loads };
                let value = (change.over, self.worse(change));
                if wins(value) {
                    best = Some((value, q, to, change));
                }
            }
        }
        let Some((_, q, to, change)) = best else {
            return false;
        };
        self.state.shift(q, to, change, self.geo);
        done.push((q, out_of));
        true
    }
}
