//! Durable work: operations and their steps.

use serde_json::Value as Json;
use undine_model::lifecycle::OperationState;
use undine_model::{AccountId, InstanceId, OperationId};
use uuid::Uuid;

use crate::record::{record, words};

record! {
    /// A durable, resumable piece of work. Owner and lease change only by claiming.
    Operation, "operation" in "operations", id OperationId {
        /// What it does, such as `server.start`.
        kind: String,
        /// The things that it works on; `operations().of(subject, …)` finds it by each.
        subjects: Vec<Uuid>,
        /// The account that may see it.
        account: Option<AccountId>,
        /// What it was asked.
        params: Json,
        /// What its steps found out and later ones need.
        results: Json,
        /// How it stands.
        state: OperationState,
        /// The step that it is at, from 0.
        step: u32,
        /// Why it was started, in words.
        reason: String,
        /// Why it failed, or why it waits.
        error: Option<String>,
        /// How often the present step was tried again.
        retries: u32,
        /// Not to be taken before this time.
        not_before: i64,
        /// The instance that works on it.
        owner: Option<InstanceId>,
        /// Until when that instance may be silent.
        lease_until: i64,
    }
    /// Which operations.
    filter OperationFilter {
        kind: String, account: AccountId, state: OperationState, owner: InstanceId,
    }
    frozen { subjects, owner, lease_until }
}

words! {
    /// How a step stands.
    StepState {
        /// Not begun.
        Pending = "pending",
        /// Begun.
        Running = "running",
        /// Done.
        Done = "done",
        /// Nothing to do.
        Skipped = "skipped",
        /// Failed; the error says why.
        Failed = "failed",
        /// Undone, because a later one failed.
        Undone = "undone",
    }
}

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// Its place, from 0.
    pub position: u32,
    /// What it does.
    pub name: String,
    /// How it stands.
    pub state: StepState,
    /// When it was first begun.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Progress and findings.
    pub detail: Json,
    /// Why it failed.
    pub error: Option<String>,
}

impl Step {
    /// A step that has not begun.
    pub fn new(position: u32, name: impl Into<String>) -> Self {
        Self {
            position,
            name: name.into(),
            state: StepState::Pending,
            started_at: None,
            ended_at: None,
            detail: Json::Null,
            error: None,
        }
    }
}
