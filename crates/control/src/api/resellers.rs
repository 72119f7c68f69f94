//! Resellers.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::ResellerId;
use undine_store::ResellerState as Kept;

use super::extract::{Asked, Body, Gone, IfMatch, NamedQuery, PathId, Provider, SellerReader};
use super::reply::{Answer, Reply};
use crate::app::{reseller_suspend, resellers};
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_resellers, create_reseller))
        .routes(routes!(get_reseller, update_reseller, delete_reseller))
        .routes(routes!(suspend_reseller))
        .routes(routes!(unsuspend_reseller))
}

/// Lists the resellers; a reseller sees itself.
#[utoipa::path(
    get,
    path = "/v1/resellers",
    tag = "resellers",
    params(NamedQuery),
    responses((status = 200, description = "Here it is.", body = List<Reseller>))
)]
async fn list_resellers(
    SellerReader(caller): SellerReader,
    State(control): State<Control>,
    Asked(asked): Asked<NamedQuery>,
) -> Answer<List<Reseller>> {
    let (page, name) = asked.split();
    resellers::all(&control, &caller, &page, name)
        .await
        .map(Reply::ok)
}

/// Makes a reseller.
#[utoipa::path(
    post,
    path = "/v1/resellers",
    tag = "resellers",
    request_body = CreateReseller,
    responses((status = 201, description = "It was made.", body = Reseller))
)]
async fn create_reseller(
    Provider(caller): Provider,
    State(control): State<Control>,
    Body(wish): Body<CreateReseller>,
) -> Answer<Reseller> {
    let reseller = resellers::create(&control, &caller, wish).await?;
    Ok(Reply::made(reseller.version, reseller))
}

/// Shows a reseller.
#[utoipa::path(
    get,
    path = "/v1/resellers/{id}",
    tag = "resellers",
    params(("id" = ResellerId, Path, description = "The reseller.")),
    responses((status = 200, description = "Here it is.", body = Reseller))
)]
async fn get_reseller(
    SellerReader(caller): SellerReader,
    State(control): State<Control>,
    PathId(id): PathId<ResellerId>,
) -> Answer<Reseller> {
    let reseller = resellers::get(&control, &caller, id).await?;
    Ok(Reply::at(reseller.version, reseller))
}

/// Changes a reseller's limits; not below what it has.
#[utoipa::path(
    patch,
    path = "/v1/resellers/{id}",
    tag = "resellers",
    params(("id" = ResellerId, Path, description = "The reseller.")),
    request_body = UpdateReseller,
    responses((status = 200, description = "Here it is.", body = Reseller))
)]
async fn update_reseller(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ResellerId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateReseller>,
) -> Answer<Reseller> {
    let reseller = resellers::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(reseller.version, reseller))
}

/// Removes a reseller that has neither accounts nor plans any more.
#[utoipa::path(
    delete,
    path = "/v1/resellers/{id}",
    tag = "resellers",
    params(("id" = ResellerId, Path, description = "The reseller.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_reseller(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ResellerId>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    resellers::delete(&control, &caller, id, expected)
        .await
        .map(|()| Gone)
}

/// Suspends a reseller: its people and tokens look and change nothing; with its customers their
/// sites show the page for suspended sites too.
#[utoipa::path(
    post,
    path = "/v1/resellers/{id}/suspend",
    tag = "resellers",
    params(("id" = ResellerId, Path, description = "The reseller.")),
    request_body = SuspendReseller,
    responses((status = 200, description = "Here it is.", body = Reseller))
)]
async fn suspend_reseller(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ResellerId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<SuspendReseller>,
) -> Answer<Reseller> {
    let state = match wish.with_customers {
        true => Kept::SuspendedWithCustomers,
        false => Kept::Suspended,
    };
    let reseller = reseller_suspend::set(&control, &caller, id, expected, state).await?;
    Ok(Reply::at(reseller.version, reseller))
}

/// Ends the suspension of a reseller; customers that are suspended themselves stay so.
#[utoipa::path(
    post,
    path = "/v1/resellers/{id}/unsuspend",
    tag = "resellers",
    params(("id" = ResellerId, Path, description = "The reseller.")),
    responses((status = 200, description = "Here it is.", body = Reseller))
)]
async fn unsuspend_reseller(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ResellerId>,
    IfMatch(expected): IfMatch,
) -> Answer<Reseller> {
    let reseller = reseller_suspend::set(&control, &caller, id, expected, Kept::Active).await?;
    Ok(Reply::at(reseller.version, reseller))
}
