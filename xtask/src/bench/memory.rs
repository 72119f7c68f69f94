//! `bench memory`: what every program of ours holds after some time of use, and what QEMU holds
//! beyond its guest's memory. Visitors come all the while.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::text;
use super::cluster::Cluster;
use super::flags::Flags;
use super::report::{self, table};
use super::stats::summary;
use super::{ground, load, proc, tar};
use crate::up::{self, supervise};

/// How often the processes are looked at.
const SAMPLE: Duration = Duration::from_secs(10);
/// One visitor in this time.
const VISIT: Duration = Duration::from_millis(500);

/// One process.
struct Process {
    kind: &'static str,
    name: String,
    now: proc::Memory,
    most_rss_kib: u64,
}

/// One VM.
struct Vm {
    name: String,
    guest_mib: u64,
    now: proc::Qemu,
}

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments, &["minutes"], &[])?;
    let minutes: f64 = flags.number("minutes", 60.0)?;
    ensure!(
        (0.0..=10_000.0).contains(&minutes),
        "--minutes takes minutes"
    );
    let cluster = Cluster::open()?;
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut seen: BTreeMap<String, Process> = BTreeMap::new();
    let (mut visits, mut failed) = (0usize, 0usize);
    let mut next_sample = Instant::now();
    println!("visitors come for {minutes} minutes");
    while Instant::now() < until {
        if let Some(site) = cluster.sites.get(visits % cluster.sites.len().max(1)) {
            let edge = cluster.edges[visits % cluster.edges.len()];
            failed += usize::from(load::visit(edge, site).is_err());
        }
        visits += 1;
        if Instant::now() >= next_sample {
            look(&cluster, &mut seen)?;
            next_sample += SAMPLE;
        }
        thread::sleep(VISIT);
    }
    look(&cluster, &mut seen)?;
    let vms = vms(&cluster)?;
    let inside = match inside(&cluster) {
        Ok(inside) => inside,
        Err(error) => json!({ "not_measured": format!("{error:#}") }),
    };
    let load = json!({ "visits": visits, "failed": failed, "minutes": minutes });
    tell(&cluster, &seen, &vms, &inside, &load)
}

fn kind_of(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("control-") => "control",
        _ if name.starts_with("edge-") => "edge",
        _ if name.ends_with("-agent") => "node agent",
        _ if name.ends_with("-guard") => "guard",
        _ => "other",
    }
}

