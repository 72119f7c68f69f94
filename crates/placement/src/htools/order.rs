//! From an end state to a sequence of moves: best first, each one allowed when its turn comes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::greedy::{Step, lazily};
use super::moves::cost;
use super::state::{Change, NONE, Place, Scratch, State};
use super::{Options, Template};

struct Waiting {
    gain: f64,
    instance: u32,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain
            .total_cmp(&other.gain)
            .then(other.instance.cmp(&self.instance))
    }
}

/// The next hbal move of an instance on its way to `goal`: mostly one, two when both nodes are new.
fn next_place(state: &State, instance: u32, goal: Place) -> Place {
    let at = state.places[instance as usize];
    let drbd = state.instances[instance as usize].template == Template::Drbd;
    let both_new = goal.primary != at.primary
        && goal.primary != at.secondary
        && goal.secondary != at.primary
        && goal.secondary != at.secondary;
    if drbd && both_new {
        Place {
            primary: goal.primary,
            secondary: at.primary,
        }
    } else {
        goal
    }
}

/// Orders the way to `target`; moves that never become possible are left out, and up to `limit`
/// MiB in all are spent on others in their stead.
pub(super) fn order(start: &State, target: &[Place], limit: i64, options: &Options) -> Vec<Step> {
    let mut state = start.clone();
    state.strict = true;
    let mut scratch = Scratch::new();
    let mut steps = Vec::new();
    let mut waiting: Vec<u32> = (0..target.len() as u32)
        .filter(|&i| target[i as usize] != start.places[i as usize])
        .collect();
    while !waiting.is_empty() {
        let done = pass(&mut state, target, &mut waiting, &mut steps, &mut scratch);
        if done == 0
            && !detour(
                &mut state,
                target,
                &mut waiting,
                &mut steps,
                &mut scratch,
                options,
            )
        {
            break;
        }
    }
    if !waiting.is_empty() && options.price_per_gib.is_none() {
        // The target is out of reach: what is left of the limits is spent step by step.
        let spent: i64 = steps.iter().map(|s| s.mib).sum();
        let left = limit.saturating_sub(spent);
        let moves = options
            .max_moves
            .unwrap_or(usize::MAX)
            .saturating_sub(steps.len());
        steps.extend(lazily(&mut state, left, moves));
    }
    trim(start, steps, options)
}

fn gain(state: &State, i: u32, to: Place, scratch: &mut Scratch) -> Option<(f64, f64, i64)> {
    let mib = cost(&state.instances[i as usize], state.places[i as usize], to);
    let score = state.try_changes(&[Change { instance: i, to }], scratch)?;
    Some(((state.score() - score) / (mib as f64 + 1.0), score, mib))
}

/// One best-first pass; a gain is computed again when its turn comes, as others changed it.
fn pass(
    state: &mut State,
    target: &[Place],
    waiting: &mut Vec<u32>,
    steps: &mut Vec<Step>,
    scratch: &mut Scratch,
) -> usize {
    let mut heap = BinaryHeap::new();
    let mut blocked = Vec::new();
    for &i in waiting.iter() {
        match gain(state, i, next_place(state, i, target[i as usize]), scratch) {
            Some((gain, ..)) => heap.push(Waiting { gain, instance: i }),
            None => blocked.push(i),
        }
    }
    let mut done = 0;
    while let Some(top) = heap.pop() {
        let i = top.instance;
        let to = next_place(state, i, target[i as usize]);
        let Some((gain, score, mib)) = gain(state, i, to, scratch) else {
            blocked.push(i);
            continue;
        };
        if gain < top.gain - 1e-15 && heap.peek().is_some_and(|next| next.gain > gain) {
            heap.push(Waiting { gain, instance: i });
            continue;
        }
        let change = Change { instance: i, to };
        state.apply(&[change], scratch);
        steps.push(Step { change, score, mib });
        done += 1;
        if to != target[i as usize] {
            blocked.push(i);
        }
        if done % 1024 == 0 {
            state.recount();
        }
    }
    *waiting = blocked;
    done
}

/// When all that is left blocks itself (a ring without room), one instance steps aside.
fn detour(
    state: &mut State,
    target: &[Place],
    waiting: &mut [u32],
    steps: &mut Vec<Step>,
    scratch: &mut Scratch,
    options: &Options,
) -> bool {
    if options.max_gib.is_some() || options.max_moves.is_some() || steps.len() > 4 * target.len() {
        return false;
    }
    waiting.sort_unstable_by_key(|&i| state.instances[i as usize].memory);
    for k in 0..waiting.len() {
        let i = waiting[k];
        if state.instances[i as usize].template != Template::Shared {
            continue;
        }
        let at = state.places[i as usize];
        for n in (0..state.node_count() as u32).filter(|&n| n != at.primary) {
            let change = Change {
                instance: i,
                to: Place {
                    primary: n,
                    secondary: NONE,
                },
            };
            let Some(score) = state.try_changes(&[change], scratch) else {
                continue;
            };
            let mut trial = state.clone();
            trial.apply(&[change], scratch);
            let frees = waiting.iter().any(|&j| {
                j != i
                    && gain(
                        &trial,
                        j,
                        next_place(&trial, j, target[j as usize]),
                        scratch,
                    )
                    .is_some()
            });
            if frees {
                let mib = cost(&state.instances[i as usize], at, change.to);
                *state = trial;
                steps.push(Step { change, score, mib });
                return true;
            }
        }
    }
    false
}

/// Cuts to the prefix with the best score within the limits on moves and GiB.
pub(super) fn trim(start: &State, steps: Vec<Step>, options: &Options) -> Vec<Step> {
    let mut scratch = Scratch::new();
    let most = options.max_moves.unwrap_or(usize::MAX).min(steps.len());
    let most_mib = options.max_gib.map_or(i64::MAX, |g| (g * 1024.0) as i64);
    let mut best = (start.score(), 0);
    let mut mib = 0;
    for (k, step) in steps.iter().take(most).enumerate() {
        mib += step.mib;
        if mib > most_mib {
            break;
        }
        if step.score < best.0 - 1e-12 {
            best = (step.score, k + 1);
        }
    }
    let mut out = steps;
    out.truncate(best.1);
    // The scores of the steps, computed on a fresh state, so that no rounding is left in them.
    let mut state = start.clone();
    for (k, step) in out.iter_mut().enumerate() {
        state.apply(&[step.change], &mut scratch);
        if k % 256 == 0 {
            state.recount();
        }
        step.score = state.score();
    }
    out
}
