//! Databases of sites.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::{DatabaseId, SiteId};

use super::extract::{Asked, Body, IfMatch, Manager, PathId, Reader};
use super::reply::{Answer, Reply};
use crate::app::databases;
use crate::app::paging::PageWish;
use crate::control::Control;

/// Which databases.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DatabasesQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Of this site only.
    site: Option<SiteId>,
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_databases, create_database))
        .routes(routes!(get_database, delete_database))
}

/// Lists the databases; an account's owner sees its own.
#[utoipa::path(
    get,
    path = "/v1/databases",
    tag = "databases",
    params(DatabasesQuery),
    responses((status = 200, description = "Here it is.", body = List<Database>))
)]
async fn list_databases(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<DatabasesQuery>,
) -> Answer<List<Database>> {
    let page = PageWish {
        limit: asked.limit,
        cursor: asked.cursor,
    };
    databases::all(&control, &caller, &page, asked.site)
        .await
        .map(Reply::ok)
}

/// Makes a database for a site; the password is shown once.
#[utoipa::path(
    post,
    path = "/v1/databases",
    tag = "databases",
    request_body = CreateDatabase,
    responses((status = 202, description = "It is being worked on.", body = DatabaseOperation))
)]
async fn create_database(
    Manager(caller): Manager,
    State(control): State<Control>,
    Body(wish): Body<CreateDatabase>,
) -> Answer<DatabaseOperation> {
    let both = databases::create(&control, &caller, wish).await?;
    Ok(Reply::accepted(Some(both.database.version), both))
}

/// Shows a database.
#[utoipa::path(
    get,
    path = "/v1/databases/{id}",
    tag = "databases",
    params(("id" = DatabaseId, Path, description = "The database.")),
    responses((status = 200, description = "Here it is.", body = Database))
)]
async fn get_database(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<DatabaseId>,
) -> Answer<Database> {
    let database = databases::get(&control, &caller, id).await?;
    Ok(Reply::at(database.version, database))
}

/// Deletes a database with its content.
#[utoipa::path(
    delete,
    path = "/v1/databases/{id}",
    tag = "databases",
    params(("id" = DatabaseId, Path, description = "The database.")),
    responses((status = 202, description = "It is being worked on.", body = DatabaseOperation))
)]
async fn delete_database(
    Manager(caller): Manager,
    State(control): State<Control>,
    PathId(id): PathId<DatabaseId>,
    IfMatch(expected): IfMatch,
) -> Answer<DatabaseOperation> {
    let both = databases::delete(&control, &caller, id, expected).await?;
    Ok(Reply::accepted(Some(both.database.version), both))
}