/// Looks at every process; one that was restarted counts as the one with its name.
fn look(cluster: &Cluster, seen: &mut BTreeMap<String, Process>) -> Result<()> {
    let mut pids: Vec<(&'static str, String, u32)> = supervise::plan()
        .into_iter()
        .filter(|process| kind_of(&process.name) != "other")
        .filter_map(|process| {
            let pid = supervise::pid(&process.name)?;
            Some((kind_of(&process.name), process.name, pid))
        })
        .collect();
    for node in &cluster.nodes {
        for pid in proc::in_namespace(&node.namespace, "qemu-storage-daemon")? {
            pids.push((
                "storage daemon",
                format!("storage daemon {pid} on {}", node.name),
                pid,
            ));
        }
    }
    for (kind, name, pid) in pids {
        let Some(now) = proc::memory(pid) else {
            continue;
        };
        let process = seen.entry(name.clone()).or_insert(Process {
            kind,
            name,
            now,
            most_rss_kib: 0,
        });
        process.now = now;
        process.most_rss_kib = process.most_rss_kib.max(now.rss_kib);
    }
    Ok(())
}

fn vms(cluster: &Cluster) -> Result<Vec<Vm>> {
    let mut vms = Vec::new();
    for node in &cluster.nodes {
        for pid in proc::in_namespace(&node.namespace, "qemu-system-x86_64")? {
            let words = proc::words(pid);
            let guest_mib = proc::option(&words, "-m").and_then(|text| text.parse().ok());
            let name = proc::option(&words, "-name").unwrap_or("");
            let name = name.split(',').next().unwrap_or("").to_owned();
            if let Some(guest_mib) = guest_mib
                && let Some(now) = proc::qemu(pid, guest_mib)
            {
                vms.push(Vm {
                    name,
                    guest_mib,
                    now,
                });
            }
        }
    }
    Ok(vms)
}

/// Reads the memory of everything inside of a server, the guest agent among it, by a PHP site
/// that looks at `/proc`.
fn inside(cluster: &Cluster) -> Result<Value> {
    const LOOK: &str = "<?php $words = ['/bin/cat'];
for ($pid = 1; $pid < 3000; $pid++) $words[] = \"/proc/$pid/status\";
$pipes = [];
proc_open($words, [1 => ['pipe', 'w'], 2 => ['file', '/dev/null', 'w']], $pipes);
echo stream_get_contents($pipes[1]);";
    let api = cluster.api();
    ground::account(api)?;
    let servers = api.all("/v1/servers")?;
    let server = servers
        .iter()
        .find(|it| text(it, "profile") == "web-php" && text(it, "state") == "running");
    let Some(server) = server else {
        anyhow::bail!("no server with PHP runs");
    };
    let host = format!("look-{}.{}", &up::secret()?[..6], cluster.domain);
    let made = api.post("/v1/sites", &ground::site(&host, text(server, "id"), "php"))?;
    let site = format!("/v1/sites/{}", text(&made["site"], "id"));
    api.wait(&made, ground::BOOT)?;
    let archive = tar::archive(&[("index.php", LOOK.as_bytes())]);
    let hash: String = Sha256::digest(&archive)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = format!("{site}/releases?format=tar&sha256={hash}&activate=true");
    let sent = api.upload(&path, "application/octet-stream", &archive)?;
    api.wait(&sent, ground::BOOT)?;
    cluster.first_answer(&host, "Name:", Instant::now())?;
    let page = super::wire::get(cluster.edge(), &host, "/", Duration::from_secs(60))?;
    let removed = api.delete(&site)?;
    api.wait(&removed, ground::BOOT)?;
    let mut largest: Vec<(String, u64)> = proc::statuses(&page.text()).into_iter().collect();
    let agent = largest
        .iter()
        .find(|(name, _)| name.starts_with("undine-guest"))
        .map(|(_, kib)| *kib);
    largest.sort_by_key(|(_, kib)| std::cmp::Reverse(*kib));
    largest.truncate(12);
    Ok(
        json!({ "server": text(server, "name"), "guest_agent_rss_kib": agent, "largest_rss_kib": largest }),
    )
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

fn tell(
    cluster: &Cluster,
    seen: &BTreeMap<String, Process>,
    vms: &[Vm],
    inside: &Value,
    load: &Value,
) -> Result<()> {
    let rows: Vec<Vec<String>> = seen
        .values()
        .map(|it| {
            vec![
                it.name.clone(),
                mib(it.now.rss_kib),
                mib(it.now.pss_kib),
                mib(it.now.anonymous_kib),
                mib(it.most_rss_kib),
            ]
        })
        .collect();
    table(&["MiB", "RSS", "PSS", "anonymous", "most RSS"], &rows);
    let rows: Vec<Vec<String>> = vms
        .iter()
        .map(|vm| {
            vec![
                vm.name.clone(),
                vm.guest_mib.to_string(),
                mib(vm.now.guest_rss_kib),
                mib(vm.now.overhead_rss_kib),
                mib(vm.now.overhead_pss_kib),
            ]
        })
        .collect();
    table(
        &["VM, MiB", "has", "uses", "QEMU beyond it, RSS", "PSS"],
        &rows,
    );
    if let Some(kib) = inside["guest_agent_rss_kib"].as_u64() {
        println!(
            "\n  guest agent, inside of {}: {} MiB",
            text(inside, "server"),
            mib(kib)
        );
    }
    let processes: Vec<Value> = seen
        .values()
        .map(|it| {
            json!({
                "name": it.name, "kind": it.kind, "memory": it.now, "most_rss_kib": it.most_rss_kib,
            })
        })
        .collect();
    let vms: Vec<Value> = vms
        .iter()
        .map(|vm| json!({ "name": vm.name, "guest_mib": vm.guest_mib, "memory": vm.now }))
        .collect();
    let result = json!({
        "load": load, "by_kind": by_kind(seen), "processes": processes, "vms": vms, "inside": inside,
    });
    report::write("memory", &cluster.machine, &result)
}

/// What each kind of program holds, in MiB.
fn by_kind(seen: &BTreeMap<String, Process>) -> Value {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for it in seen.values() {
        let rss = it.now.rss_kib as f64 / 1024.0;
        kinds.entry(it.kind).or_default().push(rss);
    }
    let kinds = kinds
        .into_iter()
        .filter_map(|(kind, all)| Some((kind.to_owned(), json!(summary(&all)?.rounded()))));
    json!({ "rss_mib": kinds.collect::<serde_json::Map<_, _>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_by_their_names() {
        for (name, kind) in [
            ("control-2", "control"),
            ("node-1-agent", "node agent"),
            ("node-1-guard", "guard"),
            ("edge-1", "edge"),
            ("postgres", "other"),
        ] {
            assert_eq!(kind_of(name), kind);
        }
    }
}
