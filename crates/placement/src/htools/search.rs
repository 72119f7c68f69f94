//! The search: simulated annealing over end states, with moved GiB as price and limit.
//!
//! A trial costs only the nodes that it touches. The search thinks in end states, not in paths: an
//! instance that ends where it began costs nothing, which greedy paths cannot see.

use super::greedy::usual_gib;
use super::moves::cost;
use super::state::{Change, NONE, Place, Scratch, State};
use super::{Options, Template};
use crate::rng::Rng;

/// Without a price and a limit: the share that we copy of what a greedy path would copy.
const USUAL_SHARE: f64 = 0.9;

/// Rounds of one annealing run, each a little cooler.
const ROUNDS: i32 = 200;
const WALL: i32 = 150;
const DOWNHILL: i32 = 190;
/// Heat of the last round as a share of the first.
const COLDEST: f64 = 1e-3;

/// Short runs that look for the price which meets a limit.
const PRICE_RUNS: usize = 12;

struct Found {
    value: f64,
    mib: i64,
    places: Vec<Place>,
}

struct Walk<'a> {
    state: State,
    original: &'a [Place],
    movable: Vec<u32>,
    targets: Vec<u32>,
    rng: Rng,
    scratch: Scratch,
    price: f64,
    most_mib: i64,
    most_moves: usize,
    score: f64,
    mib: i64,
    moved: Vec<u32>,
    moved_at: Vec<u32>,
}

/// Trials per instance when nobody says: more for a small cluster, where they cost nothing.
fn effort(instances: usize) -> usize {
    (1_000_000 / instances.max(1)).clamp(100, 6000)
}

/// The best end state found, and the MiB that may be copied for it. With `begin` the search sets out
/// from there, less hot; it must be within the limits.
pub(super) fn search(
    start: &State,
    options: &Options,
    begin: Option<&[Place]>,
) -> (Vec<Place>, i64) {
    let movable: Vec<u32> = (0..start.instances.len() as u32)
        .filter(|&i| start.instances[i as usize].movable)
        .collect();
    let targets: Vec<u32> = (0..start.node_count() as u32)
        .filter(|&n| !start.is_offline(n as usize))
        .collect();
    if movable.is_empty() || targets.len() < 2 {
        return (start.places.clone(), 0);
    }
    let limit = match (options.max_gib, options.price_per_gib) {
        (None, None) => Some(USUAL_SHARE * usual_gib(start)),
        (limit, _) => limit,
    };
    let mut walk = Walk {
        score: start.score(),
        state: start.clone(),
        original: &start.places,
        moved_at: vec![NONE; start.instances.len()],
        moved: Vec::new(),
        rng: Rng::new(options.seed),
        scratch: Scratch::new(),
        price: options.price_per_gib.unwrap_or(0.0) / 1024.0,
        most_mib: i64::MAX,
        most_moves: options.max_moves.unwrap_or(usize::MAX),
        mib: 0,
        movable,
        targets,
    };
    let limit = limit.map_or(i64::MAX, |g| (g * 1024.0) as i64);
    let effort = options
        .effort
        .unwrap_or_else(|| effort(start.instances.len()))
        .max(1);
    let usual = walk.usual_step();
    let heat = usual * 0.3;
    if limit < i64::MAX && options.price_per_gib.is_none() {
        walk.find_price(start, effort, heat, limit);
    }
    let heat = if let Some(begin) = begin {
        walk.set_out(begin);
        usual * 0.03
    } else {
        heat
    };
    let found = walk.anneal(effort, heat, limit);
    let places = if found.mib > limit {
        start.places.clone()
    } else {
        found.places
    };
    (places, limit)
}

