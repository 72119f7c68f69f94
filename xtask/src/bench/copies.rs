//! `bench copies`: one of a server's two copies fails while visitors come; how long the longest of
//! them waited, how soon the copy left, and how soon both are in sync again.
//!
//! A round: the daemon of the copy that is not on the owner's node is killed, or stands still until
//! its copy has left. Static and PHP servers take turns.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::api::text;
use super::cluster::{Cluster, Site};
use super::flags::Flags;
use super::load::visit;
use super::proc;
use super::report::{self, seconds, table};
use super::stats::{Summary, summary, thousandths};
use crate::command::ask;
use crate::trial::fleet::{Content, Fleet, Member};

/// Between two visits.
const PACE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

/// How a copy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Freeze => "frozen",
        }
    }
}

struct Round {
    fault: Fault,
    server: String,
    left_s: f64,
    whole_s: f64,
    visits: usize,
    longest_s: f64,
    troubles: Vec<String>,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["runs"], &[])?;
    let runs: usize = flags.number("runs", 5)?;
    ensure!(runs > 0, "--runs takes at least 1");
    let cluster = Cluster::open_or(&["--detach", "--no-demo"])?;
    let fleet = Fleet::ensure(&cluster)?;
    fleet.settle(&cluster)?;
    let quick = |it: &&Member| it.content != Content::WordPress;
    let members: Vec<&Member> = fleet.members.iter().filter(quick).collect();
    let mut rounds = Vec::new();
    for run in 0..runs {
        for fault in [Fault::Kill, Fault::Freeze] {
            let member = members[(run * 2 + usize::from(fault == Fault::Freeze)) % members.len()];
            let round = self::round(&cluster, &fleet, member, fault)
                .with_context(|| format!("the copy of {}", member.name))?;
            println!(
                "  {} {}: left after {}, whole after {}, longest visit {} of {}",
                round.server,
                fault.name(),
                seconds(round.left_s),
                seconds(round.whole_s),
                seconds(round.longest_s),
                round.visits
            );
            rounds.push(round);
        }
    }
    tell(&cluster, &rounds)
}

fn round(cluster: &Cluster, fleet: &Fleet, member: &Member, fault: Fault) -> Result<Round> {
    let daemon = other_daemon(cluster, member)?;
    let site = Site {
        host: member.host.clone(),
        expect: member.content.expect().to_owned(),
    };
    let crowd = Crowd::default();
    let (left_s, whole_s) = thread::scope(|scope| {
        scope.spawn(|| crowd.come(&cluster.edges, &site));
        let outcome = (|| {
            thread::sleep(CALM);
            let begun = Instant::now();
            let frozen = wound(daemon, fault)?;
            let left_s = until(begun, || Ok(in_sync(cluster, member)? < 2))?;
            drop(frozen);
            fleet.settle(cluster)?;
            let whole_s = begun.elapsed().as_secs_f64();
            thread::sleep(CALM);
            Ok::<_, anyhow::Error>((left_s, whole_s))
        })();
        crowd.stop.store(true, Ordering::SeqCst);
        outcome
    })?;
    let (took, troubles) = crowd.met.into_inner().unwrap_or_default();
    Ok(Round {
        fault,
        server: member.name.clone(),
        left_s,
        whole_s,
        visits: took.len() + troubles.len(),
        longest_s: took.iter().copied().fold(0.0, f64::max),
        troubles,
    })
}

/// One visit after another, at a pace that shows a gap of a twentieth of a second.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    met: Mutex<(Vec<f64>, Vec<String>)>,
}

impl Crowd {
    fn come(&self, edges: &[SocketAddr], site: &Site) {
        for edge in edges.iter().cycle() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let outcome = visit(*edge, site);
            if let Ok(mut met) = self.met.lock() {
                match outcome {
                    Ok(seconds) => met.0.push(seconds),
                    Err(trouble) => met.1.push(trouble),
                }
            }
            thread::sleep(PACE);
        }
    }
}

