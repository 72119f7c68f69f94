//! API tokens.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::TokenId;

use super::extract::{Asked, Body, Gone, IfMatch, Manager, PageQuery, PathId, Reader};
use super::reply::{Answer, Reply};
use crate::app::tokens;
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(who_am_i))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(get_token, revoke_token))
}

/// Tells who asks.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    tag = "tokens",
    responses((status = 200, description = "Here it is.", body = WhoAmI))
)]
async fn who_am_i(Reader(caller): Reader, State(control): State<Control>) -> Answer<WhoAmI> {
    Ok(Reply::ok(tokens::who_am_i(&control, &caller)))
}

/// Lists the tokens; an account's owner sees its own.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "tokens",
    params(PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Token>))
)]
async fn list_tokens(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Token>> {
    tokens::all(&control, &caller, &page.into())
        .await
        .map(Reply::ok)
}

/// Makes a token that may no more than its maker; the secret is shown once.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "tokens",
    request_body = CreateToken,
    responses((status = 201, description = "It was made.", body = NewToken))
)]
async fn create_token(
    Manager(caller): Manager,
    State(control): State<Control>,
    Body(wish): Body<CreateToken>,
) -> Answer<NewToken> {
    let made = tokens::create(&control, &caller, wish).await?;
    Ok(Reply::made(made.token.version, made))
}

/// Shows a token, without its secret.
#[utoipa::path(
    get,
    path = "/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = TokenId, Path, description = "The token.")),
    responses((status = 200, description = "Here it is.", body = Token))
)]
async fn get_token(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<TokenId>,
) -> Answer<Token> {
    let token = tokens::get(&control, &caller, id).await?;
    Ok(Reply::at(token.version, token))
}

/// Revokes a token, at once and for good.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = TokenId, Path, description = "The token.")),
    responses((status = 204, description = "It is gone."))
)]
async fn revoke_token(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<TokenId>,
    IfMatch(expected): IfMatch,
) -> Result<Gone> {
    tokens::revoke(&control, &caller, id, expected)
        .await
        .map(|()| Gone)
}
