//! Runs many seeds by hand: `simulate FROM COUNT`, replays one: `simulate replay SEED [BUG]`, or
//! hunts the planted mistakes: `simulate hunt FROM COUNT [BUG]`. With `--sqlite` the store is the
//! real one, and a seed takes a hundred times as long.

use std::time::Instant;

use undine_sim::{Bug, Counts};

#[path = "../tests/sqlite/mod.rs"]
mod sqlite;

type Run = fn(u64, Option<Bug>) -> Result<Counts, String>;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_real = arguments.iter().any(|it| it == "--sqlite");
    arguments.retain(|it| it != "--sqlite");
    let run: Run = if is_real {
        sqlite::run
    } else {
        undine_sim::run
    };
    let number = |at: usize| arguments.get(at).and_then(|it| it.parse::<u64>().ok());
    match arguments.first().map(String::as_str) {
        Some("replay") => {
            let name = arguments.get(2).cloned().unwrap_or_default();
            let bug = Bug::ALL
                .iter()
                .copied()
                .find(|bug| format!("{bug:?}") == name);
            let seed = number(1).unwrap_or(0);
            let (result, trace) = match is_real {
                true => sqlite::replay(seed, bug),
                false => undine_sim::replay(seed, bug),
            };
            println!("{}\n{result:?}", trace.join("\n"));
        }
        Some("hunt") => {
            let (from, count) = (number(1).unwrap_or(0), number(2).unwrap_or(10_000));
            for bug in Bug::ALL {
                if arguments
                    .get(3)
                    .is_some_and(|only| *only != format!("{bug:?}"))
                {
                    continue;
                }
                match undine_sim::hunt(run, *bug, from..from + count) {
                    Some((seed, needed, found)) => {
                        println!("{bug:?}: seed {seed}, after {needed}: {found}");
                    }
                    None => println!("{bug:?}: NOT FOUND in {count} seeds"),
                }
            }
        }
        _ => many(run, number(0).unwrap_or(0), number(1).unwrap_or(10_000)),
    }
}

fn many(run: Run, from: u64, count: u64) {
    let begun = Instant::now();
    let (mut all, mut failed) = (Counts::default(), 0);
    for seed in from..from + count {
        match run(seed, None) {
            Ok(counts) => all.add(&counts),
            Err(found) => {
                failed += 1;
                println!("seed {seed}: {found}");
            }
        }
    }
    println!(
        "{count} seeds, {failed} failed, {:.1} s; {all:?}",
        begun.elapsed().as_secs_f64()
    );
}
