//! What is asked of servers.

use clap::Subcommand;
use undine_model::{Bytes, MilliCpu, Slug};

use super::{Sure, Waiting};

/// Servers.
#[derive(Subcommand)]
pub enum Server {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Name or id.
        server: String,
    },
    /// Make one and start it.
    Create {
        /// Its name.
        name: Slug,
        /// What it is good at.
        #[arg(long)]
        profile: Slug,
        /// On this node and no other.
        #[arg(long)]
        node: Option<String>,
        /// Memory, such as 512MiB.
        #[arg(long)]
        memory: Option<Bytes>,
        /// Virtual CPUs.
        #[arg(long)]
        vcpus: Option<u32>,
        /// CPU that it may use at most, such as 1.5.
        #[arg(long)]
        cpu: Option<MilliCpu>,
        /// Data disk, such as 10GiB.
        #[arg(long)]
        disk: Option<Bytes>,
        /// Copies of its disk, on as many nodes: 1 to 3 (2 unless there is one node only).
        #[arg(long)]
        replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first (5).
        #[arg(long)]
        importance: Option<u32>,
        /// Boot it cold, never from a RAM template.
        #[arg(long)]
        no_template: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start it.
    Start {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop it.
    Stop {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop and start it.
    Restart {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Compare the copies of its disk while it runs; one that differs is copied anew.
    Scrub {
        /// Name or id.
        server: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change how many copies its disk has, from its next start, or how important it is.
    Protect {
        /// Name or id.
        server: String,
        /// Copies of its disk: 1 to 3.
        #[arg(long)]
        replicas: Option<u32>,
        /// 0 to 9: after a node's death the most important come up first.
        #[arg(long)]
        importance: Option<u32>,
    },
    /// After a restore or a promotion of control's store: let the record of a server that its nodes
    /// know more of follow them.
    Adopt {
        /// Name or id.
        server: String,
        /// The server's name once more.
        #[arg(long)]
        confirm: String,
        /// A node that will not answer: what it alone knows is lost. May be given several times.
        #[arg(long)]
        without: Vec<String>,
    },
    /// Go on with a copy that lacks the newest writes: they are lost. For when no copy in sync
    /// will come back.
    AcceptLoss {
        /// Name or id.
        server: String,
        /// The node of the copy to go on with.
        #[arg(long)]
        node: String,
        /// The server's name once more.
        #[arg(long)]
        confirm: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete it with its disk; it must have no sites.
    Delete {
        /// Name or id.
        server: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        waiting: Waiting,
    },
}
