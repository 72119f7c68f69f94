//! Plans.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::PlanId;

use super::extract::{Asked, Body, Gone, IfMatch, PageQuery, PathId, Reader, Seller};
use super::reply::{Answer, Reply};
use crate::app::plans;
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_plans, create_plan))
        .routes(routes!(get_plan, update_plan, delete_plan))
}

/// Lists the plans: a reseller sees its own, a customer those of whoever sells to it.
#[utoipa::path(
    get,
    path = "/v1/plans",
    tag = "plans",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Plan>))
)]
async fn list_plans(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Plan>> {
    plans::all(&control, &caller, &page.into())
        .await
        .map(Reply::ok)
}

/// Makes a plan.
#[utoipa::path(
    post,
    path = "/v1/plans",
    tag = "plans",
    request_body = CreatePlan,
    responses((status = 201, description = "It was made.", body = Plan))
)]
async fn create_plan(
    Seller(caller): Seller,
    State(control): State<Control>,
    Body(wish): Body<CreatePlan>,
) -> Answer<Plan> {
    let plan = plans::create(&control, &caller, wish).await?;
    Ok(Reply::made(plan.version, plan))
}

/// Shows a plan.
#[utoipa::path(
    get,
    path = "/v1/plans/{id}",
    tag = "plans",
    params(("id" = PlanId, Path, description = "The plan.")),
    responses((status = 200, description = "Here it is.", body = Plan))
)]
async fn get_plan(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<PlanId>,
) -> Answer<Plan> {
    let plan = plans::get(&control, &caller, id).await?;
    Ok(Reply::at(plan.version, plan))
}

/// Changes a plan; it counts for every site of every account on it.
#[utoipa::path(
    patch,
    path = "/v1/plans/{id}",
    tag = "plans",
    params(("id" = PlanId, Path, description = "The plan.")),
    request_body = UpdatePlan,
    responses((status = 200, description = "Here it is.", body = Plan))
)]
async fn update_plan(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<PlanId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdatePlan>,
) -> Answer<Plan> {
    let plan = plans::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(plan.version, plan))
}

/// Removes a plan that no account is on.
#[utoipa::path(
    delete,
    path = "/v1/plans/{id}",
    tag = "plans",
    params(("id" = PlanId, Path, description = "The plan.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_plan(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<PlanId>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    plans::delete(&control, &caller, id, expected)
        .await
        .map(|()| Gone)
}
