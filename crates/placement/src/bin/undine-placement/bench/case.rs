//! One made-up cluster: both tools on the same files, on hbal's objective and on ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use serde_json::Value;
use undine_placement::generate::{Storage, cluster};
use undine_placement::htools::{self, Balance, Options, Text};
use undine_placement::plan::{self, least_relief_mib};
use undine_placement::{Policy, Snapshot};

use super::BenchArgs;
use super::hbal::{Hbal, HbalRun};
use super::usage::cpu_seconds;
use crate::files::{Done, json, write};

/// What is compared.
#[derive(Clone, Copy)]
pub(super) struct Which {
    pub nodes: usize,
    pub servers: usize,
    pub mirrored: bool,
    pub seed: u64,
}

/// One point of the curve: the same GiB for both.
#[derive(Serialize)]
pub(super) struct Point {
    pub hbal_moves: usize,
    pub gib: f64,
    pub hbal: f64,
    pub ours: f64,
    pub our_gib: f64,
}

/// The product's objective.
#[derive(Serialize)]
pub(super) struct Product {
    pub above_before: usize,
    pub above_ours: usize,
    pub above_hbal: Option<usize>,
    pub highest_before: u64,
    pub highest_ours: u64,
    pub highest_hbal: Option<u64>,
    pub moves_ours: usize,
    pub gib_ours: f64,
    /// No set of moves that clears the mark copies less (subset sums, node by node).
    pub gib_least: f64,
    pub unsurvivable_before: usize,
    pub unsurvivable_ours: usize,
    pub unsurvivable_hbal: Option<usize>,
    pub broken_limits_before: usize,
    pub broken_limits_ours: usize,
    pub broken_limits_hbal: Option<usize>,
    pub cpu_seconds: f64,
}

/// The end of a way, whole or cut.
#[derive(Serialize)]
pub(super) struct End {
    pub moves: usize,
    pub gib: f64,
    pub score: f64,
    pub cpu_seconds: f64,
    pub complete: bool,
}

/// All that is known of one cluster.
#[derive(Serialize)]
pub(super) struct Case {
    pub nodes: usize,
    pub servers: usize,
    pub mirrored: bool,
    pub seed: u64,
    pub first: f64,
    pub ours: End,
    /// Peak of our whole command, MiB.
    pub peak_mib: f64,
    /// hbal's score of our end state.
    pub referee: Option<f64>,
    /// hbal's own run.
    pub hbal: Option<End>,
    /// Our walk of hbal's path.
    pub walk: End,
    /// Moves in which hbal's run and our walk of its path agree.
    pub same_moves: Option<usize>,
    /// Beside hbal's own run when it came to its end, else beside our walk of its path.
    pub curve: Vec<Point>,
    pub product: Product,
}

impl Which {
    pub fn name(&self) -> String {
        let storage = if self.mirrored { "mirrored" } else { "shared" };
        format!("{}-{}-{storage}-{}", self.nodes, self.servers, self.seed)
    }

    /// How many moves hbal is given: all where it ends within minutes, else as many as show its
    /// cost; `None` is no run.
    fn hbal_moves(&self) -> Option<Option<usize>> {
        match (self.nodes, self.mirrored, self.seed) {
            (..=10, ..) | (..=40, false, _) | (..=40, true, 1) => Some(None),
            (..=40, true, _) => Some(Some(8)),
            (..=100, false, 1) => Some(Some(20)),
            (..=100, _, ..=3) => Some(Some(3)),
            (..=300, false, 1) => Some(Some(1)),
            _ => None,
        }
    }
}

impl Case {
    /// Where hbal's path ends as far as anybody walked it, and whether that is its end.
    pub fn path(&self) -> &End {
        self.hbal
            .as_ref()
            .filter(|h| h.complete)
            .unwrap_or(&self.walk)
    }

    /// How many times more CPU hbal used, with all its moves or only some (then it is a floor).
    pub fn cost_ratio(&self) -> Option<f64> {
        Some(self.hbal.as_ref()?.cpu_seconds / self.ours.cpu_seconds.max(0.01))
    }
}

