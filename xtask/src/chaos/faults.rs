//! Breaking things in earnest: signals, cables, rules, a full disk. Whatever is broken heals when
//! its wound is dropped, also when the trial breaks off.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::plan::{Fault, Program};
use super::power;
use crate::bench::cluster::{Cluster, Node};
use crate::command::ask;
use crate::trial::nodes::{self, Dead};
use crate::up::{layout, supervise};

/// Something that is broken.
pub struct Wound {
    /// What it is, in words.
    pub what: String,
    heal: Vec<Heal>,
}

impl Wound {
    /// What heals it, for a greater wound that it is part of.
    fn into_heal(mut self) -> Vec<Heal> {
        std::mem::take(&mut self.heal)
    }
}

enum Heal {
    Continue(u32),
    Command(Vec<String>),
    Remove(PathBuf),
    Revive { _dead: Dead },
}

impl Drop for Wound {
    fn drop(&mut self) {
        for heal in self.heal.drain(..) {
            match heal {
                Heal::Continue(pid) => drop(ask("kill", &["-s", "CONT", &pid.to_string()])),
                Heal::Command(words) => {
                    let rest: Vec<&str> = words[1..].iter().map(String::as_str).collect();
                    if let Err(error) = ask(&words[0], &rest) {
                        println!("  could not be healed: {error:#}");
                    }
                }
                Heal::Remove(path) => drop(std::fs::remove_file(path)),
                // It comes back by being dropped.
                Heal::Revive { .. } => {}
            }
        }
    }
}

/// Breaks something; none when there is nothing of the kind now.
pub fn inflict(cluster: &Cluster, fault: Fault) -> Result<Option<Wound>> {
    let node = |at: usize| &cluster.nodes[at % cluster.nodes.len()];
    match fault {
        Fault::Kill(program, at) => process(cluster, program, at, "KILL"),
        Fault::Freeze(program, at) => process(cluster, program, at, "STOP"),
        Fault::KillNode(at) => kill_node(node(at)).map(Some),
        Fault::LosePower(at, seed) => lose_power(&[node(at)], seed).map(Some),
        Fault::Blackout(seed) => {
            let all: Vec<&Node> = cluster.nodes.iter().collect();
            lose_power(&all, seed).map(Some)
        }
        Fault::CutLink(at) => cut_link(node(at)).map(Some),
        Fault::CutOut(at) => cut_one_way(node(at), true).map(Some),
        Fault::CutIn(at) => cut_one_way(node(at), false).map(Some),
        Fault::FillDisk(at) => fill_disk(node(at)).map(Some),
    }
}

fn process(cluster: &Cluster, program: Program, at: usize, signal: &str) -> Result<Option<Wound>> {
    let Some((name, pid)) = find(cluster, program, at)? else {
        return Ok(None);
    };
    ask("kill", &["-s", signal, &pid.to_string()])?;
    let heal = match signal {
        "STOP" => vec![Heal::Continue(pid)],
        _ => Vec::new(),
    };
    Ok(Some(Wound {
        what: format!("{name}, process {pid}: {signal}"),
        heal,
    }))
}

fn find(cluster: &Cluster, program: Program, at: usize) -> Result<Option<(String, u32)>> {
    let kept = |names: Vec<String>| {
        let alive = names.into_iter().filter_map(|name| {
            let pid = supervise::pid(&name)?;
            Some((name, pid))
        });
        Ok(nth(alive.collect(), at))
    };
    let parts = |part: &str| {
        let nodes = cluster.nodes.iter();
        nodes.map(|node| format!("{}-{part}", node.name)).collect()
    };
    let numbered =
        |name: &str, count: usize| (1..=count).map(|it| format!("{name}-{it}")).collect();
    match program {
        Program::Qemu => inside(cluster, "qemu-system-x86_64", at),
        Program::Storage => inside(cluster, "qemu-storage-daemon", at),
        Program::Agent => kept(parts("agent")),
        Program::Guard => kept(parts("guard")),
        Program::Control => kept(numbered("control", cluster.instances.len())),
        Program::Edge => kept(numbered("edge", cluster.edges.len())),
        Program::Postgres => kept(vec!["postgres".to_owned()]),
    }
}

fn nth<T>(mut all: Vec<T>, at: usize) -> Option<T> {
    let count = all.len();
    (count > 0).then(|| all.swap_remove(at % count))
}

fn inside(cluster: &Cluster, program: &str, at: usize) -> Result<Option<(String, u32)>> {
    let mut all = Vec::new();
    for node in &cluster.nodes {
        let pids = crate::bench::proc::in_namespace(&node.namespace, program)?;
        all.extend(
            pids.into_iter()
                .map(|pid| (format!("{program} on {}", node.name), pid)),
        );
    }
    Ok(nth(all, at))
}

fn kill_node(node: &Node) -> Result<Wound> {
    let dead = nodes::kill(node)?;
    Ok(Wound {
        what: format!("{}: {} processes killed", node.name, dead.killed),
        heal: vec![Heal::Revive { _dead: dead }],
    })
}

