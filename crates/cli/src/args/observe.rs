//! What is asked of operations, the audit and metrics.

use clap::{Args, Subcommand, ValueEnum};
use undine_model::OperationId;
use uuid::Uuid;

/// Operations.
#[derive(Subcommand)]
pub enum Operation {
    /// The newest.
    List,
    /// One of them, step by step.
    Show {
        /// Its id.
        operation: OperationId,
    },
    /// Wait until it is done, showing its progress.
    Wait {
        /// Its id.
        operation: OperationId,
    },
}

/// What was done, by whom.
#[derive(Subcommand)]
pub enum Audit {
    /// The newest first.
    List {
        /// Of this action only, such as site.create.
        #[arg(long)]
        action: Option<String>,
        /// About the customers, the plans or the brand of this reseller only (name or id).
        #[arg(long)]
        reseller: Option<String>,
    },
}

/// Measurements.
#[derive(Args)]
pub struct Metrics {
    /// Of what.
    pub kind: MetricKind,
    /// Id of the thing.
    pub id: Uuid,
    /// How close the points are.
    #[arg(long, default_value = "ten-seconds")]
    pub resolution: ResolutionName,
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub enum MetricKind {
    /// A hardware node.
    Node,
    /// A server.
    Server,
    /// A site.
    Site,
    /// A public door.
    Edge,
}

/// How close points are.
#[derive(Clone, Copy, ValueEnum)]
pub enum ResolutionName {
    /// Kept for an hour.
    TenSeconds,
    /// Kept for two days.
    Minute,
    /// Kept for a year.
    Hour,
}
