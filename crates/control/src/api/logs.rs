//! A site's log as it is written.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as Sent, KeepAlive};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use undine_api::guest::{Follow, LogKind};
use undine_api::public::LogLines;
use undine_model::SiteId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Asked, PathId, Reader};
use crate::app::tail::{self, Watcher};
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new().routes(routes!(follow_site_log))
}

/// Which log, and what of it.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FollowQuery {
    /// Which log; requests unless said otherwise.
    log: Option<LogKind>,
    /// Only lines with this text, whatever the case.
    find: Option<String>,
    /// How many of the last lines first; 50 unless said otherwise.
    lines: Option<u32>,
}

/// Tells a site's log as it is written, as server-sent events `lines`; `Last-Event-ID` goes on
/// where a stream broke off.
#[utoipa::path(
    get,
    path = "/v1/sites/{id}/logs/stream",
    tag = "sites",
    params(("id" = SiteId, Path, description = "The site."), FollowQuery),
    responses((
        status = 200,
        description = "A stream that ends when the client goes.",
        body = LogLines,
        content_type = "text/event-stream"
    ))
)]
async fn follow_site_log(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<SiteId>,
    Asked(asked): Asked<FollowQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>> {
    let ask = Follow {
        site: id,
        log: asked.log.unwrap_or(LogKind::Access),
        after: last_event(&headers),
        find: asked.find.unwrap_or_default(),
        lines: asked.lines.unwrap_or(50).clamp(1, 1_000),
    };
    streamed(&control, Watcher::Token(Box::new(caller)), ask).await
}

/// Where a stream broke off.
pub fn last_event(headers: &HeaderMap) -> Option<String> {
    let last = headers.get("last-event-id")?.to_str().ok()?;
    Some(last.to_owned()).filter(|last| !last.is_empty() && last.len() <= 80)
}

/// A log's stream as an answer.
pub async fn streamed(
    control: &Control,
    watcher: Watcher,
    ask: Follow,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>> + use<>>> {
    let receiver = tail::follow(control, watcher, ask).await?;
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep))
}
