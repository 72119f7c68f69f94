//! The benchmark beside hbal: curves on its objective, the product's objective, cost and growth,
//! and a simulated week.

mod case;
mod hbal;
mod report;
pub(crate) mod roadef;
pub(crate) mod usage;
mod week;

use std::path::PathBuf;

use clap::Args;

use crate::files::{Done, write_json};
use case::{Case, Which};

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
    /// Two seeds and the two smallest sizes.
    #[arg(long)]
    quick: bool,
    /// Clusters of each size and kind of storage.
    #[arg(long)]
    seeds: Option<u64>,
    /// The same from 100/1,000 up, where a case takes minutes; as many as of the others unless said
    /// otherwise.
    #[arg(long)]
    large_seeds: Option<u64>,
    /// Only cases whose name begins so, such as `40-400-shared`.
    #[arg(long)]
    only: Option<String>,
    /// The program hbal (Debian package ganeti-htools).
    #[arg(long, default_value = "hbal")]
    hbal: String,
    /// hbal makes no plans of its own (it still scores ours): only our exact walk of its path is
    /// compared.
    #[arg(long)]
    no_hbal: bool,
    /// Most CPU seconds for one run of hbal.
    #[arg(long, default_value_t = 1800)]
    hbal_seconds: u64,
    /// hbal plans nothing anew: only its kept output is compared (it still scores our end states).
    #[arg(long, conflicts_with = "again")]
    kept: bool,
    /// hbal runs again where its output for the same files was kept.
    #[arg(long)]
    again: bool,
    /// CPU seconds for walking hbal's path in one case.
    #[arg(long, default_value_t = 15.0)]
    path_seconds: f64,
    /// Folder for the made-up files and for what hbal said.
    #[arg(long, default_value = "target/bench/placement")]
    folder: PathBuf,
}

pub(crate) fn run(args: &BenchArgs) -> Done {
    let seeds = args.seeds.unwrap_or(if args.quick { 2 } else { 10 });
    let sizes = if args.quick { &SIZES[..2] } else { &SIZES[..] };
    let mut cases: Vec<Case> = Vec::new();
    report::head();
    for &(nodes, servers) in sizes {
        for mirrored in [false, true] {
            let large = args.large_seeds.filter(|_| nodes >= 100);
            for seed in 1..=large.unwrap_or(seeds) {
                let which = Which {
                    nodes,
                    servers,
                    mirrored,
                    seed,
                };
                let wanted = args.only.as_deref().unwrap_or_default();
                if which.name().starts_with(wanted) {
                    let case = case::run(args, which)?;
                    report::line(&case);
                    cases.push(case);
                }
            }
        }
    }
    let week = match args.only {
        None => week::run(if args.quick { 2 } else { 7 }, seeds.min(3))?,
        Some(_) => vec![],
    };
    let report = report::Report::new(cases, week);
    report.print();
    if let Some(out) = &args.out {
        write_json(out, &report)?;
    }
    Ok(())
}
