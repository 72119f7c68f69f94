//! The ROADEF benchmark: every instance of a folder, several seeds, gap to the best known.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use undine_placement::roadef::{self, Model};

use crate::files::{Done, read, write_json};
use crate::run::search;

/// Best costs known to us: the challenge's public instances and the papers about them.
const BEST: [(&str, i64); 6] = [
    ("a1_1", 44_306_501),
    ("a1_2", 777_531_842),
    ("a1_3", 583_005_717),
    ("a1_4", 252_728_589),
    ("a1_5", 727_578_309),
    ("a2_1", 196),
];

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Folder with `model_X.txt` and `assignment_X.txt`.
    folder: PathBuf,
    /// CPU seconds of each thread for each run, so that other work on the machine does not count.
    #[arg(long, default_value_t = 30.0)]
    time: f64,
    /// The seconds are those of the clock.
    #[arg(long)]
    wall: bool,
    /// Seeds for each instance.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only this instance.
    #[arg(long)]
    only: Option<String>,
    /// Also run made-up instances up to 5,000 machines and 50,000 processes.
    #[arg(long)]
    large: bool,
    /// Where to write the results in JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    instance: String,
    machines: usize,
    processes: usize,
    first: i64,
    costs: Vec<i64>,
    median: i64,
    best_known: Option<i64>,
    gap_percent: Option<f64>,
}

pub(crate) fn run(args: &BenchArgs) -> Done {
    let mut rows = Vec::new();
    println!("instance  machines processes          first         median      best known   gap %");
    for name in instances(args)? {
        let model = Model::read(&read(&args.folder.join(format!("model_{name}.txt")))?)?;
        let path = args.folder.join(format!("assignment_{name}.txt"));
        let first = roadef::read_assignment(&read(&path)?, &model)?;
        rows.push(row(args, &name, &model, &first)?);
    }
    if args.large {
        for (machines, processes) in [(500, 5_000), (5_000, 50_000)] {
            let (model, first) = roadef::generate(machines, processes, 1);
            rows.push(row(
                args,
                &format!("{machines}x{processes}"),
                &model,
                &first,
            )?);
        }
    }
    if let Some(out) = &args.out {
        write_json(out, &rows)?;
    }
    Ok(())
}

fn instances(args: &BenchArgs) -> Done<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&args.folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let found = name
            .strip_prefix("model_")
            .and_then(|n| n.strip_suffix(".txt"));
        names.extend(
            found
                .filter(|n| args.only.as_deref().is_none_or(|o| o == *n))
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

fn row(args: &BenchArgs, name: &str, model: &Model, first: &[usize]) -> Done<Row> {
    let before = roadef::cost(model, first, first)?;
    let mut costs = Vec::new();
    let begun = Instant::now();
    for seed in 1..=args.seeds.max(1) {
        let found = search(model, first, (args.time, !args.wall), seed, args.threads)?;
        costs.push(roadef::cost(model, first, &found.assignment)?);
    }
    let mut sorted = costs.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    let best_known = BEST.iter().find(|b| b.0 == name).map(|b| b.1);
    let gap_percent = best_known.map(|b| (median - b) as f64 * 100.0 / b.max(1) as f64);
    println!(
        "{name:<9} {:>8} {:>9} {before:>14} {median:>14} {:>15} {:>7}  {costs:?} {:.0} s",
        model.machines.len(),
        model.processes.len(),
        best_known.map_or_else(|| "-".to_owned(), |b| b.to_string()),
        gap_percent.map_or_else(|| "-".to_owned(), |g| format!("{g:.3}")),
        begun.elapsed().as_secs_f64(),
    );
    Ok(Row {
        instance: name.to_owned(),
        machines: model.machines.len(),
        processes: model.processes.len(),
        first: before,
        costs,
        median,
        best_known,
        gap_percent,
    })
}
