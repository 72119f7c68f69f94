//! `bench survival`: what visitors and operations notice when programs are killed with -9.
//!
//! The supervisor is held still while control or an edge is to stay away; whatever happens, it
//! goes on afterwards and starts them again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::api::{operation_id, text};
use super::cluster::Cluster;
use super::flags::Flags;
use super::load::{Visits, visits};
use super::report::{self, table};
use super::stats::thousandths;
use super::{ground, proc, wire};
use crate::up::supervise;

const BACK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// One thing that was killed, and what came of it.
struct Case {
    what: String,
    visits: Option<Visits>,
    told: String,
    well: bool,
    more: Value,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["requests"], &[])?;
    let requests = flags.number("requests", 500)?;
    let cluster = Cluster::open()?;
    ensure!(
        !cluster.sites.is_empty(),
        "the cluster has no demo sites to visit"
    );
    ground::sweep(cluster.api())?;
    let before = visits(&cluster.edges, &cluster.sites, cluster.sites.len() * 4);
    ensure!(
        before.failed == 0,
        "the sites fail before anything is killed: {}",
        before.troubles.join("; ")
    );
    let mut cases = vec![
        control_away(&cluster, requests)?,
        operation_goes_on(&cluster)?,
    ];
    if cluster.instances.len() > 1 {
        cases.push(another_ends_it(&cluster)?);
    }
    cases.push(agents(&cluster, requests)?);
    if cluster.edges.len() > 1 {
        cases.push(edge_away(&cluster, requests)?);
    }
    ground::sweep(cluster.api())?;
    tell(&cluster, &cases)
}

/// Holds the supervisor still; it goes on when this is dropped.
struct Still(supervise::Started);

