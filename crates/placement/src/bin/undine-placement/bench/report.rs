//! What the benchmark prints and writes, with everything that hbal does better.

use serde::Serialize;

use super::case::{Case, End};
use super::week::Week;

/// The whole result.
#[derive(Serialize)]
pub(super) struct Report {
    /// `CPU seconds ~ servers^x`.
    growth_exponent: Vec<(String, f64)>,
    sizes: Vec<Size>,
    hbal_wins: Vec<String>,
    week: Vec<Week>,
    cases: Vec<Case>,
}

/// Medians of the clusters of one size.
#[derive(Serialize)]
struct Size {
    nodes: usize,
    servers: usize,
    mirrored: bool,
    clusters: usize,
    our_score: f64,
    our_gib: f64,
    our_cpu_seconds: f64,
    our_peak_mib: f64,
    /// End of hbal's path and how many of the clusters' paths were walked to it.
    path_score: f64,
    path_gib: f64,
    path_complete: usize,
    /// Smallest ratio of CPU seconds where hbal ran to its end.
    least_ratio_complete: Option<f64>,
    /// Smallest ratio where hbal was stopped after some moves: a floor of a floor.
    least_ratio_cut: Option<f64>,
    curve_points: usize,
    curve_good: usize,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

fn storage(c: &Case) -> &'static str {
    if c.mirrored { "mirrored" } else { "shared" }
}

fn good(c: &Case) -> usize {
    c.curve.iter().filter(|p| p.ours <= p.hbal + 1e-9).count()
}

fn size(cases: &[&Case]) -> Size {
    let of = |f: &dyn Fn(&Case) -> f64| median(cases.iter().map(|c| f(c)));
    let ratio = |complete: bool| {
        cases
            .iter()
            .filter(|c| c.hbal.as_ref().is_some_and(|h| h.complete == complete))
            .filter_map(|c| c.cost_ratio())
            .min_by(f64::total_cmp)
    };
    Size {
        nodes: cases[0].nodes,
        servers: cases[0].servers,
        mirrored: cases[0].mirrored,
        clusters: cases.len(),
        our_score: of(&|c| c.ours.score),
        our_gib: of(&|c| c.ours.gib),
        our_cpu_seconds: of(&|c| c.ours.cpu_seconds),
        our_peak_mib: cases.iter().map(|c| c.peak_mib).fold(0.0, f64::max),
        path_score: of(&|c| c.path().score),
        path_gib: of(&|c| c.path().gib),
        path_complete: cases.iter().filter(|c| c.path().complete).count(),
        least_ratio_complete: ratio(true),
        least_ratio_cut: ratio(false),
        curve_points: cases.iter().map(|c| c.curve.len()).sum(),
        curve_good: cases.iter().map(|c| good(c)).sum(),
    }
}

pub(super) fn head() {
    println!(
        "nodes/servers storage seed    first | hbal's path: score  GiB moves | ours: score  GiB \
         moves CPU s | referee | hbal CPU s, moves | curve ours<=hbal | above 80 %: before ours \
         hbal | GiB ours/least"
    );
}

fn way(e: &End) -> String {
    let mark = if e.complete { ' ' } else { '+' };
    format!("{:>9.4} {:>7.0} {:>4}{mark}", e.score, e.gib, e.moves)
}

