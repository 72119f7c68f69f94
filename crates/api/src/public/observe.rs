//! Operations, events, metrics and the support bundle.

use serde_json::Value as Json;
use undine_model::lifecycle::OperationState;
use undine_model::{AccountId, OperationId};

use super::{answers, choices};

answers! {
    /// A durable, resumable piece of work.
    pub struct Operation {
        /// Its id.
        pub id: OperationId,
        /// What it does, such as `server.start`.
        pub kind: String,
        /// The ids of the things that it works on.
        pub subjects: Vec<String>,
        /// The account that may see it.
        pub account: Option<AccountId>,
        /// How it stands.
        pub state: OperationState,
        /// Its steps, in order.
        pub steps: Vec<OperationStep>,
        /// What it is at now, in words.
        pub progress: String,
        /// Why it was started.
        pub reason: String,
        /// Why it failed, or what it waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<OperationError>,
        /// How often the present step was tried again.
        pub retries: u32,
        /// The instance of control that works on it.
        pub owner: Option<String>,
        /// When it was made.
        pub created_at: i64,
        /// When it last changed.
        pub updated_at: i64,
    }

    /// Why an operation failed, or what it waits for.
    pub struct OperationError {
        /// What happened.
        pub detail: String,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub remedy: Option<String>,
    }

    /// One step of an operation.
    pub struct OperationStep {
        /// What it does.
        pub name: String,
        /// How it stands.
        pub state: OperationStepState,
        /// When it was first begun.
        pub started_at: Option<i64>,
        /// When it ended.
        pub ended_at: Option<i64>,
        /// How far it is or what it found, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub progress: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
    }

    /// Something that happened.
    pub struct Event {
        /// Grows with every event; the `id` of the stream.
        pub seq: u64,
        /// What happened, such as `server.running`.
        pub kind: String,
        /// What kind of thing it happened to.
        pub subject_kind: String,
        /// To which.
        pub subject: String,
        /// The account that may see it.
        pub account: Option<AccountId>,
        /// When.
        pub at: i64,
        /// More about it.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub data: Json,
    }

    /// Measurements of one thing.
    pub struct Metrics {
        /// What kind of thing.
        pub subject_kind: MetricSubject,
        /// Which one.
        pub subject: String,
        /// How close the points are.
        pub resolution: MetricResolution,
        /// One series a measure.
        pub series: Vec<MetricSeries>,
    }

    /// One measure over time.
    pub struct MetricSeries {
        /// What is measured, such as `memory_bytes`.
        pub name: String,
        /// The points, oldest first.
        pub points: Vec<MetricPoint>,
    }

    /// One point of a series.
    pub struct MetricPoint {
        /// When the interval began.
        pub at: i64,
        /// Mean of the interval.
        pub value: f64,
    }

    /// What support needs to help; secrets are not in it.
    pub struct SupportBundle {
        /// When it was made.
        pub made_at: i64,
        /// Version of the program.
        pub program: String,
        /// `sqlite` or `postgres`.
        pub store: String,
        /// Nodes, servers, edges, instances, recent operations and events, as the API shows them.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub records: Json,
    }
}

choices! {
    /// How a step stands.
    pub enum OperationStepState {
        /// Not begun.
        Pending,
        /// Begun.
        Running,
        /// Done.
        Done,
        /// Nothing to do.
        Skipped,
        /// Failed.
        Failed,
        /// Undone, because a later one failed.
        Undone,
    }

    /// What is measured.
    pub enum MetricSubject {
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
    pub enum MetricResolution {
        /// 10 seconds, kept for an hour.
        TenSeconds,
        /// A minute, kept for two days.
        Minute,
        /// An hour, kept for a year.
        Hour,
    }
}
