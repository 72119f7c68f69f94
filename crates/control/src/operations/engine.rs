//! Runs an operation that this instance has claimed, step by step, until it ends, waits, or is
//! lost to another instance.
//!
//! After each step one transaction says that it is done and that the next one has begun. When a
//! step fails for good, the steps before it are undone from the last to the first, just as
//! durably; `results.undoing` says that this is what goes on.

use std::time::Duration;

use serde_json::json;
use undine_model::lifecycle::OperationState;
use undine_model::{OperationId, ServerId};
use undine_store::{Db, Operation, StepState};

use super::new::event;
use super::trouble::{Outcome, Trouble};
use super::work::Work;
use super::{Kind, Undo, kind_of};
use crate::clock::now_ms;
use crate::control::Control;
use crate::memory;

/// An instance that is silent for longer loses its operations to the others.
pub const LEASE_MS: i64 = 10_000;
const RENEW: Duration = Duration::from_millis(3_000);
const FIRST_RETRY_MS: i64 = 500;
const LAST_RETRY_MS: i64 = 15_000;

/// Runs it for as long as the lease holds.
pub async fn run_claimed(control: &Control, operation: Operation) {
    let id = operation.id;
    let kind = operation.kind.clone();
    tokio::select! {
        outcome = run(control, operation) => {
            if let Err(trouble) = outcome {
                tracing::warn!(operation = %id, kind, %trouble, "let go of an operation");
            }
        }
        () = keep_lease(control, id) => tracing::warn!(operation = %id, kind, "lost an operation's lease"),
    }
}

/// Resolves when the lease is lost.
async fn keep_lease(control: &Control, id: OperationId) {
    let mut good_until = tokio::time::Instant::now() + Duration::from_millis(LEASE_MS as u64);
    loop {
        tokio::time::sleep(RENEW).await;
        let asked = tokio::time::Instant::now();
        match control
            .store
            .operations()
            .renew_lease(id, control.id, now_ms(), LEASE_MS)
            .await
        {
            Ok(()) => good_until = asked + Duration::from_millis(LEASE_MS as u64),
            Err(undine_store::StoreError::LostLease(_)) => return,
            Err(error) if asked >= good_until => {
                tracing::warn!(%error, "a lease could not be renewed");
                return;
            }
            Err(_) => {}
        }
    }
}

async fn run(control: &Control, operation: Operation) -> Outcome<()> {
    let steps = control.store.operations().steps(operation.id).await?;
    let Some(kind) = kind_of(&operation.kind) else {
        return Err(Trouble::stop(
            "an operation of an unknown kind",
            "Update this instance.",
        ));
    };
    let at = operation.step as usize;
    let mut work = Work {
        control: control.clone(),
        operation,
        steps,
        at,
    };
    if work.operation.results["undoing"].is_null() {
        match forward(&mut work, kind).await {
            Err(Trouble::Stop { detail, remedy }) => {
                begin_undo(&mut work, &detail, &remedy).await?;
            }
            Err(trouble @ Trouble::Wait { .. }) => return wait(&mut work, kind, trouble).await,
            other => return other,
        }
    }
    match backward(&mut work, kind).await {
        Err(trouble @ Trouble::Wait { .. }) => wait(&mut work, kind, trouble).await,
        other => other,
    }
}

async fn forward(work: &mut Work, kind: &Kind) -> Outcome<()> {
    while work.at < kind.steps.len() {
        let step = &kind.steps[work.at];
        let point = format!("{}/{}", kind.name, step.name);
        let failpoints = work.control.failpoints.clone();
        failpoints.pass(&format!("{point}/before")).await;
        if work.steps[work.at].started_at.is_none() {
            work.steps[work.at].started_at = Some(now_ms());
            work.steps[work.at].state = StepState::Running;
        }
        not_doubted(work).await?;
        (step.act)(work).await?;
        failpoints.pass(&format!("{point}/done")).await;
        step_done(work).await?;
        failpoints.pass(&format!("{point}/after")).await;
    }
    Ok(())
}

/// What the store may have forgotten something of is left alone.
async fn not_doubted(work: &Work) -> Outcome<()> {
    let Ok(server) = work.param::<ServerId>("server") else {
        return Ok(());
    };
    if !memory::is_doubted(&work.control.store, server).await? {
        return Ok(());
    }
    Err(Trouble::wait(
        "the store may have forgotten something of the server",
        "It goes on when the nodes of its copies have answered, or an operator has adopted what \
         they know (`undine server adopt`).",
    ))
}

