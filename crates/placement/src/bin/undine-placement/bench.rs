//! The benchmark beside hbal: curves on its objective, the product's objective, cost and growth.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use undine_placement::generate::{Storage, cluster};
use undine_placement::htools::{self, Options, Text};
use undine_placement::plan::{self, least_relief_mib};
use undine_placement::{Policy, Snapshot};

use crate::bench_hbal::{cpu_seconds, peak_mib, run as hbal_run};
use crate::files::{Done, write, write_json};

const SIZES: [(usize, usize); 5] = [
    (10, 100),
    (40, 400),
    (100, 1000),
    (300, 3000),
    (1000, 10_000),
];

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Where to write the results in JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Two seeds, three sizes, a minute of hbal.
    #[arg(long)]
    quick: bool,
    /// Seeds at 10/100 and 40/400; a third of them at 100/1,000, a fifth at 300/3,000, then one.
    #[arg(long)]
    seeds: Option<u64>,
    /// The program hbal (Debian package ganeti-htools); without it only its path, walked by our own
    /// exact reimplementation, is compared.
    #[arg(long, default_value = "hbal")]
    hbal: String,
    /// CPU seconds for hbal's own runs in all.
    #[arg(long)]
    hbal_seconds: Option<f64>,
    /// CPU seconds for walking hbal's path in one case.
    #[arg(long, default_value_t = 15.0)]
    path_seconds: f64,
    /// Folder for the made-up files.
    #[arg(long, default_value = "target/bench/placement")]
    folder: PathBuf,
}

/// One point of the curve: the same GiB for both.
#[derive(Serialize)]
struct Point {
    hbal_moves: usize,
    gib: f64,
    hbal: f64,
    ours: f64,
    our_gib: f64,
}

#[derive(Serialize)]
struct Product {
    above_before: usize,
    above_ours: usize,
    above_hbal: Option<usize>,
    highest_ours: u64,
    highest_hbal: Option<u64>,
    gib_ours: f64,
    gib_least: f64,
    lost_survivability: bool,
    broken_limits: usize,
    cpu_seconds: f64,
}

#[derive(Serialize)]
struct Case {
    nodes: usize,
    servers: usize,
    mirrored: bool,
    seed: u64,
    first: f64,
    /// End of hbal's path (complete or cut by time).
    path_complete: bool,
    path_moves: usize,
    path_gib: f64,
    path_score: f64,
    ours_moves: usize,
    ours_gib: f64,
    ours_score: f64,
    ours_cpu_seconds: f64,
    /// hbal's score of our end state.
    referee: Option<f64>,
    /// hbal's own run: moves, score, CPU seconds.
    hbal: Option<(usize, f64, f64)>,
    curve: Vec<Point>,
    product: Product,
    peak_mib: f64,
}

#[derive(Serialize)]
struct Report {
    cases: Vec<Case>,
    growth_exponent: Vec<(String, f64)>,
    hbal_wins: Vec<String>,
}

pub(crate) fn run(args: &BenchArgs) -> Done {
    let seeds = args.seeds.unwrap_or(if args.quick { 2 } else { 10 });
    let mut hbal_left = args
        .hbal_seconds
        .unwrap_or(if args.quick { 60.0 } else { 600.0 });
    let sizes = if args.quick { &SIZES[..3] } else { &SIZES[..] };
    let mut cases: Vec<Case> = Vec::new();
    println!(
        "nodes/servers storage seed   first | hbal's path: score   GiB moves | ours: score   GiB \
         moves  CPU s | referee | hbal CPU s | curve ours<=hbal | above 80 %: before ours hbal | \
         GiB ours/least"
    );
    for &(nodes, servers) in sizes {
        let count = match nodes {
            ..=40 => seeds,
            100 => (seeds / 3).max(1),
            300 => (seeds / 5).max(1),
            _ => 1,
        };
        for storage in [Storage::Shared, Storage::Mirrored] {
            for seed in 1..=count {
                let case = one(args, (nodes, servers), storage, seed, &mut hbal_left)?;
                print(&case);
                cases.push(case);
            }
        }
    }
    let report = Report {
        growth_exponent: growth(&cases),
        hbal_wins: wins(&cases),
        cases,
    };
    summary(&report);
    if let Some(out) = &args.out {
        write_json(out, &report)?;
    }
    Ok(())
}

