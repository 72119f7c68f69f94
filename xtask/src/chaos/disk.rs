//! A node with a small disk of its own, so that it can be filled without filling the machine's.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::faults::is_mount;
use crate::bench::cluster::Cluster;
use crate::command::ask;
use crate::up::{layout, supervise};

/// The last node that `up` makes by itself.
const NODE: &str = "node-3";
/// An image, and copies of all servers' disks as far as trials fill them.
const SIZE: &str = "8G";

/// Before a cluster is started: a file system in a sparse file where that node's state will be. A
/// cluster that runs already has none, and its disks are not filled.
pub fn prepare() -> Result<()> {
    let state = layout::state(NODE);
    if supervise::pid("supervisor").is_some() || state.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&state)
        .with_context(|| format!("{} could not be made", state.display()))?;
    let file = file();
    let (path, mount) = (file.to_string_lossy(), state.to_string_lossy());
    ask("truncate", &["-s", SIZE, &path])?;
    ask("mkfs.ext4", &["-q", &path])?;
    ask("mount", &["-o", "loop", &path, &mount])
        .with_context(|| format!("{path} could not be mounted"))
        .map(drop)
}

fn file() -> PathBuf {
    layout::state("small-disk.img")
}

/// The number of the node whose disk may be filled.
pub fn small(cluster: &Cluster) -> Result<Option<usize>> {
    for (at, node) in cluster.nodes.iter().enumerate() {
        if is_mount(&layout::state(&node.name))? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
