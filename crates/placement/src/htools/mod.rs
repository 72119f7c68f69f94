//! Ganeti's htools: their text format, hbal's score to the last digit, and a faster, cheaper search.

mod convert;
mod greedy;
mod moves;
mod order;
mod search;
mod state;
mod text;

use serde::Serialize;

pub(crate) use convert::to_snapshot;
use state::{NONE, Place, State};
pub use text::{Template, Text, TextError, TextInstance, TextNode};

/// How far and how long to search.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of the search.
    pub seed: u64,
    /// Trials per instance; `None` chooses by the cluster's size.
    pub effort: Option<usize>,
    /// Score that one moved GiB must bring. Without a price and a limit we copy at most 90 % of
    /// what a greedy path like hbal's would.
    pub price_per_gib: Option<f64>,
    /// Most GiB to move.
    pub max_gib: Option<f64>,
    /// Most moves.
    pub max_moves: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            effort: None,
            price_per_gib: None,
            max_gib: None,
            max_moves: None,
        }
    }
}

/// One move of a balancing plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HtoolsMove {
    /// The instance.
    pub instance: String,
    /// Its primary (and secondary) node before.
    pub from: String,
    /// Its primary (and secondary) node after.
    pub to: String,
    /// The move in hbal's words: `f` fail over, `r:` replace the mirror, `fa:` fail over to any.
    pub action: String,
    /// GiB copied.
    pub gib: f64,
    /// The cluster score after it.
    pub score: f64,
    /// Why, in words.
    pub reason: String,
}

/// A balancing plan on hbal's score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Balance {
    /// Score before.
    pub score_before: f64,
    /// Score after.
    pub score_after: f64,
    /// GiB copied by all moves.
    pub gib: f64,
    /// The moves in an order in which each is allowed.
    pub moves: Vec<HtoolsMove>,
    /// What the plan is, or why there is none, in words.
    pub summary: String,
    /// Primary and secondary node of every instance afterwards.
    #[serde(skip)]
    pub places: Vec<(usize, Option<usize>)>,
}

struct Group {
    nodes: Vec<usize>,
    instances: Vec<usize>,
}

fn groups(text: &Text) -> Vec<Group> {
    let mut groups: Vec<Group> = text
        .group_names()
        .iter()
        .map(|_| Group {
            nodes: vec![],
            instances: vec![],
        })
        .collect();
    for (i, n) in text.nodes.iter().enumerate() {
        groups[n.group].nodes.push(i);
    }
    for (i, s) in text.instances.iter().enumerate() {
        let group = text.nodes[s.primary].group;
        // An instance that spans two groups belongs to neither search.
        if s.secondary.is_none_or(|n| text.nodes[n].group == group) {
            groups[group].instances.push(i);
        }
    }
    groups.retain(|g| !g.nodes.is_empty());
    groups
}

/// hbal's score of the text; with several node groups the sum over them.
#[must_use]
pub fn score(text: &Text) -> f64 {
    groups(text)
        .iter()
        .map(|g| State::new(text, &g.nodes, &g.instances).score())
        .sum()
}

/// Lowers hbal's score with as few moved GiB as it is worth.
#[must_use]
pub fn balance(text: &Text, options: &Options) -> Balance {
    run(text, |state| best_way(state, options))
}

/// Up to so many possible single moves the greedy path is walked too.
const WALKABLE: usize = 20_000;

