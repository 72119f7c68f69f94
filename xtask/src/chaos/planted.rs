//! `chaos --plant MISTAKE`: one mistake is put into real programs on purpose, and something is
//! broken that only it turns into a loss. The judge has to see it; one that does not is blind.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Chaos;
use super::faults::{self, Wound};
use super::plan::{Fault, Program};
use super::power;
use crate::bench::api::text;
use crate::bench::cluster::{Cluster, Node};
use crate::bench::proc;
use crate::command::ask;
use crate::machine;
use crate::trial::fleet::{Content, Member};
use crate::up::{layout, postgres};

/// Visitors write so long while something is wrong.
const WRITING: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);
/// The feature of the agent that has the mistake.
const MISTAKE: &str = "planted-threshold";
const ASK: Duration = Duration::from_millis(200);

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Disks do not flush (`cache.no-flush=on`) from a loss of power on; then all nodes lose it
    /// again.
    NoFlush,
    /// One copy's word is enough for a write (threshold 1); then the owner dies, whose agent stood
    /// still while the other copy failed.
    Threshold,
    /// A copy that left is taken for one in sync; then the owner dies.
    StalePromoted,
}

impl FromStr for Plant {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "no-flush" => Self::NoFlush,
            "threshold-1" => Self::Threshold,
            "stale-promoted" => Self::StalePromoted,
            _ => bail!("--plant takes no-flush, threshold-1 or stale-promoted, not `{text}`"),
        })
    }
}

impl Plant {
    /// Puts the mistake into the programs; what `up` is told for it.
    pub fn prepare(self) -> Result<Vec<String>> {
        match self {
            Self::Threshold => {
                let folder = layout::target().join("planted");
                let place = folder.display().to_string();
                println!("building an agent with the mistake");
                let words = ["build", "--package", "undine-node", "--features", MISTAKE];
                machine::cargo(&[&words[..], &["--target-dir", &place]].concat())?;
                let agent = folder.join("debug/undine-node").display().to_string();
                Ok(vec!["--agent".to_owned(), agent])
            }
            Self::NoFlush | Self::StalePromoted => Ok(Vec::new()),
        }
    }

    /// Breaks what turns it into a loss.
    pub(super) fn bring_out(self, chaos: &mut Chaos<'_>) -> Result<()> {
        std::thread::sleep(WRITING);
        match self {
            Self::NoFlush => no_flush(chaos)?,
            Self::Threshold => threshold(chaos)?,
            Self::StalePromoted => stale_promoted(chaos)?,
        }
        chaos.wait_for_answers()
    }
}

/// Where a server's two copies are: its owner's place among the nodes, and the other one's.
struct Places {
    owner: usize,
    other: usize,
}

fn places(cluster: &Cluster, member: &Member) -> Result<Places> {
    let api = cluster.api();
    let nodes = api.all("/v1/nodes")?;
    let at = |id: &str| {
        let node = nodes.iter().find(|node| text(node, "id") == id)?;
        let place = |it: &Node| it.name == text(node, "name");
        cluster.nodes.iter().position(place)
    };
    let server = server(cluster, member)?;
    let owner = text(&server, "node");
    let copies = server["replicas"].as_array().into_iter().flatten();
    let other = copies.map(|it| text(it, "node")).find(|it| *it != owner);
    Ok(Places {
        owner: at(owner).context("its owner is not here")?,
        other: other.and_then(at).context("it has no other copy")?,
    })
}

fn server(cluster: &Cluster, member: &Member) -> Result<Value> {
    cluster.api().get(&format!("/v1/servers/{}", member.id))
}

fn state_of_other(cluster: &Cluster, member: &Member) -> Result<String> {
    let server = server(cluster, member)?;
    let owner = text(&server, "node").to_owned();
    let copies = server["replicas"].as_array().into_iter().flatten();
    let other = copies.into_iter().find(|it| text(it, "node") != owner);
    Ok(text(other.context("it has no other copy")?, "state").to_owned())
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(ASK);
    }
    Ok(())
}

