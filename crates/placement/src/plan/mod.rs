//! Plans: what to do, in which order, why, and what could not be done.

mod apply;
mod capacity;
mod drain;
mod failover;
mod place;
mod rebalance;
mod relief;
mod score;
mod steps;
mod what_if;

use serde::{Deserialize, Serialize};

pub use capacity::{Capacity, HardwareAdvice, capacity};
pub use drain::drain;
pub use failover::failover;
pub use place::place_server;
pub use rebalance::{least_relief_mib, rebalance};
pub use score::{Score, score};
pub use what_if::{Change, WhatIf, what_if};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// A new server starts.
    Place {
        /// The server.
        server: String,
        /// The node that runs it.
        owner: String,
        /// The nodes with further copies.
        replicas: Vec<String>,
    },
    /// A server moves while it runs. Where the target held a copy, the source keeps its own;
    /// otherwise a copy is built on the target first and the source's is dropped.
    Migrate {
        /// The server.
        server: String,
        /// The node that it leaves.
        from: String,
        /// The node that it goes to.
        to: String,
        /// A copy of the disk is built first.
        copies_disk: bool,
    },
    /// A further copy is built elsewhere and then dropped here.
    MoveReplica {
        /// The server.
        server: String,
        /// The node that loses the copy.
        from: String,
        /// The node that gets it.
        to: String,
    },
    /// A further copy is built.
    AddReplica {
        /// The server.
        server: String,
        /// The node that gets it.
        to: String,
    },
    /// A server whose node is lost starts elsewhere.
    Restart {
        /// The server.
        server: String,
        /// The lost node.
        from: String,
        /// The node that runs it now.
        to: String,
        /// The node holds a copy itself; otherwise it uses one from afar.
        local_copy: bool,
    },
}

impl Action {
    /// The server that it is about.
    #[must_use]
    pub fn server(&self) -> &str {
        match self {
            Self::Place { server, .. }
            | Self::Migrate { server, .. }
            | Self::MoveReplica { server, .. }
            | Self::AddReplica { server, .. }
            | Self::Restart { server, .. } => server,
        }
    }
}

/// One action with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Steps of one wave may run at the same time: one into and one out of a node at most.
    pub wave: usize,
    /// What to do.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
    /// MiB copied.
    pub copies_mib: u64,
    /// Seconds that it is expected to take.
    pub seconds: u64,
}

/// Something that was wanted and cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The server (or node) it is about.
    pub subject: String,
    /// Which limit, short by how much.
    pub reason: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps, ordered by wave.
    pub steps: Vec<Step>,
    /// The plan as a whole in words; says why when there is nothing useful to do.
    pub summary: String,
    /// What could not be done.
    pub refused: Vec<Refused>,
    /// The cluster before.
    pub before: Score,
    /// The cluster afterwards.
    pub after: Score,
}

impl Plan {
    /// MiB copied by the whole plan.
    #[must_use]
    pub fn copies_mib(&self) -> u64 {
        self.steps.iter().map(|s| s.copies_mib).sum()
    }
}

/// Why there is no plan at all.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The input contradicts itself.
    #[error("the input cannot be used")]
    Input(#[from] crate::error::InputError),
    /// The demand cannot be met.
    #[error("no place for {subject}: {reason}")]
    Impossible {
        /// What was to be placed.
        subject: String,
        /// Which limit, short by how much.
        reason: String,
    },
}
