//! Templates: control asks for them, other nodes copy them.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use undine_api::Problem;
use undine_api::internal::Role;
use undine_api::node::{TEMPLATE_SHA256, TEMPLATE_SIZE, TemplateStatus, TemplateWish};
use undine_link::Peer;

use super::Refusal;
use super::json::Body;
use crate::agent::Agent;
use crate::problems::internal;
use crate::templates::prepare;

/// `PUT /node/v1/templates`
pub async fn put(
    State(agent): State<Arc<Agent>>,
    Body(wish): Body<TemplateWish>,
) -> Json<TemplateStatus> {
    Json(prepare::prepare(agent.shared_ground(), wish).await)
}

/// Refuses everybody but other nodes: a template is of the cluster, not of the world.
pub async fn nodes_only(peer: Result<Peer, StatusCode>, request: Request, next: Next) -> Response {
    match peer {
        Ok(peer) if peer.role() == Some(Role::Node) => next.run(request).await,
        _ => Refusal(Problem::new(
            403,
            "nodes-only",
            "Only other nodes may ask this",
            "the caller's certificate is not a node's",
        ))
        .into_response(),
    }
}

/// `GET /node/v1/templates/{name}`
pub async fn serve(
    State(agent): State<Arc<Agent>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let trouble = |error: std::io::Error| Refusal(internal(error.to_string()));
    let found = agent
        .ground()
        .templates
        .served(&name)
        .await
        .map_err(trouble)?;
    let Some((template, sha256)) = found else {
        return Err(Refusal(Problem::new(
            404,
            "template-absent",
            "The template is not here",
            format!("there is no template {name}"),
        )));
    };
    let mut file = tokio::fs::File::open(template.memory())
        .await
        .map_err(trouble)?;
    let size = file.metadata().await.map_err(trouble)?.len();
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let first = range
        .map_or(Some(0), first_byte)
        .filter(|first| *first <= size);
    let first = first.ok_or_else(|| {
        let detail = format!("the memory has {size} bytes; ask for `bytes=N-`");
        Refusal(Problem::new(
            416,
            "range-invalid",
            "There is no such range",
            detail,
        ))
    })?;
    file.seek(SeekFrom::Start(first)).await.map_err(trouble)?;
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; 1 << 18];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        Ok::<_, std::io::Error>((count > 0).then_some((piece, file)))
    });
    let head = [
        (CONTENT_LENGTH.as_str(), (size - first).to_string()),
        (
            CONTENT_RANGE.as_str(),
            format!("bytes {first}-{}/{size}", size.saturating_sub(1)),
        ),
        (TEMPLATE_SHA256, sha256),
        (TEMPLATE_SIZE, size.to_string()),
    ];
    Ok((
        StatusCode::PARTIAL_CONTENT,
        head,
        Bytes::from_stream(pieces),
    )
        .into_response())
}

/// The first byte of `bytes=100-`.
fn first_byte(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}
