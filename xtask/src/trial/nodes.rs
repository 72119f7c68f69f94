//! A node's death and return: every process of its namespace is killed at once, and the supervisor
//! is kept from starting its programs again until the node may come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::journal::now_ms;
use crate::bench::cluster::Node;
use crate::command::{ask, command, output};
use crate::up::supervise;

const GONE: Duration = Duration::from_secs(10);

/// A dead node. It comes back when this is dropped.
pub struct Dead {
    names: Vec<String>,
    /// When everything on it was killed, milliseconds since 1970.
    pub at_ms: u64,
    /// How many processes died.
    pub killed: usize,
}

impl Drop for Dead {
    fn drop(&mut self) {
        for name in &self.names {
            supervise::release(name);
        }
    }
}

/// The names of a node's programs.
pub fn programs(node: &Node) -> [String; 2] {
    ["agent", "guard"].map(|part| format!("{}-{part}", node.name))
}

/// Every process in a node's namespace.
pub fn processes(node: &Node) -> Result<Vec<u32>> {
    let text = output(&mut command("ip", ["netns", "pids", &node.namespace]))
        .with_context(|| format!("the processes of {}", node.namespace))?;
    Ok(text
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect())
}

/// Kills everything on a node at once, with -9.
pub fn kill(node: &Node) -> Result<Dead> {
    let names = programs(node).to_vec();
    for name in &names {
        supervise::hold(name)?;
    }
    let mut dead = Dead {
        names,
        at_ms: 0,
        killed: 0,
    };
    let begun = Instant::now();
    dead.at_ms = now_ms();
    loop {
        let alive = processes(node)?;
        if alive.is_empty() {
            ensure!(dead.killed > 0, "nothing ran on {}", node.name);
            return Ok(dead);
        }
        ensure!(
            begun.elapsed() < GONE,
            "a process of {} will not end",
            node.name
        );
        dead.killed = dead.killed.max(alive.len());
        // All by one call; who was born meanwhile is met the next time.
        let mut words = vec!["-s".to_owned(), "KILL".to_owned()];
        words.extend(alive.iter().map(u32::to_string));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = ask("kill", &words);
        std::thread::sleep(Duration::from_millis(5));
    }
}
