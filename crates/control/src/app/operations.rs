//! Operations as the API shows them.

use undine_api::public::{List, Operation, OperationError, OperationStep, OperationStepState};
use undine_model::{OperationId, SiteId};
use undine_store::{Db, OperationFilter, PageRequest, Step, StepState};
use uuid::Uuid;

use super::caller::Caller;
use super::paging::PageWish;
use crate::control::Control;
use crate::operations::detail_of;
use crate::refusal::{Refusal, Result};

fn show_step(step: Step) -> OperationStep {
    OperationStep {
        name: step.name,
        state: match step.state {
            StepState::Pending => OperationStepState::Pending,
            StepState::Running => OperationStepState::Running,
            StepState::Done => OperationStepState::Done,
            StepState::Skipped => OperationStepState::Skipped,
            StepState::Failed => OperationStepState::Failed,
            StepState::Undone => OperationStepState::Undone,
        },
        started_at: step.started_at,
        ended_at: step.ended_at,
        progress: step.detail["progress"].as_str().map(str::to_owned),
        error: step.error,
    }
}

/// An operation with its steps.
pub async fn show(db: &impl Db, operation: undine_store::Operation) -> Result<Operation> {
    let steps: Vec<OperationStep> = db
        .operations()
        .steps(operation.id)
        .await?
        .into_iter()
        .map(show_step)
        .collect();
    let error = operation.error.as_deref().map(|text| {
        let (detail, remedy) = detail_of(text);
        OperationError { detail, remedy }
    });
    Ok(Operation {
        progress: progress(&operation, &steps),
        id: operation.id,
        kind: operation.kind,
        subjects: operation.subjects.iter().map(Uuid::to_string).collect(),
        account: operation.account,
        state: operation.state,
        steps,
        reason: operation.reason,
        error,
        retries: operation.retries,
        owner: operation.owner.map(|id| id.to_string()),
        created_at: operation.created_at,
        updated_at: operation.updated_at,
    })
}

fn progress(operation: &undine_store::Operation, steps: &[OperationStep]) -> String {
    use undine_model::lifecycle::OperationState as S;
    match operation.state {
        S::Succeeded => "done".to_owned(),
        S::Failed => "failed".to_owned(),
        S::Pending | S::Running => {
            let at = operation.step as usize;
            let step = steps.get(at);
            let name = step.map_or("", |step| step.name.as_str());
            match step.and_then(|step| step.progress.as_deref()) {
                Some(text) => format!("{} of {}, {name}: {text}", at + 1, steps.len()),
                None => format!("{} of {}, {name}", at + 1, steps.len()),
            }
        }
    }
}

fn visible(caller: &Caller, operation: &undine_store::Operation) -> bool {
    if let (Some(_), Some(account)) = (&caller.sites, operation.account) {
        let mut subjects = operation.subjects.iter();
        return subjects.any(|id| caller.sees_site(account, SiteId::from_uuid(*id)));
    }
    caller
        .account()
        .is_none_or(|own| operation.account == Some(own))
}

/// One page of the operations that the caller may see, newest first.
pub async fn all(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    subject: Option<Uuid>,
    state: Option<undine_model::lifecycle::OperationState>,
) -> Result<List<Operation>> {
    let request = wish.request(true)?;
    if let (Some(sites), None) = (&caller.sites, subject) {
        return of_sites(control, caller, sites, request).await;
    }
    let page = match subject {
        Some(subject) => control.store.operations().of(subject, request).await?,
        None => {
            let filter = OperationFilter {
                account: caller.account(),
                state,
                ..OperationFilter::default()
            };
            control.store.operations().list(&filter, request).await?
        }
    };
    let mut items = Vec::with_capacity(page.items.len());
    for operation in page.items {
        if visible(caller, &operation) && state.is_none_or(|state| operation.state == state) {
            items.push(show(&control.store, operation).await?);
        }
    }
    Ok(List {
        items,
        next: page.next.map(|id| id.to_string()),
    })
}

/// The newest operations of the single sites that the caller reaches.
async fn of_sites(
    control: &Control,
    caller: &Caller,
    sites: &[SiteId],
    request: PageRequest,
) -> Result<List<Operation>> {
    let mut found = Vec::new();
    for site in sites {
        let page = control.store.operations().of(site.uuid(), request).await?;
        found.extend(page.items.into_iter().filter(|it| visible(caller, it)));
    }
    found.sort_by_key(|it| std::cmp::Reverse(it.id));
    found.dedup_by_key(|it| it.id);
    found.truncate(request.limit as usize);
    let mut items = Vec::with_capacity(found.len());
    for operation in found {
        items.push(show(&control.store, operation).await?);
    }
    Ok(List { items, next: None })
}

/// One operation.
pub async fn get(control: &Control, caller: &Caller, id: OperationId) -> Result<Operation> {
    match control.store.operations().find(id).await? {
        Some(operation) if visible(caller, &operation) => show(&control.store, operation).await,
        Some(_) => Err(caller.stranger(control, "operation", &id.to_string()).await),
        None => Err(Refusal::not_found("operation", &id.to_string())),
    }
}
