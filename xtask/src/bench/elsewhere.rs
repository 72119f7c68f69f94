//! A template that was taken on one node starts servers on another one: copied there by its own
//! agent, before any server of the shape was on that node.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::api::text;
use super::cluster::Cluster;
use super::ground::{self, BOOT};
use super::stats::{Summary, summary};
use crate::up::layout;

/// A shape that nothing else has.
const MEMORY_MIB: u64 = 449;

/// What was seen.
pub struct Elsewhere {
    /// The node that took the template.
    pub taken_on: String,
    /// The node that copied it and started servers from it.
    pub restored_on: String,
    /// From the template's being there to its copy's being there.
    pub copied_after_s: f64,
    /// Starts there, by the caller's clock.
    pub starts: Summary,
}

/// Takes a template on the first node, waits for its copy on the second, starts a server there.
/// None with a single node.
pub fn measure(cluster: &Cluster, runs: usize) -> Result<Option<Elsewhere>> {
    let api = cluster.api();
    let nodes = api.all("/v1/nodes")?;
    let ready: Vec<&Value> = nodes
        .iter()
        .filter(|node| text(node, "state") == "ready")
        .collect();
    let [first, second, ..] = ready[..] else {
        println!("a template elsewhere needs two ready nodes");
        return Ok(None);
    };
    let (taken_on, restored_on) = (text(first, "name"), text(second, "name"));
    let wish = |node: &str| json!({ "memory": MEMORY_MIB << 20, "node": node });
    ground::server(api, "bench-taken", "static", &wish(taken_on))?;
    let begun = Instant::now();
    let note = loop {
        if let Some(note) = note_on(&layout::state(restored_on)) {
            break note;
        }
        ensure!(
            begun.elapsed() < BOOT,
            "{restored_on} has no copy of the template within {} s",
            BOOT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(200));
    };
    let copied_after_s = begun.elapsed().as_secs_f64();
    let Some(origin) = note["origin"].as_str() else {
        bail!("{restored_on} took a template of its own instead of copying that of {taken_on}");
    };
    println!("{restored_on} has a copy of node {origin}'s template after {copied_after_s:.1} s");
    let id = ground::server(api, "bench-elsewhere", "static", &wish(restored_on))?;
    let mut all = Vec::new();
    for index in 1..=runs {
        let start = super::start::start(api, "elsewhere", &id)?;
        super::start::say("elsewhere", "template of another node", index, Some(&start));
        ensure!(
            start.from_template,
            "it fell back to a cold boot: {}",
            start.fallback
        );
        all.push(start.whole_s);
    }
    Ok(Some(Elsewhere {
        taken_on: taken_on.to_owned(),
        restored_on: restored_on.to_owned(),
        copied_after_s,
        starts: summary(&all).context("no start was measured")?,
    }))
}

/// The note of the shape's template on a node.
fn note_on(state: &Path) -> Option<Value> {
    let entries = fs::read_dir(state.join("templates")).ok()?;
    entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
        .find(|note: &Value| note["key"]["shape"]["memory_mib"] == MEMORY_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_the_shape_is_found_among_others() {
        let dir = tempfile();
        let folder = dir.join("templates");
        fs::create_dir_all(&folder).unwrap();
        let note = |memory: u64| json!({"key": {"shape": {"memory_mib": memory}}, "origin": "n"});
        fs::write(folder.join("a.json"), note(256).to_string()).unwrap();
        fs::write(folder.join("b.ram"), note(MEMORY_MIB).to_string()).unwrap();
        assert_eq!(note_on(&dir), None);
        fs::write(folder.join("b.json"), note(MEMORY_MIB).to_string()).unwrap();
        assert_eq!(note_on(&dir).unwrap()["origin"], "n");
        fs::remove_dir_all(dir).unwrap();
    }

    fn tempfile() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("undine-elsewhere-{}", std::process::id()))
    }
}