/// All die first: a node that still lives while the next one's images are rebuilt would go on.
fn lose_power(nodes: &[&Node], seed: u64) -> Result<Wound> {
    let mut wound = Wound {
        what: String::new(),
        heal: Vec::new(),
    };
    let mut told = Vec::new();
    for node in nodes {
        let dead = kill_node(node)?;
        told.push(dead.what.clone());
        wound.heal.extend(dead.into_heal());
    }
    for node in nodes {
        told.push(format!("{}: {}", node.name, power::lose(node, seed)?));
    }
    wound.what = told.join("; ");
    Ok(wound)
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn act(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    ask(words[0], &words[1..]).map(drop)
}

/// At the switch: the node's own interfaces lose their carrier, as with a pulled cable.
fn cut_link(node: &Node) -> Result<Wound> {
    let number = node.namespace.trim_start_matches(layout::PREFIX);
    let mut wound = Wound {
        what: format!("{}: both cables pulled", node.name),
        heal: Vec::new(),
    };
    for port in [format!("m-{number}"), format!("s-{number}")] {
        let link = format!("ip -n {} link set {port}", layout::SWITCH);
        wound.heal.push(Heal::Command(words(&format!("{link} up"))));
        act(&format!("{link} down"))?;
    }
    Ok(wound)
}

/// What comes in is dropped: at the node's own interfaces, or at the switch's end of its cables.
fn cut_one_way(node: &Node, is_out: bool) -> Result<Wound> {
    let number = node.namespace.trim_start_matches(layout::PREFIX);
    let (place, devices, what) = if is_out {
        let ports = [format!("m-{number}"), format!("s-{number}")];
        (layout::SWITCH, ports, "is not heard")
    } else {
        let own = ["mgmt0".to_owned(), "srv0".to_owned()];
        (node.namespace.as_str(), own, "hears nothing")
    };
    let table = format!("chaos-{number}");
    let nft = format!("nsenter --net=/run/netns/{place} -- nft");
    let wound = Wound {
        what: format!("{} {what}", node.name),
        heal: vec![Heal::Command(words(&format!(
            "{nft} delete table netdev {table}"
        )))],
    };
    act(&format!("{nft} add table netdev {table}"))?;
    for (index, device) in devices.iter().enumerate() {
        act(&format!(
            "{nft} add chain netdev {table} c{index} \
             {{ type filter hook ingress device {device} priority -500 ; policy drop ; }}"
        ))?;
    }
    Ok(wound)
}

/// Takes all room of the file system with the node's state; that must be one of its own.
fn fill_disk(node: &Node) -> Result<Wound> {
    let state = layout::state(&node.name);
    if !is_mount(&state)? {
        bail!("{} is no file system of its own", state.display());
    }
    let paths = ["chaos-fills-most", "chaos-fills-the-rest"].map(|name| state.join(name));
    let wound = Wound {
        what: format!("{}: no room on its disk", node.name),
        heal: paths.iter().cloned().map(Heal::Remove).collect(),
    };
    let free = ask("stat", &["-f", "--format=%f %S", &state.to_string_lossy()])?;
    let bytes = most_of(&free).with_context(|| format!("stat said `{}`", free.trim()))?;
    let [most, rest] = paths.map(|path| path.display().to_string());
    ask("fallocate", &["-l", &bytes.to_string(), &most])
        .with_context(|| format!("{} could not be filled", state.display()))?;
    // It ends because there is no room: that is what was wanted.
    let _ = ask("dd", &["if=/dev/zero", &format!("of={rest}"), "bs=64K"]);
    Ok(wound)
}

/// 95 of a hundred bytes that are free; a file system keeps some for its own books.
fn most_of(free: &str) -> Option<u64> {
    let (blocks, size) = free.trim().split_once(' ')?;
    Some(blocks.parse::<u64>().ok()? * size.parse::<u64>().ok()? / 100 * 95)
}

/// Is a file system mounted right here?
pub fn is_mount(path: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let path = path.to_string_lossy();
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|it| it == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_of_those_that_are_there() {
        assert_eq!(nth(vec!["a", "b", "c"], 4), Some("b"));
        assert_eq!(nth(Vec::<u8>::new(), 4), None);
    }

    #[test]
    fn a_mount_is_known_by_its_path() {
        assert!(is_mount(Path::new("/proc")).unwrap());
        assert!(!is_mount(Path::new("/proc/self")).unwrap());
    }

    #[test]
    fn room_is_counted_in_blocks() {
        assert_eq!(most_of("1000 4096\n"), Some(3_891_200));
        assert_eq!(most_of("none"), None);
    }

    #[test]
    fn a_wound_heals_when_it_is_dropped() {
        let dir = std::env::temp_dir().join(format!("undine-wound-{}", std::process::id()));
        std::fs::write(&dir, b"full").unwrap();
        let wound = Wound {
            what: String::new(),
            heal: vec![Heal::Remove(dir.clone())],
        };
        drop(wound);
        assert!(!dir.exists());
    }
}
