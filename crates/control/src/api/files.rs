//! A site's files: `/v1/sites/{id}/files…`.

use axum::body::Body as Raw;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use undine_api::guest::Expect;
use undine_api::public::*;
use undine_model::SiteId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::download::sent;
use super::extract::{Asked, Body, Deployer, Gone, PathId, Reader, version_wanted};
use super::reply::{Answer, Reply};
use crate::app::files;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// Which folder, and which page of it.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FolderQuery {
    /// The folder, such as `current/css`; the top unless said otherwise.
    path: Option<String>,
    /// At most so many names, up to 500.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Which file or folder.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FileQuery {
    /// Its path, such as `current/index.html`.
    path: String,
}

/// Where a file is put.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    /// Its path, such as `current/index.html`; its folder must be there, unless `parents` is true.
    path: String,
    /// Only where nothing is yet.
    new: Option<bool>,
    /// Make the folders on its way that are not there; they stay, whatever becomes of the file.
    parents: Option<bool>,
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_files, remove_file))
        .routes(routes!(read_file, put_file))
        .routes(routes!(create_folder))
        .routes(routes!(move_file))
        .routes(routes!(pack_files))
        .routes(routes!(unpack_file))
}

/// `If-Match` with a file's mark, without which nothing is changed.
pub struct IfMark(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IfMark {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let text = version_wanted(parts)?;
        let mark = text.trim_start_matches("W/").trim_matches('"');
        Ok(Self(Some(mark.to_owned()).filter(|mark| mark != "*")))
    }
}

/// With the file's mark in an `ETag`.
struct Marked(FileEntry);

impl IntoResponse for Marked {
    fn into_response(self) -> Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.0.mark));
        let mut response = Reply::ok(self.0).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// Lists what is in a folder of a site, by name.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/files",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site."), FolderQuery),
    responses((status = 200, description = "Here it is.", body = FilePage))
)]
async fn list_files(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<FolderQuery>,
) -> Answer<FilePage> {
    let path = files::path("path", asked.path.as_deref().unwrap_or_default())?;
    files::list(&control, &caller, id, path, asked.cursor, asked.limit)
        .await
        .map(Reply::ok)
}

/// Sends a file. That needs the scope `deploy`, for files hold passwords.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/files/content",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site."), FileQuery),
    responses((
        status = 200,
        description = "The file's bytes; its mark in the ETag.",
        body = Vec<u8>,
        content_type = "application/octet-stream"
    ))
)]
async fn read_file(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<FileQuery>,
) -> Result<Response> {
    let path = files::path("path", &asked.path)?;
    files::open(&control, &caller, id, path).await.map(sent)
}

/// Takes a file and puts it into its place, at once and whole.
#[utoipa::path(
    put,
    path = "/v1/sites/{id}/files/content",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site."), PutQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "It is there, on disk.", body = FileEntry))
)]
async fn put_file(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<PutQuery>,
    IfMark(mark): IfMark,
    headers: HeaderMap,
    body: Raw,
) -> Result<Marked> {
    let path = files::path("path", &asked.path)?;
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|size| size > MAX_FILE) {
        return Err(files::too_large());
    }
    let expect = match (mark, asked.new) {
        (Some(mark), _) => Expect::Mark(mark),
        (None, Some(true)) => Expect::Nothing,
        (None, _) => Expect::Any,
    };
    let body = body.into_data_stream();
    let place = files::Place {
        path,
        expect,
        parents: asked.parents.unwrap_or_default(),
    };
    files::put(&control, &caller, id, place, body)
        .await
        .map(Marked)
}

/// Removes a file, or a folder with all that is in it.
#[utoipa::path(
    delete,
    path = "/v1/sites/{id}/files",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site."), FileQuery),
    responses((status = 204, description = "It is gone."))
)]
async fn remove_file(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<FileQuery>,
    IfMark(mark): IfMark,
) -> Result<Gone> {
    let path = files::path("path", &asked.path)?;
    files::remove(&control, &caller, id, path, mark).await?;
    Ok(Gone)
}

/// Makes a folder among a site's files.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/files/folder",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = CreateFolder,
    responses((status = 200, description = "It is there.", body = FileEntry))
)]
async fn create_folder(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Body(wish): Body<CreateFolder>,
) -> Answer<FileEntry> {
    let made = files::folder(&control, &caller, id, wish).await?;
    Ok(Reply::ok(made))
}

/// Gives a file or folder another name or place.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/files/move",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = MoveFile,
    responses((status = 200, description = "It is there.", body = FileEntry))
)]
async fn move_file(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Body(wish): Body<MoveFile>,
) -> Answer<FileEntry> {
    let moved = files::rename(&control, &caller, id, wish).await?;
    Ok(Reply::ok(moved))
}

/// Makes a zip archive of files and folders, beside them.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/files/pack",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = PackFiles,
    responses((status = 200, description = "It is there.", body = ArchiveResult))
)]
async fn pack_files(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Body(wish): Body<PackFiles>,
) -> Answer<ArchiveResult> {
    let done = files::pack(&control, &caller, id, wish).await?;
    Ok(Reply::ok(done))
}

/// Unpacks an archive into a folder.
#[utoipa::path(
    post,
    path = "/v1/sites/{id}/files/unpack",
    tag = "files",
    params(("id" = SiteId, Path, description = "The site.")),
    request_body = UnpackFile,
    responses((status = 200, description = "It is done.", body = ArchiveResult))
)]
async fn unpack_file(
    Deployer(caller): Deployer,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Body(wish): Body<UnpackFile>,
) -> Answer<ArchiveResult> {
    let done = files::unpack(&control, &caller, id, wish).await?;
    Ok(Reply::ok(done))
}
