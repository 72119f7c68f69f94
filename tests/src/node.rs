//! Hardware nodes in trouble: dead as a whole, or cut off from control.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::summary::Node;

/// A node that is dead until this is dropped, as by a power switch: every process in its namespace
/// ends at once, and nothing starts its programs again.
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

/// A node that neither hears control nor is heard by it until this is dropped; its peers and its
/// visitors reach it as ever.
pub struct CutFromControl {
    namespace: String,
}

const TABLE: &str = "undine-e2e-cut";

impl CutFromControl {
    /// Cuts it off.
    pub fn cut(node: &Node) -> Result<Self> {
        let known = std::fs::read(format!("/var/lib/undine-up/{}/node.json", node.name))?;
        let known: serde_json::Value = serde_json::from_slice(&known)?;
        let control = known["control"][0].as_str().context("it knows control")?;
        let control: std::net::SocketAddr = control.parse()?;
        let cut = Self {
            namespace: node.namespace.clone(),
        };
        let address = control.ip().to_string();
        cut.nft(&["add", "table", "inet", TABLE])?;
        for (hook, side) in [("input", "saddr"), ("output", "daddr")] {
            let chain = format!("{{ type filter hook {hook} priority -300 ; }}");
            cut.nft(&["add", "chain", "inet", TABLE, hook, &chain])?;
            let rule = [
                "add", "rule", "inet", TABLE, hook, "ip", side, &address, "drop",
            ];
            cut.nft(&rule)?;
        }
        Ok(cut)
    }

    fn nft(&self, words: &[&str]) -> Result<()> {
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(["--", "nft"])
            .args(words)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft {}: {said}", words.join(" "));
        Ok(())
    }
}

impl Drop for CutFromControl {
    fn drop(&mut self) {
        let _ = self.nft(&["delete", "table", "inet", TABLE]);
    }
}
