//! The command `undine-placement`: every planner of the library on files.

mod bench;
mod files;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Decides where servers and their replicas live.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A snapshot: our JSON, or Ganeti's text with its load file.
#[derive(Args, Clone)]
pub(crate) struct Source {
    /// Snapshot in JSON.
    #[arg(long, conflicts_with = "htools", required_unless_present = "htools")]
    snapshot: Option<PathBuf>,
    /// Ganeti text file (`hbal -t`).
    #[arg(long)]
    htools: Option<PathBuf>,
    /// Ganeti load file (`hbal -U`).
    #[arg(long, requires = "htools")]
    dynu: Option<PathBuf>,
    /// Policy in JSON; what it leaves out has its default.
    #[arg(long)]
    policy: Option<PathBuf>,
}

/// Which objective to plan for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Objective {
    /// hbal's own score, with moved GiB as price.
    Hbal,
    /// Ours: limits, survivable losses, the mark, evenness, moves.
    Product,
}

#[derive(Args, Clone)]
pub(crate) struct BalanceArgs {
    #[command(flatten)]
    source: Source,
    /// Objective; with `--htools` hbal's own unless told otherwise.
    #[arg(long)]
    objective: Option<Objective>,
    /// Most moves.
    #[arg(long)]
    max_moves: Option<usize>,
    /// Most GiB to copy (hbal's objective).
    #[arg(long)]
    max_gib: Option<f64>,
    /// Score that a copied GiB must bring (hbal's objective).
    #[arg(long)]
    price: Option<f64>,
    /// Trials per server (hbal's objective).
    #[arg(long)]
    effort: Option<usize>,
    /// Seed of the search.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the cluster as it will be: text for `--htools`, JSON otherwise.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where to write the plan in JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Says on standard error what it cost: CPU seconds and the peak of memory.
    #[arg(long)]
    usage: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Plans moves that make the cluster better.
    Balance(BalanceArgs),
    /// Prints the scores of a cluster as it is.
    Score {
        #[command(flatten)]
        source: Source,
    },
    /// Finds the place of a new server (JSON) and its replicas.
    Place {
        #[command(flatten)]
        source: Source,
        /// The server in JSON.
        #[arg(long)]
        server: PathBuf,
    },
    /// Plans how to empty nodes.
    Drain {
        #[command(flatten)]
        source: Source,
        /// The nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Plans where the servers of lost nodes start.
    Failover {
        #[command(flatten)]
        source: Source,
        /// The lost nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Counts how many more servers of a size fit, and what hardware would help most.
    Capacity {
        #[command(flatten)]
        source: Source,
        /// A server of the size, in JSON.
        #[arg(long)]
        server: PathBuf,
        /// Such servers coming each day.
        #[arg(long, default_value_t = 0.0)]
        growth: f64,
    },
    /// Tells what changes (a JSON list) would lead to, without making any.
    WhatIf {
        #[command(flatten)]
        source: Source,
        /// The changes.
        #[arg(long)]
        changes: PathBuf,
    },
    /// Plays days of load with each balancer.
    Simulate {
        #[command(flatten)]
        source: Source,
        /// Days.
        #[arg(long, default_value_t = 7)]
        days: u64,
        /// Seed of the load.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Writes a made-up cluster as Ganeti files PREFIX.data and PREFIX.dynu.
    Generate {
        /// Nodes.
        #[arg(long)]
        nodes: usize,
        /// Servers.
        #[arg(long)]
        servers: usize,
        /// With a mirror on a secondary node, not on shared storage.
        #[arg(long)]
        mirrored: bool,
        /// Seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to.
        prefix: String,
    },
    /// Improves an assignment of the ROADEF/EURO 2012 machine reassignment problem.
    Roadef(RoadefArgs),
    /// Compares with hbal on made-up clusters.
    Bench(bench::BenchArgs),
    /// Runs the ROADEF instances of a folder.
    BenchRoadef(bench::roadef::BenchArgs),
}

#[derive(Args)]
pub(crate) struct RoadefArgs {
    /// The model file.
    model: PathBuf,
    /// The first assignment.
    assignment: PathBuf,
    /// Seconds to search.
    #[arg(long, default_value_t = 300.0)]
    time: f64,
    /// The seconds are CPU seconds of each thread, not those of the clock.
    #[arg(long)]
    cpu: bool,
    /// Seed of the search.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads, each with its own search.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where to write the new assignment.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Balance(args) => run::balance(&args),
        Command::Score { source } => run::score(&source),
        Command::Place { source, server } => run::place(&source, &server),
        Command::Drain { source, nodes } => run::drain(&source, &nodes),
        Command::Failover { source, nodes } => run::failover(&source, &nodes),
        Command::Capacity {
            source,
            server,
            growth,
        } => run::capacity(&source, &server, growth),
        Command::WhatIf { source, changes } => run::what_if(&source, &changes),
        Command::Simulate { source, days, seed } => run::simulate(&source, days, seed),
        Command::Generate {
            nodes,
            servers,
            mirrored,
            seed,
            prefix,
        } => run::generate(nodes, servers, mirrored, seed, &prefix),
        Command::Roadef(args) => run::roadef(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchRoadef(args) => bench::roadef::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("undine-placement: {}", files::chain(e.as_ref()));
            ExitCode::FAILURE
        }
    }
}