/// One transaction: this step is done, the next one has begun or all is done.
async fn step_done(work: &mut Work) -> Outcome<()> {
    let now = now_ms();
    let first = work.at;
    work.steps[first].state = StepState::Done;
    work.steps[first].ended_at = Some(now);
    work.at += 1;
    work.operation.step = work.at as u32;
    work.operation.retries = 0;
    work.operation.error = None;
    let kind = if let Some(next) = work.steps.get_mut(work.at) {
        next.state = StepState::Running;
        next.started_at = Some(now);
        "operation.progress"
    } else {
        work.operation.state = OperationState::Succeeded;
        "operation.succeeded"
    };
    let last = work.at.min(work.steps.len() - 1);
    save(work, first, last, kind).await
}

async fn save(work: &mut Work, first: usize, last: usize, kind: &str) -> Outcome<()> {
    let tx = work.control.store.begin().await?;
    let saved = tx
        .operations()
        .save(
            &work.operation,
            work.control.id,
            &work.steps[first..=last],
            now_ms(),
        )
        .await?;
    tx.events()
        .announce(vec![event(&work.operation, kind)])
        .await?;
    tx.commit().await?;
    work.operation = saved;
    Ok(())
}

/// Lets go of it until a little later, or gives up when its patience is over.
async fn wait(work: &mut Work, kind: &Kind, trouble: Trouble) -> Outcome<()> {
    let Trouble::Wait { detail, remedy } = trouble else {
        return Err(trouble);
    };
    let now = now_ms();
    let since = work.steps[work.at].started_at.unwrap_or(now);
    let undoing = !work.operation.results["undoing"].is_null();
    if now.saturating_sub(since) > kind.patience_ms && !undoing {
        begin_undo(work, &detail, &remedy).await?;
        // Undone by whoever claims it next, as after a crash.
        work.operation.state = OperationState::Pending;
        let at = work.at;
        return save(work, at, at, "operation.progress").await;
    }
    let (first, last) = pauses(kind);
    let pause = first << work.operation.retries.min(6);
    work.operation.retries += 1;
    work.operation.not_before = now + pause.min(last);
    work.operation.error = Some(error_text(&detail, &remedy));
    work.operation.state = OperationState::Pending;
    let at = work.at;
    save(work, at, at, "operation.waiting").await
}

/// The pauses between tries: from, to.
const fn pauses(kind: &Kind) -> (i64, i64) {
    if kind.patience_ms == super::NEVER {
        (100, 1_000)
    } else {
        (FIRST_RETRY_MS, LAST_RETRY_MS)
    }
}

/// How an error is kept: the API takes detail and remedy apart again.
fn error_text(detail: &str, remedy: &str) -> String {
    json!({ "detail": detail, "remedy": remedy }).to_string()
}

async fn begin_undo(work: &mut Work, detail: &str, remedy: &str) -> Outcome<()> {
    let at = work.at;
    work.steps[at].state = StepState::Failed;
    work.steps[at].ended_at = Some(now_ms());
    work.steps[at].error = Some(detail.to_owned());
    work.operation.error = Some(error_text(detail, remedy));
    work.keep("undoing", at);
    work.operation.retries = 0;
    save(work, at, at, "operation.undoing").await
}

/// Undoes from the failed step (it may have acted in part) to the first.
async fn backward(work: &mut Work, kind: &Kind) -> Outcome<()> {
    while let Ok(at) = work.found::<usize>("undoing") {
        work.at = at;
        let step = &kind.steps[at];
        work.control
            .failpoints
            .clone()
            .pass(&format!("{}/{}/undo", kind.name, step.name))
            .await;
        if let Undo::By(act) = step.undo {
            match act(work).await {
                Err(Trouble::Stop { detail, .. }) => {
                    work.steps[at].error = Some(format!("It could not be undone: {detail}"));
                }
                Err(other) => return Err(other),
                Ok(()) if work.steps[at].state == StepState::Done => {
                    work.steps[at].state = StepState::Undone;
                }
                Ok(()) => {}
            }
        }
        if at == 0 {
            break;
        }
        work.keep("undoing", at - 1);
        save(work, at, at, "operation.undoing").await?;
    }
    end_failed(work, kind).await
}

async fn end_failed(work: &mut Work, kind: &Kind) -> Outcome<()> {
    let detail = detail_of(work.operation.error.as_deref().unwrap_or_default()).0;
    match (kind.failed)(work, detail).await {
        Err(Trouble::Stop { detail, .. }) => {
            tracing::error!(operation = %work.operation.id, detail, "a failure could not be recorded");
        }
        other => other?,
    }
    work.operation.state = OperationState::Failed;
    let at = work.at;
    save(work, at, at, "operation.failed").await
}

/// Detail and remedy of a kept error.
pub fn detail_of(error: &str) -> (String, Option<String>) {
    match serde_json::from_str::<serde_json::Value>(error) {
        Ok(value) if value.is_object() => {
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            (
                text("detail").unwrap_or_default(),
                text("remedy").filter(|text| !text.is_empty()),
            )
        }
        _ => (error.to_owned(), None),
    }
}