/// A program's server: its session and its files are what visitors write.
fn victim<'f>(chaos: &Chaos<'f>) -> Result<&'f Member> {
    let mut members = chaos.fleet.members.iter();
    let found = members.find(|it| it.content == Content::Php);
    found.context("no server with a program")
}

fn freeze(chaos: &mut Chaos<'_>, program: Program, at: usize) -> Result<Wound> {
    let wound = chaos.inflict(Fault::Freeze(program, at))?;
    wound.context("nothing to freeze")
}

/// The first loss of power restarts all daemons, on images that are whole; from then on nothing is
/// flushed, and the second one takes what visitors wrote in between.
fn no_flush(chaos: &mut Chaos<'_>) -> Result<()> {
    power::never_flush()?;
    lose_power(chaos)?;
    chaos.wait_for_answers()?;
    chaos.fleet.settle(chaos.cluster)?;
    std::thread::sleep(WRITING);
    lose_power(chaos)
}

fn lose_power(chaos: &mut Chaos<'_>) -> Result<()> {
    let wound = chaos.inflict(Fault::Blackout(1))?;
    std::thread::sleep(Duration::from_secs(3));
    drop(wound);
    Ok(())
}

/// Both agents stand still, so that nobody hears of the failure; the other copy's daemon dies. A
/// right disk stands still; this one goes on, with writes that only the owner's copy has.
fn threshold(chaos: &mut Chaos<'_>) -> Result<()> {
    let member = victim(chaos)?;
    let at = places(chaos.cluster, member)?;
    let agents = [
        freeze(chaos, Program::Agent, at.owner)?,
        freeze(chaos, Program::Agent, at.other)?,
    ];
    let namespace = &chaos.cluster.nodes[at.other].namespace;
    for pid in proc::in_namespace(namespace, "qemu-storage-daemon")? {
        if proc::words(pid).iter().any(|it| it.contains(&member.id)) {
            println!("  the other copy of {}: its daemon dies", member.name);
            ask("kill", &["-s", "KILL", &pid.to_string()])?;
        }
    }
    std::thread::sleep(WRITING);
    let dead = faults::inflict(chaos.cluster, Fault::KillNode(at.owner))?;
    let [_, other] = agents;
    drop(other);
    chaos.wait_for_answers()?;
    drop(dead);
    Ok(())
}

/// The other copy's node is cut off until its copy has left, and comes back while the owner's agent
/// stands still, so that it is not filled; then the record is falsified, and the owner dies.
fn stale_promoted(chaos: &mut Chaos<'_>) -> Result<()> {
    let member = victim(chaos)?;
    let at = places(chaos.cluster, member)?;
    let cluster = chaos.cluster;
    let cut = chaos.inflict(Fault::CutLink(at.other))?;
    until("the copy has left", || {
        Ok(state_of_other(cluster, member)? == "stale")
    })?;
    std::thread::sleep(WRITING);
    let agent = freeze(chaos, Program::Agent, at.owner)?;
    drop(cut);
    let name = cluster.nodes[at.other].name.clone();
    until("the node is back", || {
        let nodes = cluster.api().all("/v1/nodes")?;
        let is_back = |it: &Value| text(it, "name") == name && text(it, "state") == "ready";
        Ok(nodes.iter().any(is_back))
    })?;
    println!("  the record is falsified: the copy on {name} counts as in sync");
    let lie = format!(
        "UPDATE replicas SET state = 'in_sync' WHERE server = '{}' AND state IN ('stale', 'syncing')",
        member.id
    );
    ask("psql", &[&postgres::url(), "-c", &lie])?;
    let dead = chaos.inflict(Fault::KillNode(at.owner))?;
    drop(agent);
    chaos.wait_for_answers()?;
    drop(dead);
    Ok(())
}
