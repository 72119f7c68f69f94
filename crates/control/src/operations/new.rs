//! Making an operation: in the transaction that makes it necessary, and waking who runs it.

use serde_json::{Value as Json, json};
use undine_model::AccountId;
use undine_model::lifecycle::OperationState;
use undine_store::{Db, NewEvent, Operation, Step, Tx};
use uuid::Uuid;

use super::kind_of;
use crate::clock::{new_id, now_ms};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// An operation to make.
pub struct NewOperation<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// The things that it works on.
    pub subjects: Vec<Uuid>,
    /// The account that may see it.
    pub account: Option<AccountId>,
    /// What its steps need to know.
    pub params: Json,
    /// Why, in words.
    pub reason: String,
}

/// Makes it within a transaction; [`wake`] after the commit.
pub async fn start(tx: &Tx, new: NewOperation<'_>) -> Result<Operation> {
    begin(tx, new, now_ms()).await
}

/// The same, taken before everything else that waits, the more important the earlier.
pub async fn start_urgent(tx: &Tx, new: NewOperation<'_>, importance: u32) -> Result<Operation> {
    const BEFORE_ALL_MS: i64 = 24 * 3_600_000;
    let first = now_ms() - BEFORE_ALL_MS - i64::from(importance);
    begin(tx, new, first).await
}

async fn begin(tx: &Tx, new: NewOperation<'_>, not_before: i64) -> Result<Operation> {
    let kind = kind_of(new.kind).ok_or_else(|| {
        Refusal::of(
            500,
            "internal",
            "Control failed",
            format!("no operation is called {}", new.kind),
        )
    })?;
    let now = now_ms();
    let operation = Operation {
        id: new_id(),
        version: 1,
        created_at: now,
        updated_at: now,
        kind: kind.name.to_owned(),
        subjects: new.subjects,
        account: new.account,
        params: new.params,
        results: json!({}),
        state: OperationState::Pending,
        step: 0,
        reason: new.reason,
        error: None,
        retries: 0,
        not_before,
        owner: None,
        lease_until: 0,
    };
    let steps: Vec<Step> = (0..)
        .zip(kind.steps)
        .map(|(at, step)| Step::new(at, step.name))
        .collect();
    tx.operations().create(&operation, &steps).await?;
    tx.events()
        .announce(vec![event(&operation, "operation.created")])
        .await?;
    Ok(operation)
}

/// Somebody of this instance looks for work at once; the others are told by the event.
pub fn wake(control: &Control) {
    control.work.notify_one();
}

/// An event about an operation.
pub(super) fn event(operation: &Operation, kind: &str) -> NewEvent {
    NewEvent {
        kind: kind.to_owned(),
        subject_kind: "operation".to_owned(),
        subject: operation.id.uuid(),
        account: operation.account,
        data: json!({
            "kind": operation.kind,
            "state": operation.state,
            "step": operation.step,
            "subjects": operation.subjects,
            "error": operation.error,
        }),
        at: now_ms(),
    }
}

/// An event about anything.
pub fn event_of(kind: &str, subject: Uuid, account: Option<AccountId>, data: Json) -> NewEvent {
    NewEvent {
        kind: kind.to_owned(),
        subject_kind: kind.split('.').next().unwrap_or_default().to_owned(),
        subject,
        account,
        data,
        at: now_ms(),
    }
}