fn one(
    args: &BenchArgs,
    (nodes, servers): (usize, usize),
    storage: Storage,
    seed: u64,
    hbal_left: &mut f64,
) -> Done<Case> {
    let files = cluster(nodes, servers, storage, seed);
    let mirrored = storage == Storage::Mirrored;
    let name = format!(
        "{nodes}-{servers}-{}-{seed}",
        if mirrored { "mirrored" } else { "shared" }
    );
    let path = |end: &str| args.folder.join(format!("{name}.{end}"));
    write(&path("data"), &files.data)?;
    write(&path("dynu"), &files.load)?;
    let mut text = Text::parse(&files.data)?;
    text.apply_load(&files.load)?;

    let begun = cpu_seconds().0;
    let ours = htools::balance(
        &text,
        &Options {
            seed,
            ..Options::default()
        },
    );
    let ours_cpu_seconds = cpu_seconds().0 - begun;
    write(&path("ours.data"), &text.render(&ours.places))?;

    let begun = cpu_seconds().0;
    let limit = args.path_seconds;
    let walked = htools::hbal_path(&text, usize::MAX, &|| cpu_seconds().0 - begun > limit);
    let path_complete = cpu_seconds().0 - begun <= limit;

    let mut hbal = None;
    if affordable(nodes, mirrored, *hbal_left)
        && let Some(r) = hbal_run(&args.hbal, &path("data"), &path("dynu"), None)
    {
        *hbal_left -= r.cpu_seconds;
        hbal = Some((r.moves, r.last, r.cpu_seconds));
    }
    let referee = hbal_run(&args.hbal, &path("ours.data"), &path("dynu"), Some(0)).map(|r| r.first);
    Ok(Case {
        nodes,
        servers,
        mirrored,
        seed,
        first: ours.score_before,
        path_complete,
        path_moves: walked.moves.len(),
        path_gib: walked.gib,
        path_score: walked.score_after,
        ours_moves: ours.moves.len(),
        ours_gib: ours.gib,
        ours_score: ours.score_after,
        ours_cpu_seconds,
        referee,
        hbal,
        curve: curve(&text, &walked, nodes, seed),
        product: product(&text, &walked, path_complete)?,
        peak_mib: peak_mib(),
    })
}

/// Whether hbal's whole run is likely to fit into what is left of its time.
fn affordable(nodes: usize, mirrored: bool, left: f64) -> bool {
    let expected = match (nodes, mirrored) {
        (..=10, false) => 1.0,
        (..=10, true) => 5.0,
        (..=40, false) => 120.0,
        (..=40, true) => 1200.0,
        _ => f64::INFINITY,
    };
    expected < left
}

/// Our score for the GiB of hbal's path after some of its moves.
fn curve(text: &Text, walked: &htools::Balance, nodes: usize, seed: u64) -> Vec<Point> {
    let points = match nodes {
        ..=40 => 8,
        100 => 4,
        300 => 2,
        _ => 0,
    };
    let moves = walked.moves.len();
    let mut at: Vec<usize> = (1..=points)
        .map(|k| {
            (moves as f64)
                .powf(f64::from(k) / f64::from(points))
                .round() as usize
        })
        .filter(|k| (1..=moves).contains(k))
        .collect();
    at.dedup();
    at.into_iter()
        .map(|k| {
            let gib: f64 = walked.moves[..k].iter().map(|m| m.gib).sum();
            let options = Options {
                seed,
                max_gib: Some(gib),
                ..Options::default()
            };
            let ours = htools::balance(text, &options);
            Point {
                hbal_moves: k,
                gib,
                hbal: walked.moves[k - 1].score,
                ours: ours.score_after,
                our_gib: ours.gib,
            }
        })
        .collect()
}

fn product(text: &Text, walked: &htools::Balance, complete: bool) -> Done<Product> {
    let policy = Policy {
        cpu_overcommit: (text.vcpu_ratio * 1000.0) as u64,
        ..Policy::default()
    };
    let snapshot = Snapshot::from_htools(text);
    let begun = cpu_seconds().0;
    let plan = plan::rebalance(&snapshot, &policy)?;
    let cpu = cpu_seconds().0 - begun;
    let hbal = if complete {
        let mut moved = text.clone();
        for (s, place) in moved.instances.iter_mut().zip(&walked.places) {
            (s.primary, s.secondary) = *place;
        }
        Some(plan::score(&Snapshot::from_htools(&moved), &policy)?)
    } else {
        None
    };
    Ok(Product {
        above_before: plan.before.nodes_above_mark,
        above_ours: plan.after.nodes_above_mark,
        above_hbal: hbal.map(|s| s.nodes_above_mark),
        highest_ours: plan.after.highest_use,
        highest_hbal: hbal.map(|s| s.highest_use),
        gib_ours: plan.copies_mib() as f64 / 1024.0,
        gib_least: least_relief_mib(&snapshot, &policy)? as f64 / 1024.0,
        lost_survivability: plan.after.unsurvivable_losses > plan.before.unsurvivable_losses,
        broken_limits: plan.after.broken_limits,
        cpu_seconds: cpu,
    })
}

fn print(c: &Case) {
    let storage = if c.mirrored { "mirrored" } else { "shared" };
    let mark = if c.path_complete { ' ' } else { '+' };
    let or_dash = |x: Option<String>| x.unwrap_or_else(|| "-".to_owned());
    let good = c.curve.iter().filter(|p| p.ours <= p.hbal + 1e-9).count();
    println!(
        "{:>5}/{:<6} {storage:<8} {:>3} {:>9.4} | {:>9.4} {:>8.0} {:>5}{mark} | {:>9.4} {:>8.0} {:>5} \
         {:>6.2} | {} | {} | {good}/{} | {} {} {} | {:.0}/{:.0}",
        c.nodes,
        c.servers,
        c.seed,
        c.first,
        c.path_score,
        c.path_gib,
        c.path_moves,
        c.ours_score,
        c.ours_gib,
        c.ours_moves,
        c.ours_cpu_seconds,
        or_dash(c.referee.map(|r| format!("{r:.4}"))),
        or_dash(
            c.hbal
                .map(|h| format!("{:.1} ({} moves, {:.4})", h.2, h.0, h.1))
        ),
        c.curve.len(),
        c.product.above_before,
        c.product.above_ours,
        or_dash(c.product.above_hbal.map(|n| n.to_string())),
        c.product.gib_ours,
        c.product.gib_least,
    );
}

