//! What `up` says it brought up.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// `target/up/summary.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// The demo sites.
    pub sites: Vec<Site>,
    /// Where panel and API are, at one name.
    pub panel: String,
    /// Control instances.
    pub control: Vec<Instance>,
    /// Edges.
    pub edges: Vec<Edge>,
    /// Hardware nodes.
    pub nodes: Vec<Node>,
    /// Every password that `up` made.
    pub credentials_file: PathBuf,
    /// The provider's API token.
    pub token_file: PathBuf,
}

/// A demo site.
#[derive(Debug, Clone, Deserialize)]
pub struct Site {
    /// Its address for a browser.
    pub url: String,
    /// Its name.
    pub host: String,
    /// An edge that serves it.
    pub edge_address: String,
    /// A text that its page has.
    pub expect: String,
}

/// A control instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its API.
    pub url: String,
    /// Its process.
    pub pid: Option<u32>,
}

/// An edge.
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    /// Where it listens.
    pub address: String,
    /// Its process.
    pub pid: Option<u32>,
}

/// A hardware node.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Agent and guard.
    pub pids: Vec<u32>,
}

impl Summary {
    /// Reads it; without one there is no cluster to test.
    pub fn read() -> Result<Self> {
        let path = target().join("up/summary.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "{}: no cluster is up; run cargo xtask up --detach",
                path.display()
            )
        })?;
        serde_json::from_str(&text).context("the summary cannot be read")
    }

    /// The demo site whose name begins with this label.
    pub fn site(&self, label: &str) -> Result<&Site> {
        let found = self.sites.iter().find(|site| site.host.starts_with(label));
        found.with_context(|| format!("no demo site {label}"))
    }

    /// The number of a process that the supervisor keeps, as it is now.
    pub fn pid(&self, name: &str) -> Option<u32> {
        let path = format!("/run/undine-up/pids/{name}.json");
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        value["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
    }
}

/// The folder of this checkout.
pub fn checkout() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, std::path::Path::to_path_buf)
}

/// The build's output folder.
pub fn target() -> PathBuf {
    checkout().join("target")
}
