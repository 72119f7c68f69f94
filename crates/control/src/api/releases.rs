//! Releases: what a site's visitors see.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use axum::body::Body as Archive;
use axum::http::{HeaderMap, header};
use undine_api::guest::ArchiveFormat;
use undine_model::{ReleaseId, SiteId};

use super::extract::{Asked, Body, Deployer, IfMatch, PageQuery, PathId, Reader};
use super::reply::{Answer, Reply};
use crate::app::releases::{self, Announced};
use crate::control::Control;

/// What comes.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// How the archive is packed.
    format: ArchiveFormat,
    /// SHA-256 of the archive, hexadecimal.
    sha256: String,
    /// Should it go live at once? Yes, unless said otherwise.
    activate: Option<bool>,
}

fn size(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_releases, upload_release))
        .routes(routes!(get_release))
        .routes(routes!(rollback))
}

/// Lists a site's releases, newest first.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/releases",
    tag = "releases",
    params(("id" = SiteId, Path, description = "The site."), PageQuery),
    responses((status = 200, description = "Here it is.", body = List<Release>))
)]
async fn list_releases(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(page): Asked<PageQuery>,
) -> Answer<List<Release>> {
    releases::all(&control, &caller, id, &page.into())
        .await
        .map(Reply::ok)
}

/// Takes an archive as a new release: checked on the server, switched atomically, the one before kept.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/releases",
    tag = "releases",
    params(("id" = SiteId, Path, description = "The site."), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 202, description = "It is being worked on.", body = ReleaseOperation))
)]
async fn upload_release(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<UploadQuery>,
    headers: HeaderMap,
    body: Archive,
) -> Answer<ReleaseOperation> {
    let announced = Announced {
        format: asked.format,
        sha256: asked.sha256,
        size: size(&headers),
        activate: asked.activate.unwrap_or(true),
    };
    let both = releases::upload(&control, &caller, id, announced, body.into_data_stream()).await?;
    Ok(Reply::accepted(Some(both.release.version), both))
}

/// Shows a release.
#[utoipa::path(
    get,
    path = "/v1/releases/{id}",
    tag = "releases",
    params(("id" = ReleaseId, Path, description = "The release.")),
    responses((status = 200, description = "Here it is.", body = Release))
)]
async fn get_release(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<ReleaseId>,
) -> Answer<Release> {
    let release = releases::get(&control, &caller, id).await?;
    Ok(Reply::at(release.version, release))
}

/// Makes an earlier release live again.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/rollback",
    tag = "releases",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = Rollback,
    responses((status = 202, description = "It is being worked on.", body = ReleaseOperation))
)]
async fn rollback(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<Rollback>,
) -> Answer<ReleaseOperation> {
    let both = releases::rollback(&control, &caller, id, expected, wish).await?;
    Ok(Reply::accepted(None, both))
}