impl Still {
    fn hold() -> Result<Self> {
        let supervisor = supervise::started("supervisor")
            .filter(supervise::Started::is_alive)
            .context("no supervisor runs")?;
        supervisor.signal("STOP");
        Ok(Self(supervisor))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

/// Kills with -9 whatever runs under these names; answers how many.
fn kill(names: &[String]) -> Result<usize> {
    let running: Vec<_> = names
        .iter()
        .filter_map(|name| supervise::started(name))
        .filter(supervise::Started::is_alive)
        .collect();
    for process in &running {
        process.signal("KILL");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while running.iter().any(supervise::Started::is_alive) {
        ensure!(Instant::now() < deadline, "a killed process will not end");
        thread::sleep(LOOK);
    }
    Ok(running.len())
}

fn instances(cluster: &Cluster) -> Vec<String> {
    (1..=cluster.instances.len())
        .map(|index| format!("control-{index}"))
        .collect()
}

fn control_away(cluster: &Cluster, requests: usize) -> Result<Case> {
    println!("all instances of control are killed; {requests} visitors come");
    let still = Still::hold()?;
    let killed = kill(&instances(cluster))?;
    let begun = Instant::now();
    let met = visits(&cluster.edges, &cluster.sites, requests);
    let away = begun.elapsed();
    ensure!(
        !cluster.instances.iter().any(super::api::Api::is_up),
        "control came back by itself; this shows nothing"
    );
    drop(still);
    let back = cluster.wait_for_control(BACK)?;
    Ok(Case {
        what: format!(
            "control away for {:.0} s ({killed} killed)",
            away.as_secs_f64()
        ),
        well: met.failed == 0,
        told: format!("back after {:.1} s", back.as_secs_f64()),
        visits: Some(met),
        more: json!({
            "killed": killed,
            "away_s": thousandths(away.as_secs_f64()),
            "back_after_s": thousandths(back.as_secs_f64()),
        }),
    })
}

/// A server's making is under way when every instance dies.
fn operation_goes_on(cluster: &Cluster) -> Result<Case> {
    println!("all instances of control are killed while a server is being made");
    let made = under_way(cluster, "bench-survivor")?;
    let still = Still::hold()?;
    let killed = kill(&instances(cluster))?;
    thread::sleep(Duration::from_secs(3));
    drop(still);
    cluster.wait_for_control(BACK)?;
    let begun = Instant::now();
    let ended = cluster.api().wait(&made, ground::BOOT)?;
    let took = begun.elapsed().as_secs_f64();
    Ok(Case {
        what: format!("an operation in progress, control killed ({killed})"),
        visits: None,
        told: format!("{} after {took:.1} s more", text(&ended, "state")),
        well: true,
        more: json!({ "operation": text(&ended, "kind"), "done_after_s": thousandths(took) }),
    })
}

/// Makes a server; answers when its boot has begun.
fn under_way(cluster: &Cluster, name: &str) -> Result<Value> {
    let api = cluster.api();
    let wish = json!({ "name": name, "profile": "static", "template": false });
    let made = api.post("/v1/servers", &wish)?;
    let path = format!("/v1/operations/{}", operation_id(&made));
    let deadline = Instant::now() + ground::BOOT;
    loop {
        let operation = api.get(&path)?;
        let steps = operation["steps"].as_array().into_iter().flatten();
        let boots = steps
            .filter(|step| text(step, "name") == "boot")
            .any(|step| text(step, "state") == "running");
        if boots {
            return Ok(made);
        }
        if text(&operation, "state") == "failed" || Instant::now() > deadline {
            bail!(
                "the boot of {name} did not begin: {}",
                text(&operation, "progress")
            );
        }
        thread::sleep(LOOK);
    }
}

/// The instance that works on an operation dies; another one ends it.
fn another_ends_it(cluster: &Cluster) -> Result<Case> {
    println!("the instance that works on an operation is killed; the others stay");
    let made = under_way(cluster, "bench-taken-over")?;
    let path = format!("/v1/operations/{}", operation_id(&made));
    let owner = text(&cluster.api().get(&path)?, "owner").to_owned();
    let known = cluster.api().all("/v1/instances")?;
    let name = known
        .iter()
        .find(|instance| text(instance, "id") == owner)
        .map(|instance| text(instance, "name").to_owned())
        .with_context(|| format!("no instance is {owner}"))?;
    let still = Still::hold()?;
    kill(std::slice::from_ref(&name))?;
    let other = cluster
        .instances
        .iter()
        .find(|api| api.is_up())
        .context("no other instance answers")?;
    let begun = Instant::now();
    let ended = other.wait(&made, ground::BOOT)?;
    let took = begun.elapsed().as_secs_f64();
    let met = visits(&cluster.edges, &cluster.sites, cluster.sites.len() * 4);
    drop(still);
    cluster.wait_for_control(BACK)?;
    Ok(Case {
        what: format!("{name}, which worked on an operation"),
        told: format!("{} by another after {took:.1} s", text(&ended, "state")),
        well: met.failed == 0 && text(&ended, "owner") != owner,
        visits: Some(met),
        more: json!({ "done_after_s": thousandths(took) }),
    })
}

fn vms(cluster: &Cluster) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for node in &cluster.nodes {
        all.extend(proc::in_namespace(&node.namespace, "qemu-system-x86_64")?);
    }
    all.sort_unstable();
    Ok(all)
}

/// Every node's agent dies and is started again; its VMs are the same processes as before.
fn agents(cluster: &Cluster, requests: usize) -> Result<Case> {
    println!("every node's agent is killed; {requests} visitors come");
    let names: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("{}-agent", node.name))
        .collect();
    let before = vms(cluster)?;
    let old: Vec<_> = names.iter().map(|name| supervise::started(name)).collect();
    let killed = kill(&names)?;
    let met = visits(&cluster.edges, &cluster.sites, requests);
    let deadline = Instant::now() + BACK;
    let is_new = |(name, old): (&String, &Option<supervise::Started>)| {
        supervise::started(name).is_some_and(|now| now.is_alive() && Some(&now) != old.as_ref())
    };
    while !names.iter().zip(&old).all(is_new) {
        ensure!(Instant::now() < deadline, "an agent does not come back");
        thread::sleep(LOOK);
    }
    thread::sleep(Duration::from_secs(5));
    let after = vms(cluster)?;
    let same = before == after;
    Ok(Case {
        what: format!("node agents ({killed} killed)"),
        told: format!(
            "{} VMs, {}",
            before.len(),
            if same { "the same" } else { "not the same" }
        ),
        well: met.failed == 0 && same,
        visits: Some(met),
        more: json!({ "killed": killed, "vms_before": before, "vms_after": after, "same_vms": same }),
    })
}

fn edge_away(cluster: &Cluster, requests: usize) -> Result<Case> {
    println!("the first edge is killed; {requests} visitors come by the others");
    let still = Still::hold()?;
    kill(&["edge-1".to_owned()])?;
    let met = visits(&cluster.edges[1..], &cluster.sites, requests);
    let gone = std::net::TcpStream::connect_timeout(&cluster.edge(), Duration::from_secs(2));
    drop(still);
    let begun = Instant::now();
    let panel = format!("panel.{}", cluster.domain);
    while !wire::get(cluster.edge(), &panel, "/healthz", Duration::from_secs(5))
        .is_ok_and(|answer| answer.status == 200)
    {
        ensure!(begun.elapsed() < BACK, "the edge does not come back");
        thread::sleep(LOOK);
    }
    let back = begun.elapsed().as_secs_f64();
    Ok(Case {
        what: "an edge, visitors at the other".to_owned(),
        told: format!("back after {back:.1} s"),
        well: met.failed == 0 && gone.is_err(),
        visits: Some(met),
        more: json!({ "back_after_s": thousandths(back) }),
    })
}

fn tell(cluster: &Cluster, cases: &[Case]) -> Result<()> {
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            let met = case.visits.as_ref();
            vec![
                case.what.clone(),
                met.map_or_else(String::new, |it| it.requests.to_string()),
                met.map_or_else(String::new, |it| it.failed.to_string()),
                case.told.clone(),
                if case.well { "well" } else { "NOT WELL" }.to_owned(),
            ]
        })
        .collect();
    table(&["killed with -9", "requests", "failed", "then", ""], &rows);
    for trouble in cases
        .iter()
        .filter_map(|case| case.visits.as_ref())
        .flat_map(|met| &met.troubles)
    {
        println!("  {trouble}");
    }
    let list: Vec<Value> = cases
        .iter()
        .map(|case| {
            json!({
                "killed": case.what, "well": case.well, "then": case.told, "more": case.more,
                "visits": case.visits.as_ref().map(Visits::json),
            })
        })
        .collect();
    report::write("survival", &cluster.machine, &json!({ "cases": list }))
}
