//! Accounts.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::AccountId;

use super::extract::{Asked, Body, Gone, IfMatch, NamedQuery, PathId, Reader, Seller};
use super::reply::{Answer, Reply};
use crate::app::{account_change, accounts};
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_accounts, create_account))
        .routes(routes!(get_account, update_account, delete_account))
        .routes(routes!(suspend_account))
        .routes(routes!(unsuspend_account))
}

/// Lists the accounts; a reseller sees its customers', an account's owner its own.
#[utoipa::path(
    get,
    path = "/v1/accounts",
    tag = "accounts",
    params(NamedQuery),
    responses((status = 200, description = "Here it is.", body = List<Account>))
)]
async fn list_accounts(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<NamedQuery>,
) -> Answer<List<Account>> {
    let (page, name) = asked.split();
    accounts::all(&control, &caller, &page, name)
        .await
        .map(Reply::ok)
}

/// Makes an account; it belongs to whoever has its plan.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    tag = "accounts",
    request_body = CreateAccount,
    responses((status = 201, description = "It was made.", body = Account))
)]
async fn create_account(
    Seller(caller): Seller,
    State(control): State<Control>,
    Body(wish): Body<CreateAccount>,
) -> Answer<Account> {
    let account = accounts::create(&control, &caller, wish).await?;
    Ok(Reply::made(account.version, account))
}

/// Shows an account.
#[utoipa::path(
    get,
    path = "/v1/accounts/{id}",
    tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    responses((status = 200, description = "Here it is.", body = Account))
)]
async fn get_account(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<AccountId>,
) -> Answer<Account> {
    let account = accounts::get(&control, &caller, id).await?;
    Ok(Reply::at(account.version, account))
}

/// Puts an account on another plan, and so to whoever has that plan.
#[utoipa::path(
    patch,
    path = "/v1/accounts/{id}",
    tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    request_body = UpdateAccount,
    responses((status = 200, description = "Here it is.", body = Account))
)]
async fn update_account(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<AccountId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateAccount>,
) -> Answer<Account> {
    let account = account_change::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(account.version, account))
}

/// Removes an account that has nothing any more.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{id}",
    tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_account(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<AccountId>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    account_change::delete(&control, &caller, id, expected)
        .await
        .map(|()| Gone)
}

/// Suspends an account: visitors of its sites see the page for suspended sites.
#[utoipa::path(
    post,
    path = "/v1/accounts/{id}/suspend",
    tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    responses((status = 200, description = "Here it is.", body = Account))
)]
async fn suspend_account(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<AccountId>,
    IfMatch(expected): IfMatch,
) -> Answer<Account> {
    let account = account_change::set_suspended(&control, &caller, id, expected, true).await?;
    Ok(Reply::at(account.version, account))
}

/// Ends the suspension of an account.
#[utoipa::path(
    post,
    path = "/v1/accounts/{id}/unsuspend",
    tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    responses((status = 200, description = "Here it is.", body = Account))
)]
async fn unsuspend_account(
    Seller(caller): Seller,
    State(control): State<Control>,
    PathId(id): PathId<AccountId>,
    IfMatch(expected): IfMatch,
) -> Answer<Account> {
    let account = account_change::set_suspended(&control, &caller, id, expected, false).await?;
    Ok(Reply::at(account.version, account))
}
