//! What is asked of nodes, instances, join tokens, capacity and settings.

use std::net::IpAddr;
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
    /// How the panel sends mail; without flags: show it.
    Mail(MailFlags),
    /// Where visitors must be led, and who is asked; without flags: show it.
    Dns(DnsFlags),
    /// Send a mail, to see whether that works.
    TryMail {
        /// To whom.
        to: String,
    },
}

/// Changes; what is not named stays.
#[derive(Args)]
pub struct MailFlags {
    /// The mail server.
    #[arg(long)]
    pub host: Option<String>,
    /// Its port; the usual one unless it is said.
    #[arg(long)]
    pub port: Option<u16>,
    /// How the connection is encrypted.
    #[arg(long)]
    pub encryption: Option<EncryptionName>,
    /// Who the panel is to the mail server; an empty text: nobody.
    #[arg(long)]
    pub user: Option<String>,
    /// A file with the password for that (`-`: standard input).
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// The sender, such as `Undine <panel@example.com>`.
    #[arg(long)]
    pub from: Option<String>,
    /// No mail any more.
    #[arg(long, conflicts_with_all = ["host", "port", "encryption", "user", "password_file", "from"])]
    pub off: bool,
}

/// Changes; what is not named stays.
#[derive(Args)]
pub struct DnsFlags {
    /// An address that domains must lead to; may be given again.
    #[arg(long)]
    pub address: Vec<IpAddr>,
    /// They must lead to the addresses that the edges listen on.
    #[arg(long, conflicts_with = "address")]
    pub edges: bool,
    /// A name server that is asked, such as 9.9.9.9; may be given again.
    #[arg(long)]
    pub name_server: Vec<String>,
    /// Those of control's machine are asked.
    #[arg(long, conflicts_with = "name_server")]
    pub system: bool,
}

/// How a connection to the mail server is encrypted.
#[derive(Clone, Copy, ValueEnum)]
pub enum EncryptionName {
    /// TLS from the first byte; usually at port 465.
    Tls,
    /// TLS after a first word; usually at port 587.
    Starttls,
    /// None: for a server on the same machine.
    None,
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
