//! Servers.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::{ServerId, Slug};

use super::extract::{Asked, Body, IfMatch, PathId, Provider, ProviderReader};
use super::reply::{Answer, Reply};
use crate::app::caller::{Caller, Expected};
use crate::app::paging::PageWish;
use crate::app::servers::Wish;
use crate::app::{server_adopt, server_create, server_loss, server_scrub, servers};
use crate::control::Control;

/// Which servers.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ServersQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// With this name only.
    #[param(value_type = Option<String>)]
    name: Option<Slug>,
}

async fn wished(
    control: &Control,
    caller: &Caller,
    id: ServerId,
    expected: Expected,
    wish: Wish,
) -> Answer<ServerOperation> {
    let both = servers::wish(control, caller, id, expected, wish).await?;
    Ok(Reply::accepted(Some(both.server.version), both))
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_servers, create_server))
        .routes(routes!(get_server, update_server, delete_server))
        .routes(routes!(start_server))
        .routes(routes!(stop_server))
        .routes(routes!(restart_server))
        .routes(routes!(scrub_server))
        .routes(routes!(accept_loss))
        .routes(routes!(adopt))
}

/// Lists the servers.
#[utoipa::path(
    get,
    path = "/v1/servers",
    tag = "servers",
    params(ServersQuery),
    responses((status = 200, description = "Here it is.", body = List<Server>))
)]
async fn list_servers(
    _: ProviderReader,
    State(control): State<Control>,
    Asked(asked): Asked<ServersQuery>,
) -> Answer<List<Server>> {
    let page = PageWish {
        limit: asked.limit,
        cursor: asked.cursor,
    };
    servers::all(&control, &page, asked.name)
        .await
        .map(Reply::ok)
}

/// Makes a server and starts it.
#[utoipa::path(
    post,
    path = "/v1/servers",
    tag = "servers",
    request_body = CreateServer,
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn create_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    Body(wish): Body<CreateServer>,
) -> Answer<ServerOperation> {
    let both = server_create::create(&control, &caller, wish).await?;
    Ok(Reply::accepted(Some(both.server.version), both))
}

/// Shows a server.
#[utoipa::path(
    get,
    path = "/v1/servers/{id}",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 200, description = "Here it is.", body = Server))
)]
async fn get_server(
    _: ProviderReader,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
) -> Answer<Server> {
    let server = servers::get(&control, id).await?;
    Ok(Reply::at(server.version, server))
}

/// Changes what a server is made of, from its next start.
#[utoipa::path(
    patch,
    path = "/v1/servers/{id}",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    request_body = UpdateServer,
    responses((status = 200, description = "Here it is.", body = Server))
)]
async fn update_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateServer>,
) -> Answer<Server> {
    let server = servers::update(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(server.version, server))
}

/// Deletes a server that has no sites any more, with its disk.
#[utoipa::path(
    delete,
    path = "/v1/servers/{id}",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn delete_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
) -> Answer<ServerOperation> {
    wished(&control, &caller, id, expected, Wish::Delete).await
}

/// Starts a server.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/start",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn start_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
) -> Answer<ServerOperation> {
    wished(&control, &caller, id, expected, Wish::Start).await
}

/// Stops a server.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/stop",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn stop_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
) -> Answer<ServerOperation> {
    wished(&control, &caller, id, expected, Wish::Stop).await
}

/// Stops a server and starts it again.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/restart",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn restart_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
) -> Answer<ServerOperation> {
    wished(&control, &caller, id, expected, Wish::Restart).await
}

/// Compares the copies of a running server's disk; one that differs is copied anew.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/scrub",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn scrub_server(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
) -> Answer<ServerOperation> {
    let both = server_scrub::scrub(&control, &caller, id, expected).await?;
    Ok(Reply::accepted(Some(both.server.version), both))
}

/// Lets the record of a server that the store has forgotten something of follow what its nodes know.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/adopt",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    request_body = Adopt,
    responses((status = 200, description = "Here it is.", body = Server))
)]
async fn adopt(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<Adopt>,
) -> Answer<Server> {
    let server = server_adopt::accept(&control, &caller, id, expected, wish).await?;
    Ok(Reply::at(server.version, server))
}

/// Accepts that the newest writes of a server are lost: it goes on with a copy that lacks them.
#[utoipa::path(
    post,
    path = "/v1/servers/{id}/accept-loss",
    tag = "servers",
    params(("id" = ServerId, Path, description = "The server.")),
    request_body = AcceptLoss,
    responses((status = 202, description = "It is being worked on.", body = ServerOperation))
)]
async fn accept_loss(
    Provider(caller): Provider,
    State(control): State<Control>,
    PathId(id): PathId<ServerId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<AcceptLoss>,
) -> Answer<ServerOperation> {
    let both = server_loss::accept(&control, &caller, id, expected, wish).await?;
    Ok(Reply::accepted(Some(both.server.version), both))
}