/// The exponent of CPU seconds over the number of servers, by least squares on the logarithms.
fn growth(cases: &[Case]) -> Vec<(String, f64)> {
    let fit = |points: Vec<(f64, f64)>| {
        let n = points.len() as f64;
        let (sx, sy) = points
            .iter()
            .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        let sxy: f64 = points.iter().map(|p| p.0 * p.1).sum();
        let sxx: f64 = points.iter().map(|p| p.0 * p.0).sum();
        (n * sxy - sx * sy) / (n * sxx - sx * sx).max(1e-12)
    };
    let log = |c: &Case, y: f64| ((c.servers as f64).ln(), y.max(0.005).ln());
    let of = |mirrored: bool, y: &dyn Fn(&Case) -> f64| {
        fit(cases
            .iter()
            .filter(|c| c.mirrored == mirrored)
            .map(|c| log(c, y(c)))
            .collect())
    };
    vec![
        (
            "hbal's objective, shared".to_owned(),
            of(false, &|c| c.ours_cpu_seconds),
        ),
        (
            "hbal's objective, mirrored".to_owned(),
            of(true, &|c| c.ours_cpu_seconds),
        ),
        (
            "product's objective, shared".to_owned(),
            of(false, &|c| c.product.cpu_seconds),
        ),
        (
            "product's objective, mirrored".to_owned(),
            of(true, &|c| c.product.cpu_seconds),
        ),
    ]
}

/// Everything that hbal does better.
fn wins(cases: &[Case]) -> Vec<String> {
    let mut out = Vec::new();
    for c in cases {
        let storage = if c.mirrored { "mirrored" } else { "shared" };
        let name = format!("{}/{} {storage} seed {}", c.nodes, c.servers, c.seed);
        for p in c.curve.iter().filter(|p| p.ours > p.hbal + 1e-9) {
            out.push(format!(
                "{name}: after {} moves and {:.0} GiB hbal has {:.4}, we {:.4}",
                p.hbal_moves, p.gib, p.hbal, p.ours
            ));
        }
        if c.path_complete && c.ours_score > c.path_score + 1e-9 {
            out.push(format!(
                "{name}: hbal's final score is {:.4} with {:.0} GiB, ours {:.4} with {:.0} GiB",
                c.path_score, c.path_gib, c.ours_score, c.ours_gib
            ));
        }
        if c.path_complete && c.ours_gib > c.path_gib {
            out.push(format!(
                "{name}: hbal copies {:.0} GiB, we {:.0} GiB (scores {:.4} and {:.4})",
                c.path_gib, c.ours_gib, c.path_score, c.ours_score
            ));
        }
        if c.path_complete && c.ours_moves > c.path_moves {
            out.push(format!(
                "{name}: hbal makes {} moves, we {} smaller ones",
                c.path_moves, c.ours_moves
            ));
        }
    }
    out
}

fn summary(r: &Report) {
    println!("\ngrowth: CPU seconds ~ servers^x");
    for (name, x) in &r.growth_exponent {
        println!("  {name}: x = {x:.2}");
    }
    let (points, good) = r
        .cases
        .iter()
        .flat_map(|c| &c.curve)
        .fold((0, 0), |(n, g), p| {
            (n + 1, g + usize::from(p.ours <= p.hbal + 1e-9))
        });
    println!("curve points at or under hbal: {good} of {points}");
    let checked = r
        .cases
        .iter()
        .filter_map(|c| Some((c.referee? - c.ours_score).abs()));
    let worst = checked.clone().fold(0.0, f64::max);
    println!(
        "end states re-scored by hbal: {}, largest difference {worst:.1e}",
        checked.count()
    );
    let walked = r.cases.iter().filter_map(|c| Some((c.hbal?, c)));
    let same = walked
        .clone()
        .filter(|(h, c)| (h.1 - c.path_score).abs() < 1e-6)
        .count();
    println!(
        "hbal's own runs that end where our walk of its path ends: {same} of {}",
        walked.clone().count()
    );
    for (h, c) in walked.filter(|(_, c)| c.ours_cpu_seconds > 0.0) {
        println!(
            "  {}/{} seed {}: hbal {:.1} CPU s, ours {:.2} (its path walked by us aside)",
            c.nodes, c.servers, c.seed, h.2, c.ours_cpu_seconds
        );
    }
    println!("peak memory of this process: {:.0} MiB", peak_mib());
    println!("what hbal does better: {} findings", r.hbal_wins.len());
    for w in &r.hbal_wins {
        println!("  {w}");
    }
}
