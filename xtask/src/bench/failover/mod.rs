//! `bench failover`: a whole node is killed while visitors come; how long until each of its servers
//! answers again, in phases, and whether anything that was acknowledged is lost.
//!
//! A round: the node whose servers were measured least dies (every process of its namespace at
//! once, -9) and stays dead until its servers answer elsewhere; then it comes back, and the round
//! ends when every copy is in sync again and the nodes have made the spares that they can within two
//! minutes. Visitors go on through all rounds.

mod phases;
mod spares;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::api::text;
use super::cluster::{Cluster, Node};
use super::flags::Flags;
use super::report;
use crate::trial::crowd::{Crowd, Held};
use crate::trial::fleet::{Content, Fleet, Member};
use crate::trial::journal::Journal;
use crate::trial::nodes;
use crate::up::layout;
use phases::{Phases, first_right};

/// A server answers again within this, or the bench ends.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);
/// Visitors come for so long before the first node dies, and between two rounds.
const CALM: Duration = Duration::from_secs(5);

/// One server that came up elsewhere.
struct Recovery {
    content: Content,
    server: String,
    round: usize,
    phases: Phases,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["rounds"], &[])?;
    let rounds: usize = flags.number("rounds", 20)?;
    ensure!(rounds > 0, "--rounds takes at least 1");
    let cluster = Cluster::open_or(&["--detach", "--no-demo"])?;
    ensure!(
        cluster.nodes.len() >= 3,
        "three nodes are needed; see `up --nodes`"
    );
    let fleet = Fleet::ensure(&cluster)?;
    let took = fleet.settle(&cluster)?;
    println!("six servers run, every copy in sync after {took:.1} s");
    spares::wait(&cluster.nodes)?;
    let bench = Bench {
        journal: Arc::new(Journal::default()),
        cluster: &cluster,
        fleet: &fleet,
    };
    bench.measure(rounds)
}

struct Bench<'a> {
    cluster: &'a Cluster,
    fleet: &'a Fleet,
    journal: Arc<Journal>,
}

impl Bench<'_> {
    fn measure(&self, rounds: usize) -> Result<()> {
        let crowd = Crowd::gather(&self.cluster.edges, self.fleet, &self.journal);
        let (mut all, mut resync_s, mut trouble) = (Vec::new(), Vec::new(), None);
        for round in 1..=rounds {
            std::thread::sleep(CALM);
            match self.round(round, &mut all) {
                Ok(took) => resync_s.push(took),
                Err(error) => {
                    // What is known so far is told, whatever came of this one.
                    trouble = Some(error.context(format!("round {round}")));
                    break;
                }
            }
        }
        let found = crowd.dismiss().and_then(Held::all);
        let log = self.journal.log(|log| log.clone());
        let result = told::result(&all, &resync_s, &log, found.as_deref().unwrap_or_default());
        told::print(&result);
        report::write("failover", &self.cluster.machine, &result)?;
        match trouble {
            Some(error) => Err(error),
            None => found.map(drop),
        }
    }

    fn round(&self, round: usize, all: &mut Vec<Recovery>) -> Result<f64> {
        let standing = self.fleet.standing(self.cluster.api())?;
        let (node, id) = self.victim(&standing, all)?;
        let hit: Vec<&Member> = self
            .fleet
            .members
            .iter()
            .zip(&standing)
            .filter(|(_, server)| text(server, "node") == id)
            .map(|(member, _)| member)
            .collect();
        let dead = nodes::kill(node)?;
        println!(
            "round {round}: {} dies with {} processes and {} of the servers",
            node.name,
            dead.killed,
            hit.len()
        );
        for (member, operation) in hit.iter().zip(self.recovered(&hit, dead.at_ms)?) {
            let start = self.start_report(member);
            let answered_ms = self.answered(member, dead.at_ms).context("no answer")?;
            let phases = Phases::of(dead.at_ms, &operation, &start, answered_ms);
            println!("  {:15} {}", member.name, phases.line());
            all.push(Recovery {
                content: member.content,
                server: member.name.clone(),
                round,
                phases,
            });
        }
        drop(dead);
        let took = self.fleet.settle(self.cluster)?;
        println!("  every copy is in sync {took:.1} s after the node may come back");
        spares::wait(&self.cluster.nodes)?;
        Ok(took)
    }

    /// The node that owns the servers whose kinds were measured least, among those that own no more
    /// than an even share, if there are such: servers do not go back by themselves, and with most
    /// of them on one node its death would measure little but how they share what is left.
    fn victim(&self, standing: &[Value], all: &[Recovery]) -> Result<(&Node, String)> {
        let nodes = self.cluster.api().all("/v1/nodes")?;
        let seen = |content: Content| all.iter().filter(|it| it.content == content).count();
        let rarity = |id: &str| {
            let here = self.fleet.members.iter().zip(standing);
            here.filter(|(_, server)| text(server, "node") == id)
                .map(|(member, _)| 1.0 / (1 + seen(member.content)) as f64)
                .sum::<f64>()
        };
        let owned = |id: &str| standing.iter().filter(|it| text(it, "node") == id).count();
        let share = standing.len().div_ceil(nodes.len());
        let rank = |node: &Value| {
            let id = text(node, "id");
            (owned(id) <= share, rarity(id))
        };
        let best = nodes
            .iter()
            .filter(|node| owned(text(node, "id")) > 0)
            .max_by(|one, other| {
                let (one, other) = (rank(one), rank(other));
                one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
            })
            .context("no node has a server")?;
        let place = self.cluster.nodes.iter();
        let node = place.clone().find(|it| it.name == text(best, "name"));
        let node =
            node.with_context(|| format!("{} is not on this machine", text(best, "name")))?;
        Ok((node, text(best, "id").to_owned()))
    }

    /// Waits until all of these answer again; the operation that brought each up.
    fn recovered(&self, hit: &[&Member], killed_ms: u64) -> Result<Vec<Value>> {
        let begun = Instant::now();
        loop {
            let waiting: Vec<&str> = hit
                .iter()
                .filter(|member| self.answered(member, killed_ms).is_none())
                .map(|member| member.name.as_str())
                .collect();
            if waiting.is_empty() {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let after = PATIENCE.as_secs();
                bail!("{} do not answer after {after} s", waiting.join(", "));
            }
            std::thread::sleep(LOOK);
        }
        let operations = self.cluster.api().get("/v1/operations?limit=200")?;
        let operations = operations["items"].as_array().cloned().unwrap_or_default();
        hit.iter()
            .map(|member| {
                let ours = |it: &&Value| phases::is_failover(it, &member.id, killed_ms);
                let found = operations.iter().find(ours).cloned();
                found.with_context(|| format!("{} came up by no fail-over", member.name))
            })
            .collect()
    }

    /// When the first visitor who came after the kill was answered rightly.
    fn answered(&self, member: &Member, killed_ms: u64) -> Option<u64> {
        self.journal
            .log(|log| first_right(&log.reads, &member.host, killed_ms))
    }

    /// What the node that has it now says of its start; null when it says nothing.
    fn start_report(&self, member: &Member) -> Value {
        let read = || -> Result<Value> {
            let api = self.cluster.api();
            let server = api.get(&format!("/v1/servers/{}", member.id))?;
            let node = api.get(&format!("/v1/nodes/{}", text(&server, "node")))?;
            let folder = layout::state(text(&node, "name")).join("servers");
            let bytes = std::fs::read(folder.join(&member.id).join("state.json"))?;
            Ok(serde_json::from_slice::<Value>(&bytes)?["start"].take())
        };
        read().unwrap_or(json!(null))
    }
}