/// A daemon that stands still; it goes on when this is dropped.
struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been ended meanwhile: its copy has left.
        let _ = ask("kill", &["-s", "CONT", &self.0.to_string()]);
    }
}

fn wound(daemon: u32, fault: Fault) -> Result<Option<Frozen>> {
    let signal = match fault {
        Fault::Kill => "KILL",
        Fault::Freeze => "STOP",
    };
    ask("kill", &["-s", signal, &daemon.to_string()])?;
    Ok((fault == Fault::Freeze).then_some(Frozen(daemon)))
}

/// The daemon of the copy that is not on the owner's node.
fn other_daemon(cluster: &Cluster, member: &Member) -> Result<u32> {
    let server = shown(cluster, member)?;
    let owner = text(&server, "node").to_owned();
    let copies = server["replicas"].as_array().into_iter().flatten();
    let other = copies.map(|it| text(it, "node")).find(|it| *it != owner);
    let other = other.context("it has no other copy")?.to_owned();
    let nodes = cluster.api().all("/v1/nodes")?;
    let node = nodes.iter().find(|it| text(it, "id") == other);
    let name = text(node.context("its node is gone")?, "name").to_owned();
    let node = cluster.nodes.iter().find(|it| it.name == name);
    let namespace = &node.context("its node is not here")?.namespace;
    let daemons = proc::in_namespace(namespace, "qemu-storage-daemon")?;
    let is_it = |pid: &u32| proc::words(*pid).iter().any(|it| it.contains(&member.id));
    daemons.into_iter().find(is_it).context("no daemon of it")
}

fn shown(cluster: &Cluster, member: &Member) -> Result<Value> {
    cluster.api().get(&format!("/v1/servers/{}", member.id))
}

fn in_sync(cluster: &Cluster, member: &Member) -> Result<usize> {
    let server = shown(cluster, member)?;
    let copies = server["replicas"].as_array().into_iter().flatten();
    Ok(copies.filter(|it| text(it, "state") == "in_sync").count())
}

fn until(begun: Instant, mut is_so: impl FnMut() -> Result<bool>) -> Result<f64> {
    while !is_so()? {
        ensure!(begun.elapsed() < PATIENCE, "the copy does not leave");
        thread::sleep(LOOK);
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn tell(cluster: &Cluster, rounds: &[Round]) -> Result<()> {
    let of = |fault: Fault, what: fn(&Round) -> f64| {
        let ours = rounds.iter().filter(|it| it.fault == fault);
        summary(&ours.map(what).collect::<Vec<_>>())
    };
    let mut rows = Vec::new();
    let mut told = json!({});
    for fault in [Fault::Kill, Fault::Freeze] {
        let parts = [
            ("left_s", of(fault, |it| it.left_s)),
            ("whole_s", of(fault, |it| it.whole_s)),
            ("longest_visit_s", of(fault, |it| it.longest_s)),
        ];
        let mut row = vec![fault.name().to_owned()];
        for (name, sum) in parts {
            row.extend(sum.map(|it| format!("{:.2} / {:.2}", it.p50, it.max)));
            told[fault.name()][name] = json!(sum.map(Summary::rounded));
        }
        rows.push(row);
    }
    table(
        &["the other copy", "left (p50/max)", "whole", "longest visit"],
        &rows,
    );
    let failed: Vec<&String> = rounds.iter().flat_map(|it| &it.troubles).collect();
    let visits: usize = rounds.iter().map(|it| it.visits).sum();
    println!("\n  {visits} visits, {} failed", failed.len());
    told["visits"] = json!(visits);
    told["failed"] = json!(failed.len());
    told["failures"] = json!(failed.iter().take(20).collect::<Vec<_>>());
    let longest = rounds.iter().map(|it| it.longest_s).fold(0.0, f64::max);
    told["longest_visit_s"] = json!(thousandths(longest));
    report::write("copies", &cluster.machine, &told)
}