pub(super) fn line(c: &Case) {
    let or_dash = |x: Option<String>| x.unwrap_or_else(|| "-".to_owned());
    println!(
        "{:>5}/{:<6} {:<8} {:>3} {:>9.4} | {} | {} {:>6.2} | {} | {} | {}/{} | {} {} {} | {:.0}/{:.0}",
        c.nodes,
        c.servers,
        storage(c),
        c.seed,
        c.first,
        way(c.path()),
        way(&c.ours),
        c.ours.cpu_seconds,
        or_dash(c.referee.map(|r| format!("{r:.4}"))),
        or_dash(c.hbal.as_ref().map(|h| format!(
            "{:.1}, {}{}",
            h.cpu_seconds,
            h.moves,
            if h.complete { "" } else { "+" }
        ))),
        good(c),
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
    let mut out = Vec::new();
    for (mirrored, name) in [(false, "shared"), (true, "mirrored")] {
        let ours = of(mirrored, &|c| c.ours.cpu_seconds);
        out.push((format!("hbal's objective, {name}"), ours));
        let product = of(mirrored, &|c| c.product.cpu_seconds);
        out.push((format!("product's objective, {name}"), product));
    }
    out
}

/// Everything that hbal does better.
fn wins(cases: &[Case]) -> Vec<String> {
    let mut out = Vec::new();
    for c in cases {
        let name = format!("{}/{} {} seed {}", c.nodes, c.servers, storage(c), c.seed);
        for p in c.curve.iter().filter(|p| p.ours > p.hbal + 1e-9) {
            out.push(format!(
                "{name}: after {} moves and {:.0} GiB hbal has {:.4}, we {:.4}",
                p.hbal_moves, p.gib, p.hbal, p.ours
            ));
        }
        let h = c.path();
        if !h.complete {
            continue;
        }
        let (ours, theirs) = (way(&c.ours), way(h));
        if c.ours.score > h.score + 1e-9 {
            out.push(format!(
                "{name}: hbal's final score is lower ({theirs}; ours {ours})"
            ));
        }
        if c.ours.gib > h.gib {
            out.push(format!("{name}: hbal copies less ({theirs}; ours {ours})"));
        }
        if c.ours.moves > h.moves {
            out.push(format!(
                "{name}: hbal makes {} moves, we {} smaller ones",
                h.moves, c.ours.moves
            ));
        }
        let p = &c.product;
        if p.above_hbal.is_some_and(|h| h < p.above_ours) {
            out.push(format!(
                "{name}: {} nodes above 80 % after hbal, {} after ours",
                p.above_hbal.unwrap_or(0),
                p.above_ours
            ));
        }
        if p.unsurvivable_hbal.is_some_and(|h| h < p.unsurvivable_ours) {
            out.push(format!(
                "{name}: {} losses cannot be survived after hbal, {} after ours",
                p.unsurvivable_hbal.unwrap_or(0),
                p.unsurvivable_ours
            ));
        }
    }
    out
}

impl Report {
    pub fn new(cases: Vec<Case>, week: Vec<Week>) -> Self {
        let mut groups: Vec<Vec<&Case>> = Vec::new();
        for c in &cases {
            match groups.last_mut() {
                Some(g) if g[0].nodes == c.nodes && g[0].mirrored == c.mirrored => g.push(c),
                _ => groups.push(vec![c]),
            }
        }
        Self {
            growth_exponent: growth(&cases),
            sizes: groups.iter().map(|g| size(g)).collect(),
            hbal_wins: wins(&cases),
            week,
            cases,
        }
    }

    pub fn print(&self) {
        println!(
            "\nmedians; ratio: CPU of hbal over ours, > where hbal was stopped after some moves"
        );
        for s in &self.sizes {
            let ratio = |sign: &str, r: Option<f64>| {
                r.map_or_else(|| "-".to_owned(), |r| format!("{sign}{r:.0}"))
            };
            println!(
                "{:>5}/{:<6} {:<8} hbal {:>8.4} {:>7.0} GiB ({}/{} ended) | ours {:>8.4} {:>7.0} \
                 GiB {:>6.2} CPU s, peak {:.0} MiB | ratio at least {} {} | curve {}/{}",
                s.nodes,
                s.servers,
                if s.mirrored { "mirrored" } else { "shared" },
                s.path_score,
                s.path_gib,
                s.path_complete,
                s.clusters,
                s.our_score,
                s.our_gib,
                s.our_cpu_seconds,
                s.our_peak_mib,
                ratio("", s.least_ratio_complete),
                ratio("> ", s.least_ratio_cut),
                s.curve_good,
                s.curve_points
            );
        }
        println!("\ngrowth: CPU seconds ~ servers^x");
        for (name, x) in &self.growth_exponent {
            println!("  {name}: x = {x:.2}");
        }
        self.print_referee();
        self.print_product();
        self.print_week();
        println!("\nwhat hbal does better: {} findings", self.hbal_wins.len());
        for w in &self.hbal_wins {
            println!("  {w}");
        }
    }

    fn print_referee(&self) {
        let checked = self
            .cases
            .iter()
            .filter_map(|c| Some((c.referee? - c.ours.score).abs()));
        let worst = checked.clone().fold(0.0, f64::max);
        println!(
            "\nend states re-scored by hbal: {} of {}, largest difference {worst:.1e}",
            checked.count(),
            self.cases.len()
        );
        let ran = self
            .cases
            .iter()
            .filter_map(|c| Some((c.hbal.as_ref()?, c)));
        let same = ran.clone().filter(|(h, c)| c.same_moves == Some(h.moves));
        println!(
            "hbal's own runs whose every move our walk of its path makes too: {} of {}",
            same.count(),
            ran.count()
        );
    }

    fn print_product(&self) {
        println!("\nproduct's objective, sums over the clusters of a size: nodes above 80 %, GiB");
        for s in &self.sizes {
            let of = |f: &dyn Fn(&Case) -> f64| -> f64 {
                let those = |c: &&Case| c.nodes == s.nodes && c.mirrored == s.mirrored;
                self.cases.iter().filter(those).map(f).sum()
            };
            println!(
                "{:>5}/{:<6} {:<8} above {} -> {} | {:.0} GiB, least possible {:.0} | losses not \
                 survived {} -> {} | limits broken {} -> {}",
                s.nodes,
                s.servers,
                if s.mirrored { "mirrored" } else { "shared" },
                of(&|c| c.product.above_before as f64),
                of(&|c| c.product.above_ours as f64),
                of(&|c| c.product.gib_ours),
                of(&|c| c.product.gib_least),
                of(&|c| c.product.unsurvivable_before as f64),
                of(&|c| c.product.unsurvivable_ours as f64),
                of(&|c| c.product.broken_limits_before as f64),
                of(&|c| c.product.broken_limits_ours as f64),
            );
        }
    }

    fn print_week(&self) {
        for w in &self.week {
            let o = &w.outcome;
            println!(
                "{} days at {}/{} seed {}: {:<9} {:>6} moves {:>7} GiB {:>7} node-minutes above \
                 80 %, unevenness {:.1} %, highest {:.1} %",
                w.days,
                w.nodes,
                w.servers,
                w.seed,
                format!("{:?}", o.balancer),
                o.moves,
                o.gib,
                o.minutes_above,
                o.unevenness as f64 / 10.0,
                o.highest as f64 / 10.0
            );
        }
    }
}