impl Walk<'_> {
    /// One annealing run at a fixed price; the limit is a wall only in the last rounds, which keeps
    /// the search free to rearrange before.
    fn anneal(&mut self, effort: usize, heat: f64, limit: i64) -> Found {
        let trials = effort * self.movable.len();
        let cooling = COLDEST.powf(1.0 / f64::from(ROUNDS));
        let mut heat = heat;
        self.most_mib = i64::MAX;
        let price = self.price;
        let mut best = Found {
            value: f64::INFINITY,
            mib: 0,
            places: self.original.to_vec(),
        };
        for round in 0..=ROUNDS {
            if round == WALL {
                self.most_mib = limit;
                self.shed(limit);
            } else if round > DOWNHILL && limit < i64::MAX {
                // What is left below the limit may be spent.
                self.price = price * 1e-3;
            }
            let now = if round > DOWNHILL { 0.0 } else { heat };
            for _ in 0..(trials / ROUNDS as usize).max(1) {
                self.trial(now);
            }
            self.state.recount();
            self.score = self.state.score();
            let paid = if limit < i64::MAX {
                price * 1e-3
            } else {
                price
            };
            let value = self.score + paid * self.mib as f64;
            if value < best.value && self.mib <= limit {
                best = Found {
                    value,
                    mib: self.mib,
                    places: self.state.places.clone(),
                };
            }
            heat *= cooling;
        }
        self.price = price;
        best
    }

    /// Sends instances home, the least missed per GiB first, until no more than `limit` is copied.
    fn shed(&mut self, limit: i64) {
        let mut stuck = 0;
        while self.mib > limit && stuck < 50 && !self.moved.is_empty() {
            let mut best: Option<(f64, u32)> = None;
            for _ in 0..64 {
                let i = self.moved[self.rng.below(self.moved.len())];
                let to = self.original[i as usize];
                let saved = cost(
                    &self.state.instances[i as usize],
                    to,
                    self.state.places[i as usize],
                );
                let change = Change { instance: i, to };
                let Some(score) = self.state.try_changes(&[change], &mut self.scratch) else {
                    continue;
                };
                let loss = (score - self.score) / saved.max(1) as f64;
                if best.is_none_or(|b| loss < b.0) {
                    best = Some((loss, i));
                }
            }
            let Some((_, instance)) = best else {
                stuck += 1;
                continue;
            };
            let to = self.original[instance as usize];
            let now = self.state.places[instance as usize];
            self.mib -= cost(&self.state.instances[instance as usize], to, now);
            self.state
                .apply(&[Change { instance, to }], &mut self.scratch);
            self.score = self.state.score();
            self.note(instance);
        }
    }

    /// Back to the first state.
    fn reset(&mut self, start: &State) {
        self.state = start.clone();
        self.score = start.score();
        self.mib = 0;
        self.moved.clear();
        self.moved_at.fill(NONE);
    }

    /// Goes to a state that was found otherwise.
    fn set_out(&mut self, places: &[Place]) {
        for (i, &to) in places.iter().enumerate() {
            let now = self.state.places[i];
            if now == to {
                continue;
            }
            let change = Change {
                instance: i as u32,
                to,
            };
            self.state.apply(&[change], &mut self.scratch);
            self.mib += cost(&self.state.instances[i], self.original[i], to);
            self.note(i as u32);
        }
        self.state.recount();
        self.score = self.state.score();
    }

    /// The price at which a run copies about `limit`, by bisection with short runs.
    fn find_price(&mut self, start: &State, effort: usize, heat: f64, limit: i64) {
        let all: f64 = start.instances.iter().map(|i| i.memory as f64).sum();
        let usual = start.score() / all.max(1.0);
        let (mut low, mut high) = (usual * 1e-3, usual * 1e3);
        for _ in 0..PRICE_RUNS {
            self.price = (low * high).sqrt();
            self.anneal(effort / PRICE_RUNS, heat, i64::MAX);
            if self.mib > limit {
                low = self.price;
            } else {
                high = self.price;
            }
            self.reset(start);
        }
        self.price = (low * high).sqrt();
    }

    /// The usual size of a step's change, which sets the heat.
    fn usual_step(&mut self) -> f64 {
        let mut sum = 0.0;
        let mut count = 0;
        for _ in 0..200 {
            let instance = self.movable[self.rng.below(self.movable.len())];
            let to = self.random_place(instance);
            if let Some(s) = self
                .state
                .try_changes(&[Change { instance, to }], &mut self.scratch)
            {
                sum += (s - self.score).abs();
                count += 1;
            }
        }
        if count == 0 {
            1e-3
        } else {
            (sum / f64::from(count)).max(1e-9)
        }
    }

    fn random_place(&mut self, instance: u32) -> Place {
        let at = self.state.places[instance as usize];
        let n = self.targets[self.rng.below(self.targets.len())];
        if self.state.instances[instance as usize].template == Template::Shared {
            return Place {
                primary: n,
                secondary: NONE,
            };
        }
        if n == at.primary || n == at.secondary {
            return Place {
                primary: at.secondary,
                secondary: at.primary,
            };
        }
        match self.rng.below(4) {
            0 => Place {
                primary: at.primary,
                secondary: n,
            },
            1 => Place {
                primary: n,
                secondary: at.primary,
            },
            2 => Place {
                primary: n,
                secondary: at.secondary,
            },
            _ => Place {
                primary: at.secondary,
                secondary: n,
            },
        }
    }

    fn trial(&mut self, heat: f64) {
        let instance = self.movable[self.rng.below(self.movable.len())];
        match self.rng.below(8) {
            0 if !self.moved.is_empty() => {
                let back = self.moved[self.rng.below(self.moved.len())];
                let to = self.original[back as usize];
                self.consider(&[Change { instance: back, to }], heat);
            }
            1 if !self.moved.is_empty() => {
                // One goes home and another goes in its stead: the same copying, better spent.
                let back = self.moved[self.rng.below(self.moved.len())];
                let to = self.original[back as usize];
                let other = self.random_place(instance);
                if back != instance {
                    self.consider(
                        &[
                            Change { instance: back, to },
                            Change {
                                instance,
                                to: other,
                            },
                        ],
                        heat,
                    );
                }
            }
            2 | 3 => {
                let other = self.movable[self.rng.below(self.movable.len())];
                self.swap(instance, other, heat);
            }
            _ => {
                let to = self.random_place(instance);
                self.consider(&[Change { instance, to }], heat);
            }
        }
    }

    fn swap(&mut self, a: u32, b: u32, heat: f64) {
        let (pa, pb) = (self.state.places[a as usize], self.state.places[b as usize]);
        let same_kind =
            self.state.instances[a as usize].template == self.state.instances[b as usize].template;
        if a == b || !same_kind || pa.primary == pb.primary {
            return;
        }
        let (ta, tb) = if pa.secondary == NONE || self.rng.below(2) == 0 {
            (
                Place {
                    primary: pb.primary,
                    ..pa
                },
                Place {
                    primary: pa.primary,
                    ..pb
                },
            )
        } else {
            (
                Place {
                    secondary: pb.secondary,
                    ..pa
                },
                Place {
                    secondary: pa.secondary,
                    ..pb
                },
            )
        };
        self.consider(
            &[
                Change {
                    instance: a,
                    to: ta,
                },
                Change {
                    instance: b,
                    to: tb,
                },
            ],
            heat,
        );
    }

    fn consider(&mut self, changes: &[Change], heat: f64) {
        let mut mib = self.mib;
        let mut moved = self.moved.len();
        let mut any = false;
        for c in changes {
            let i = c.instance as usize;
            let (from, now) = (self.original[i], self.state.places[i]);
            any |= now != c.to;
            let instance = &self.state.instances[i];
            mib += cost(instance, from, c.to) - cost(instance, from, now);
            moved = moved + usize::from(from != c.to) - usize::from(from != now);
        }
        if !any
            || (mib > self.most_mib && mib >= self.mib)
            || (moved > self.most_moves && moved >= self.moved.len())
        {
            return;
        }
        let Some(score) = self.state.try_changes(changes, &mut self.scratch) else {
            return;
        };
        let worse = score - self.score + self.price * (mib - self.mib) as f64;
        if worse > 0.0 && (heat <= 0.0 || self.rng.unit() >= (-worse / heat).exp()) {
            return;
        }
        self.state.apply(changes, &mut self.scratch);
        self.score = score;
        self.mib = mib;
        for c in changes {
            self.note(c.instance);
        }
    }

    /// Keeps the list of instances that are away from home.
    fn note(&mut self, instance: u32) {
        let i = instance as usize;
        let away = self.state.places[i] != self.original[i];
        let at = self.moved_at[i];
        if away && at == NONE {
            self.moved_at[i] = self.moved.len() as u32;
            self.moved.push(instance);
        } else if !away && at != NONE {
            self.moved.swap_remove(at as usize);
            if let Some(&other) = self.moved.get(at as usize) {
                self.moved_at[other as usize] = at;
            }
            self.moved_at[i] = NONE;
        }
    }
}
