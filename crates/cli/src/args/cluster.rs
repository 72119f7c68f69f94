//! What is asked of nodes, instances, join tokens, capacity and settings.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use undine_model::Slug;

use super::{Sure, Waiting};

/// Changes to be imagined.
#[derive(Args)]
pub struct WhatIf {
    /// All measured load becomes this many percent of today's.
    #[arg(long, value_name = "PERCENT")]
    pub load: Option<u32>,
    /// So many more nodes like this one.
    #[arg(long, value_name = "NODE=COUNT", value_parser = counted)]
    pub add_nodes: Vec<(String, u32)>,
    /// This node is lost; several are lost at once.
    #[arg(long, value_name = "NODE")]
    pub lose: Vec<String>,
    /// This node is emptied.
    #[arg(long, value_name = "NODE")]
    pub drain: Vec<String>,
    /// So many more servers of this profile.
    #[arg(long, value_name = "PROFILE=COUNT", value_parser = counted)]
    pub add_servers: Vec<(String, u32)>,
    /// With so many copies each.
    #[arg(long)]
    pub replicas: Option<u32>,
    /// The servers are balanced at last.
    #[arg(long)]
    pub rebalance: bool,
}

fn counted(text: &str) -> Result<(String, u32), String> {
    let (name, count) = text
        .split_once('=')
        .ok_or("write it as NAME=COUNT, such as web-php=3")?;
    let count = count
        .parse()
        .map_err(|_| format!("{count:?} is no whole number"))?;
    Ok((name.to_owned(), count))
}

/// What counts for the whole cluster.
#[derive(Subcommand)]
pub enum Settings {
    /// How patient it is with silent nodes, and how it copies disks; without flags: show it.
    Failover(FailoverFlags),
}

/// Changes; what is not named stays.
#[derive(Args)]
pub struct FailoverFlags {
    /// A node with KVM may be dead after this silence, ms.
    #[arg(long)]
    pub silence_kvm_ms: Option<u64>,
    /// A node whose guests are emulated may be dead after this silence, ms.
    #[arg(long)]
    pub silence_tcg_ms: Option<u64>,
    /// When more than this share of the nodes falls silent together, nobody is declared dead.
    #[arg(long)]
    pub brake_percent: Option<u32>,
    /// What counts as together, ms.
    #[arg(long)]
    pub brake_window_ms: Option<u64>,
    /// A copy whose node has been away for so long is replaced elsewhere, ms.
    #[arg(long)]
    pub replace_after_ms: Option<u64>,
    /// A copy is filled with at most so many bytes a second; 0 for no limit.
    #[arg(long)]
    pub limit_bytes_s: Option<u64>,
    /// So many copies at once are filled on, or from, a node.
    #[arg(long)]
    pub joins_per_node: Option<u32>,
    /// The copies of a running server's disk are compared after so many days; 0 for never.
    #[arg(long)]
    pub scrub_every_days: Option<u32>,
    /// They are read with at most so many bytes a second; 0 for no limit.
    #[arg(long)]
    pub scrub_limit_bytes_s: Option<u64>,
    /// Are connections between a server and its remote copies encrypted?
    #[arg(long)]
    pub tls: Option<bool>,
}

/// Hardware nodes.
#[derive(Subcommand)]
pub enum Node {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        node: String,
    },
    /// Keep what it has, take nothing new.
    Cordon {
        /// Name or id.
        node: String,
    },
    /// Take servers again.
    Uncordon {
        /// Name or id.
        node: String,
    },
    /// Say that it is dead, when control does not dare to: its servers come up elsewhere.
    Fence {
        /// Name or id.
        node: String,
        /// Its name once more: make sure that it is this one.
        #[arg(long)]
        confirm: String,
    },
    /// Say how its power is cut when it is dead.
    Bmc {
        /// Name or id.
        node: String,
        /// A program of Debian's fence-agents, such as fence_ipmilan.
        #[arg(long, required_unless_present = "none")]
        agent: Option<String>,
        /// A file with what the agent is told, a `name=value` a line (`-`: standard input).
        #[arg(long, required_unless_present = "none")]
        options: Option<PathBuf>,
        /// Nobody cuts its power any more.
        #[arg(long, conflicts_with_all = ["agent", "options"])]
        none: bool,
    },
    /// Remove it from the cluster; it must be empty.
    Remove {
        /// Name or id.
        node: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Join tokens.
#[derive(Subcommand)]
pub enum JoinToken {
    /// All of them.
    List,
    /// Make one; it is shown once.
    Create {
        /// What it is to admit.
        role: JoinRoleName,
        /// The only name that it is to admit.
        #[arg(long)]
        name: Option<Slug>,
        /// Seconds that it admits.
        #[arg(long)]
        ttl: Option<u32>,
    },
}

/// What a join token admits.
#[derive(Clone, Copy, ValueEnum)]
pub enum JoinRoleName {
    /// A hardware node.
    Node,
    /// A public door.
    Edge,
    /// A control instance.
    Control,
}