/// Runs both tools.
pub(super) fn run(args: &BenchArgs, which: Which) -> Done<Case> {
    let storage = if which.mirrored {
        Storage::Mirrored
    } else {
        Storage::Shared
    };
    let files = cluster(which.nodes, which.servers, storage, which.seed);
    let name = which.name();
    let path = |end: &str| args.folder.join(format!("{name}.{end}"));
    let (data, load, out) = (path("data"), path("dynu"), path("ours.data"));
    write(&data, &files.data)?;
    write(&load, &files.load)?;
    let mut text = Text::parse(&files.data)?;
    text.apply_load(&files.load)?;
    let (ours, first, peak_mib) = ours(which.seed, [&data, &load, &out], &path("json"))?;
    let hbal = Hbal {
        program: &args.hbal,
        most_seconds: args.hbal_seconds,
        again: args.again,
        kept: args.kept,
    };
    let ran = which
        .hbal_moves()
        .filter(|_| !args.no_hbal)
        .and_then(|most| hbal.run(&data, &load, most));
    let referee = hbal.run(&out, &load, Some(0)).map(|r| r.first);
    let begun = cpu_seconds().0;
    let over = || cpu_seconds().0 - begun > args.path_seconds;
    let walked = htools::hbal_path(&text, usize::MAX, &over);
    let walk = End {
        moves: walked.moves.len(),
        gib: walked.gib,
        score: walked.score_after,
        cpu_seconds: cpu_seconds().0 - begun,
        complete: !over(),
    };
    let (points, after) = points(&text, ran.as_ref(), &walked, walk.complete);
    Ok(Case {
        nodes: which.nodes,
        servers: which.servers,
        mirrored: which.mirrored,
        seed: which.seed,
        first,
        ours,
        peak_mib,
        referee,
        same_moves: ran.as_ref().map(|r| same_moves(r, &walked)),
        hbal: ran.as_ref().map(|r| End {
            moves: r.steps.len(),
            gib: r.gib(&text).last().copied().unwrap_or(0.0),
            score: r.last(),
            cpu_seconds: r.cpu_seconds,
            complete: r.complete,
        }),
        walk,
        curve: curve(&text, &points, which.nodes, which.seed),
        product: product(&text, after.as_ref())?,
    })
}

/// Our command as a process of its own, as hbal is: with reading and writing, and its own peak.
fn ours(seed: u64, [data, load, out]: [&PathBuf; 3], report: &Path) -> Done<(End, f64, f64)> {
    let output = Command::new(std::env::current_exe()?)
        .args(["balance", "--usage", "--seed", &seed.to_string()])
        .arg("--htools")
        .arg(data)
        .arg("--dynu")
        .arg(load)
        .arg("--out")
        .arg(out)
        .arg("--report")
        .arg(report)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut words = said
        .strip_prefix("used ")
        .ok_or_else(|| format!("balance of {}: {said}", data.display()))?
        .split_whitespace()
        .filter_map(|w| w.parse::<f64>().ok());
    let (cpu_seconds, peak) = (words.next().unwrap_or(0.0), words.next().unwrap_or(0.0));
    let told: Value = json(report)?;
    let number = |key: &str| {
        told[key]
            .as_f64()
            .ok_or_else(|| format!("{}: no {key}", report.display()))
    };
    let end = End {
        moves: told["moves"].as_array().map_or(0, Vec::len),
        gib: number("gib")?,
        score: number("score_after")?,
        cpu_seconds,
        complete: true,
    };
    Ok((end, number("score_before")?, peak))
}

