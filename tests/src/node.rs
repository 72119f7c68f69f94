//! A hardware node that dies whole, as by a power switch: every process in its namespace at once,
//! and nothing starts its programs again before it may come back.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::summary::Node;

/// A node that is dead until this is dropped.
pub struct DeadNode {
    held: Vec<PathBuf>,
}

impl DeadNode {
    /// Kills it.
    pub fn kill(node: &Node) -> Result<Self> {
        let folder = PathBuf::from("/run/undine-up/held");
        std::fs::create_dir_all(&folder)?;
        let mut dead = Self { held: Vec::new() };
        for part in ["agent", "guard"] {
            let path = folder.join(format!("{}-{part}", node.name));
            std::fs::write(&path, b"")?;
            dead.held.push(path);
        }
        let mut rounds = 0;
        loop {
            let alive = processes(node)?;
            if alive.is_empty() {
                ensure!(rounds > 0, "nothing ran on {}", node.name);
                return Ok(dead);
            }
            ensure!(rounds < 1_000, "a process of {} will not end", node.name);
            rounds += 1;
            // All by one call; who was born meanwhile is met the next time.
            let _ = Command::new("kill")
                .args(["-s", "KILL"])
                .args(&alive)
                .output();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for DeadNode {
    fn drop(&mut self) {
        for path in &self.held {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn processes(node: &Node) -> Result<Vec<String>> {
    let output = Command::new("ip")
        .args(["netns", "pids", &node.namespace])
        .output()
        .context("ip netns pids")?;
    ensure!(output.status.success(), "no namespace {}", node.namespace);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
