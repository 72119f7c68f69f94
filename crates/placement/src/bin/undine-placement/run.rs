//! The subcommands, apart from the benchmarks.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use undine_placement::generate::{Storage, cluster};
use undine_placement::htools::{self, Options};
use undine_placement::plan::{self, Change};
use undine_placement::roadef::{self, Effort, Model, Solution};
use undine_placement::simulate::Balancer;
use undine_placement::snapshot::Server;
use undine_placement::{Action, Plan};

use crate::bench::usage::{cpu_seconds, peak_mib, thread_seconds};
use crate::files::{Done, json, read, write, write_json};
use crate::{BalanceArgs, Objective, RoadefArgs, Source};

pub(crate) fn balance(args: &BalanceArgs) -> Done {
    let usual = if args.source.is_htools() {
        Objective::Hbal
    } else {
        Objective::Product
    };
    match args.objective.unwrap_or(usual) {
        Objective::Hbal => balance_hbal(args)?,
        Objective::Product => balance_product(args)?,
    }
    if args.usage {
        let (cpu, peak) = (cpu_seconds().0, peak_mib());
        eprintln!("used {cpu:.2} CPU seconds and {peak:.1} MiB");
    }
    Ok(())
}

fn balance_hbal(args: &BalanceArgs) -> Done {
    let text = args.source.text()?;
    let options = Options {
        seed: args.seed,
        effort: args.effort,
        price_per_gib: args.price,
        max_gib: args.max_gib,
        max_moves: args.max_moves,
    };
    let found = htools::balance(&text, &options);
    for (k, m) in found.moves.iter().enumerate() {
        println!(
            "{:5}. {} {} => {} {:.8} a={}",
            k + 1,
            m.instance,
            m.from,
            m.to,
            m.score,
            m.action
        );
    }
    println!("{}", found.summary);
    if let Some(out) = &args.out {
        write(out, &text.render(&found.places))?;
    }
    if let Some(report) = &args.report {
        write_json(report, &found)?;
    }
    Ok(())
}

fn balance_product(args: &BalanceArgs) -> Done {
    let snapshot = args.source.snapshot()?;
    let mut policy = args.source.policy()?;
    policy.max_moves = args.max_moves.unwrap_or(policy.max_moves);
    let plan = plan::rebalance(&snapshot, &policy)?;
    print(&plan);
    if let Some(out) = &args.out {
        let after = snapshot.after(&plan, &[])?;
        if args.source.is_htools() {
            write(out, &htools_after(&args.source, &plan)?)?;
        } else {
            write_json(out, &after)?;
        }
    }
    if let Some(report) = &args.report {
        write_json(report, &plan)?;
    }
    Ok(())
}

/// The text after a product plan: only owners and mirrors change.
fn htools_after(source: &Source, plan: &Plan) -> Done<String> {
    let text = source.text()?;
    let node = |id: &str| text.nodes.iter().position(|n| n.name == id);
    let mut places = text.places();
    for step in &plan.steps {
        let Some(i) = text
            .instances
            .iter()
            .position(|s| s.name == step.action.server())
        else {
            continue;
        };
        match &step.action {
            Action::Migrate { to, .. } => {
                let (from, Some(to)) = (places[i].0, node(to)) else {
                    continue;
                };
                if places[i].1 == Some(to) {
                    places[i].1 = Some(from);
                }
                places[i].0 = to;
            }
            Action::MoveReplica { to, .. } => places[i].1 = node(to),
            _ => {}
        }
    }
    Ok(text.render(&places))
}

fn print(plan: &Plan) {
    for s in &plan.steps {
        let what = match &s.action {
            Action::Place {
                server,
                owner,
                replicas,
            } => {
                format!(
                    "place {server} on {owner}, copies on [{}]",
                    replicas.join(" ")
                )
            }
            Action::Migrate {
                server,
                from,
                to,
                copies_disk,
            } => {
                let disk = if *copies_disk { " with its disk" } else { "" };
                format!("move {server} {from} -> {to}{disk}")
            }
            Action::MoveReplica { server, from, to } => {
                format!("move a copy of {server} {from} -> {to}")
            }
            Action::AddReplica { server, to } => format!("add a copy of {server} on {to}"),
            Action::Restart {
                server,
                to,
                local_copy,
                ..
            } => {
                let how = if *local_copy {
                    "from its copy"
                } else {
                    "from a copy elsewhere"
                };
                format!("start {server} on {to} {how}")
            }
        };
        println!("wave {:3}  {what}: {}", s.wave, s.reason);
    }
    for r in &plan.refused {
        println!("not possible: {}: {}", r.subject, r.reason);
    }
    println!("{}", plan.summary);
    println!("before {:?}\nafter  {:?}", plan.before, plan.after);
}

