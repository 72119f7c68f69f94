//! hbal's own algorithm (the best single move, again and again) on our incremental score.
//!
//! It is here to compare with: it walks hbal's path in a fraction of hbal's time, so that curves
//! can be drawn at sizes that hbal cannot finish.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::moves::{cost, for_each_target};
use super::state::{Change, Scratch, State};

/// Nodes that are asked for all instances together, where an estimate is enough.
const ASKED: usize = 160_000;

/// One step of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub change: Change,
    pub score: f64,
    pub mib: i64,
}

/// Walks hbal's path for at most `most` moves, or until `stop` says so.
pub(super) fn walk(state: &mut State, most: usize, stop: &dyn Fn() -> bool) -> Vec<Step> {
    let mut scratch = Scratch::new();
    state.strict = true;
    let mut path = Vec::new();
    while path.len() < most && !stop() {
        state.recount();
        let before = state.score();
        let mut best: Option<(f64, Change)> = None;
        for i in 0..state.instances.len() as u32 {
            for_each_target(state, i, 1, |c| {
                if let Some(s) = state.try_changes(&[c], &mut scratch)
                    && best.is_none_or(|(b, _)| s < b - 1e-12)
                {
                    best = Some((s, c));
                }
            });
        }
        let Some((score, change)) = best.filter(|b| b.0 < before - 1e-10) else {
            break;
        };
        // hbal's `--min-gain` and `--min-gain-limit` with their defaults.
        if before < 0.1 && before - score < 0.01 {
            break;
        }
        let at = state.places[change.instance as usize];
        let mib = cost(&state.instances[change.instance as usize], at, change.to);
        state.apply(&[change], &mut scratch);
        path.push(Step { change, score, mib });
    }
    path
}

/// GiB that a greedy path like hbal's would copy.
pub(super) fn usual_gib(start: &State) -> f64 {
    let mut state = start.clone();
    state.strict = true;
    let mib: i64 = lazily(&mut state, i64::MAX, usize::MAX)
        .iter()
        .map(|s| s.mib)
        .sum();
    mib as f64 / 1024.0
}

/// A greedy path found lazily, within `most_mib` and `most` moves: each instance's best move is
/// kept in a heap and computed again only when its turn comes.
pub(super) fn lazily(state: &mut State, most_mib: i64, most: usize) -> Vec<Step> {
    let mut scratch = Scratch::new();
    let mut heap = BinaryHeap::new();
    for i in 0..state.instances.len() as u32 {
        heap.extend(best_of(state, i, most_mib, &mut scratch));
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut left = most_mib;
    let mut looks = 20 * state.instances.len();
    while let Some(top) = heap.pop() {
        looks = looks.saturating_sub(1);
        if looks == 0 || steps.len() >= most {
            break;
        }
        let i = top.change.instance;
        let Some(now) = best_of(state, i, left, &mut scratch) else {
            continue;
        };
        if heap.peek().is_some_and(|next| next.gain > now.gain) {
            heap.push(now);
            continue;
        }
        let at = state.places[i as usize];
        let mib = cost(&state.instances[i as usize], at, now.change.to);
        left -= mib;
        let score = state.score() - now.gain;
        state.apply(&[now.change], &mut scratch);
        steps.push(Step {
            change: now.change,
            score,
            mib,
        });
        heap.extend(best_of(state, i, left, &mut scratch));
    }
    steps
}

struct Best {
    gain: f64,
    change: Change,
}

impl PartialEq for Best {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Best {}
impl PartialOrd for Best {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Best {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain
            .total_cmp(&other.gain)
            .then(other.change.instance.cmp(&self.change.instance))
    }
}

fn best_of(state: &State, instance: u32, most_mib: i64, scratch: &mut Scratch) -> Option<Best> {
    let before = state.score();
    let mut best: Option<Best> = None;
    // An estimate is enough: some 64 nodes are asked at most, and fewer for more instances.
    let asked = (ASKED / state.instances.len()).clamp(16, 64);
    let stride = (state.node_count() / asked).max(1);
    for_each_target(state, instance, stride, |change| {
        if let Some(score) = state.try_changes(&[change], scratch) {
            let gain = before - score;
            let at = state.places[instance as usize];
            let affordable = cost(&state.instances[instance as usize], at, change.to) <= most_mib;
            if affordable && gain > 1e-9 && best.as_ref().is_none_or(|b| gain > b.gain) {
                best = Some(Best { gain, change });
            }
        }
    });
    best
}