/// GiB and score after each move of hbal, and the cluster at the end if that is known.
fn points(
    text: &Text,
    ran: Option<&HbalRun>,
    walked: &Balance,
    whole: bool,
) -> (Vec<(f64, f64)>, Option<Text>) {
    if let Some(run) = ran.filter(|r| r.complete) {
        let scores = run.steps.iter().map(|s| s.score);
        let mut after = text.clone();
        let node = |name: &str| text.nodes.iter().position(|n| n.name == name);
        for step in &run.steps {
            let place = after
                .instances
                .iter_mut()
                .find(|i| i.name == step.instance)
                .zip(node(&step.to.0));
            if let Some((i, primary)) = place {
                i.primary = primary;
                i.secondary = step.to.1.as_deref().and_then(node);
            }
        }
        return (run.gib(text).into_iter().zip(scores).collect(), Some(after));
    }
    let mut gib = 0.0;
    let points = walked.moves.iter().map(|m| {
        gib += m.gib;
        (gib, m.score)
    });
    let points = points.collect();
    let mut after = text.clone();
    for (s, place) in after.instances.iter_mut().zip(&walked.places) {
        (s.primary, s.secondary) = *place;
    }
    (points, whole.then_some(after))
}

fn same_moves(run: &HbalRun, walked: &Balance) -> usize {
    run.steps
        .iter()
        .zip(&walked.moves)
        .take_while(|(h, w)| {
            let to = match &h.to.1 {
                Some(secondary) => format!("{}:{secondary}", h.to.0),
                None => h.to.0.clone(),
            };
            h.instance == w.instance && to == w.to
        })
        .count()
}

/// Our score for the GiB of hbal's path after some of its moves.
fn curve(text: &Text, path: &[(f64, f64)], nodes: usize, seed: u64) -> Vec<Point> {
    let count = match nodes {
        ..=40 => 8,
        100 => 4,
        300 => 2,
        _ => 0,
    };
    let moves = path.len();
    let mut at: Vec<usize> = (1..=count)
        .map(|k| (moves as f64).powf(f64::from(k) / f64::from(count)).round() as usize)
        .filter(|k| (1..=moves).contains(k))
        .collect();
    at.dedup();
    at.into_iter()
        .map(|k| {
            let (gib, hbal) = path[k - 1];
            let options = Options {
                seed,
                max_gib: Some(gib),
                ..Options::default()
            };
            let ours = htools::balance(text, &options);
            Point {
                hbal_moves: k,
                gib,
                hbal,
                ours: ours.score_after,
                our_gib: ours.gib,
            }
        })
        .collect()
}

fn product(text: &Text, after_hbal: Option<&Text>) -> Done<Product> {
    let policy = Policy {
        cpu_overcommit: (text.vcpu_ratio * 1000.0) as u64,
        ..Policy::default()
    };
    let snapshot = Snapshot::from_htools(text);
    let begun = cpu_seconds().0;
    let plan = plan::rebalance(&snapshot, &policy)?;
    let cpu_seconds = cpu_seconds().0 - begun;
    let hbal = match after_hbal {
        Some(text) => Some(plan::score(&Snapshot::from_htools(text), &policy)?),
        None => None,
    };
    Ok(Product {
        above_before: plan.before.nodes_above_mark,
        above_ours: plan.after.nodes_above_mark,
        above_hbal: hbal.as_ref().map(|s| s.nodes_above_mark),
        highest_before: plan.before.highest_use,
        highest_ours: plan.after.highest_use,
        highest_hbal: hbal.as_ref().map(|s| s.highest_use),
        moves_ours: plan.steps.len(),
        gib_ours: plan.copies_mib() as f64 / 1024.0,
        gib_least: least_relief_mib(&snapshot, &policy)? as f64 / 1024.0,
        unsurvivable_before: plan.before.unsurvivable_losses,
        unsurvivable_ours: plan.after.unsurvivable_losses,
        unsurvivable_hbal: hbal.as_ref().map(|s| s.unsurvivable_losses),
        broken_limits_before: plan.before.broken_limits,
        broken_limits_ours: plan.after.broken_limits,
        broken_limits_hbal: hbal.as_ref().map(|s| s.broken_limits),
        cpu_seconds,
    })
}