fn show(value: &impl Serialize) -> Done {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(crate) fn score(source: &Source) -> Done {
    if source.is_htools() {
        println!("hbal's score: {:.8}", htools::score(&source.text()?));
    }
    show(&plan::score(&source.snapshot()?, &source.policy()?)?)
}

pub(crate) fn place(source: &Source, server: &Path) -> Done {
    let server: Server = json(server)?;
    print(&plan::place_server(
        &source.snapshot()?,
        &source.policy()?,
        &server,
    )?);
    Ok(())
}

pub(crate) fn drain(source: &Source, nodes: &[String]) -> Done {
    print(&plan::drain(&source.snapshot()?, &source.policy()?, nodes)?);
    Ok(())
}

pub(crate) fn failover(source: &Source, nodes: &[String]) -> Done {
    print(&plan::failover(
        &source.snapshot()?,
        &source.policy()?,
        nodes,
    )?);
    Ok(())
}

pub(crate) fn capacity(source: &Source, server: &Path, growth: f64) -> Done {
    let server: Server = json(server)?;
    show(&plan::capacity(
        &source.snapshot()?,
        &source.policy()?,
        &server,
        growth,
    )?)
}

pub(crate) fn what_if(source: &Source, changes: &Path) -> Done {
    let changes: Vec<Change> = json(changes)?;
    show(&plan::what_if(
        &source.snapshot()?,
        &source.policy()?,
        &changes,
    )?)
}

pub(crate) fn simulate(source: &Source, days: u64, seed: u64) -> Done {
    let (snapshot, policy) = (source.snapshot()?, source.policy()?);
    println!("balancer   moves     GiB  node-minutes above  unevenness %  highest %");
    for b in [
        Balancer::None,
        Balancer::Ours,
        Balancer::Threshold,
        Balancer::Greedy,
    ] {
        let o = undine_placement::simulate::simulate(&snapshot, &policy, b, days, seed)?;
        println!(
            "{:<10} {:>5} {:>7} {:>19} {:>13.1} {:>10.1}",
            format!("{b:?}"),
            o.moves,
            o.gib,
            o.minutes_above,
            o.unevenness as f64 / 10.0,
            o.highest as f64 / 10.0
        );
    }
    Ok(())
}

pub(crate) fn generate(
    nodes: usize,
    servers: usize,
    mirrored: bool,
    seed: u64,
    prefix: &str,
) -> Done {
    let storage = if mirrored {
        Storage::Mirrored
    } else {
        Storage::Shared
    };
    let files = cluster(nodes, servers, storage, seed);
    write(Path::new(&format!("{prefix}.data")), &files.data)?;
    write(Path::new(&format!("{prefix}.dynu")), &files.load)
}

pub(crate) fn roadef(args: &RoadefArgs) -> Done {
    let model =
        Model::read(&read(&args.model)?).map_err(|e| format!("{}: {e}", args.model.display()))?;
    let first = roadef::read_assignment(&read(&args.assignment)?, &model)
        .map_err(|e| format!("{}: {e}", args.assignment.display()))?;
    let before = roadef::cost(&model, &first, &first)?;
    let found = search(
        &model,
        &first,
        (args.time, args.cpu),
        args.seed,
        args.threads,
    )?;
    // The judge has the last word, not the solver.
    let cost = roadef::cost(&model, &first, &found.assignment)?;
    println!("cost {before} -> {cost} after {} trials", found.trials);
    if let Some(out) = &args.out {
        let list: Vec<String> = found.assignment.iter().map(ToString::to_string).collect();
        write(out, &(list.join(" ") + "\n"))?;
    }
    Ok(())
}

/// The best of one search a thread. With `cpu`, a thread's seconds are
/// those that it really ran, so that other work on the machine does not count.
pub(crate) fn search(
    model: &Model,
    first: &[usize],
    (seconds, cpu): (f64, bool),
    seed: u64,
    threads: usize,
) -> Done<Solution> {
    let begun = Instant::now();
    let one = |k: usize| {
        let ran = thread_seconds();
        let used = || match (cpu, ran) {
            (true, Some(ran)) => thread_seconds().unwrap_or(f64::INFINITY) - ran,
            _ => begun.elapsed().as_secs_f64(),
        };
        roadef::solve(
            model,
            first,
            &Effort {
                seed: seed.wrapping_mul(1000).wrapping_add(k as u64),
                progress: &|| used() / seconds.max(0.001),
            },
        )
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1))
            .map(|k| scope.spawn(move || one(k)))
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().map_err(|_| "a search thread died"))
            .collect()
    });
    let mut best: Option<Solution> = None;
    for r in results {
        let found = r??;
        if best.as_ref().is_none_or(|b| found.cost < b.cost) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| "no thread".into())
}