/// The best of several ways: annealed end states, the greedy path, and what annealing makes of the
/// greedy path's end. On small clusters a point of the score is often one whole rule (N+1, a tag),
/// which chance alone may miss.
fn best_way(state: &State, options: &Options) -> Vec<greedy::Step> {
    let (target, limit) = search::search(state, options, None);
    let mut best = order::order(state, &target, limit, options);
    let mirrored = |i: &&state::Instance| i.template == Template::Drbd;
    let ways = state.instances.len() + 3 * state.instances.iter().filter(mirrored).count();
    if ways * state.node_count() > WALKABLE || options.price_per_gib.is_some() {
        return best;
    }
    let path = greedy::walk(&mut state.clone(), usize::MAX, &|| false);
    let whole: i64 = path.iter().map(|s| s.mib).sum();
    let cut = order::trim(state, path, options);
    // Without a limit of the caller's, never more than the greedy path, and less where that is as good.
    let within = Options {
        max_gib: options.max_gib.or(Some(whole as f64 / 1024.0)),
        ..options.clone()
    };
    let mut places = state.places.clone();
    for step in &cut {
        places[step.change.instance as usize] = step.change.to;
    }
    let end = |steps: &[greedy::Step]| steps.last().map_or(f64::INFINITY, |s| s.score);
    let goal = end(&cut);
    for begin in [Some(&places[..]), None] {
        if options.max_gib.is_none() && end(&best) < goal - 1e-9 {
            return best;
        }
        let again = Options {
            seed: options.seed.wrapping_add(1),
            ..within.clone()
        };
        let (target, limit) = search::search(state, &again, begin);
        let other = order::order(state, &target, limit, &again);
        if end(&other) < end(&best) {
            best = other;
        }
    }
    if goal < end(&best) { cut } else { best }
}

/// The path that hbal itself would take, for at most `most` moves or until `stop`.
#[must_use]
pub fn hbal_path(text: &Text, most: usize, stop: &dyn Fn() -> bool) -> Balance {
    run(text, |state| greedy::walk(&mut state.clone(), most, stop))
}

fn run(text: &Text, solve: impl Fn(&State) -> Vec<greedy::Step>) -> Balance {
    let mut places = text.places();
    let mut moves = Vec::new();
    let groups = groups(text);
    let mut states: Vec<State> = groups
        .iter()
        .map(|g| State::new(text, &g.nodes, &g.instances))
        .collect();
    let score_before: f64 = states.iter().map(State::score).sum();
    let mut score_after = score_before;
    for (g, state) in groups.iter().zip(&mut states) {
        let mut score = state.score();
        let steps = solve(state);
        let mut at = state.places.clone();
        for step in steps {
            let i = step.change.instance as usize;
            moves.push(describe(
                text,
                g,
                state,
                at[i],
                &step,
                score,
                &mut score_after,
            ));
            score = step.score;
            at[i] = step.change.to;
            let to = step.change.to;
            places[g.instances[i]] = (
                g.nodes[to.primary as usize],
                (to.secondary != NONE).then(|| g.nodes[to.secondary as usize]),
            );
        }
    }
    let gib = moves.iter().map(|m: &HtoolsMove| m.gib).sum();
    let summary = if moves.is_empty() {
        format!("no useful move: the score {score_before:.8} gains less than moving costs")
    } else {
        format!(
            "{} moves copy {gib:.1} GiB and bring the score from {score_before:.8} to {score_after:.8}",
            moves.len()
        )
    };
    Balance {
        score_before,
        score_after,
        gib,
        moves,
        summary,
        places,
    }
}

fn describe(
    text: &Text,
    g: &Group,
    state: &State,
    from: Place,
    step: &greedy::Step,
    score: f64,
    total: &mut f64,
) -> HtoolsMove {
    let name = |n: u32| text.nodes[g.nodes[n as usize]].name.clone();
    let pair = |p: Place| match p.secondary {
        NONE => name(p.primary),
        s => format!("{}:{}", name(p.primary), name(s)),
    };
    let gib = step.mib as f64 / 1024.0;
    let gain = score - step.score;
    *total -= gain;
    HtoolsMove {
        instance: text.instances[g.instances[step.change.instance as usize]]
            .name
            .clone(),
        from: pair(from),
        to: pair(step.change.to),
        action: moves::words(
            &state.instances[step.change.instance as usize],
            from,
            step.change.to,
            name,
        ),
        gib,
        score: *total,
        reason: if gain >= 0.0 {
            format!("lowers the cluster score by {gain:.6} for {gib:.1} GiB")
        } else {
            format!(
                "raises the cluster score by {:.6}, but makes room for later moves",
                -gain
            )
        },
    }
}

#[cfg(test)]
mod tests;
