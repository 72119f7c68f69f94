//! The stream of events: server-sent, taken up again where it broke off.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as Sent, KeepAlive};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use undine_store::Db;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Asked, Reader};
use crate::app::caller::Caller;
use crate::app::observe;
use crate::control::Control;
use crate::refusal::Result;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new().routes(routes!(stream_events))
}

/// From where.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Everything after this number; from now on unless said otherwise. `Last-Event-ID` says the
    /// same and counts more.
    after: Option<u64>,
}

/// Tells what happens as it happens, as server-sent events; `data` is an `Event`.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(EventsQuery),
    responses((
        status = 200,
        description = "A stream that ends when the client goes.",
        body = undine_api::public::Event,
        content_type = "text/event-stream"
    ))
)]
async fn stream_events(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>> {
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let after = match last.or(asked.after) {
        Some(after) => after,
        None => control.store.events().newest().await?,
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(follow(control, caller, after, sender));
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep))
}

/// Changes of other instances are noticed at the latest after this.
const LOOK: Duration = Duration::from_secs(5);

async fn follow(
    control: Control,
    caller: Caller,
    mut after: u64,
    sender: tokio::sync::mpsc::Sender<Result<Sent, Infallible>>,
) {
    let mut changes = control.store.changes();
    loop {
        // A token that ends, ends its streams too.
        let now = crate::clock::now_ms();
        let valid = control
            .store
            .tokens()
            .by_secret(&caller.token.secret_sha256, now)
            .await;
        let Ok(Some(_)) = valid else { return };
        let Ok(events) = observe::events(&control, &caller, after).await else {
            return;
        };
        for event in &events {
            after = event.seq;
            let sent = Sent::default().id(event.seq.to_string()).event(&event.kind);
            let Ok(sent) = sent.json_data(event) else {
                continue;
            };
            if sender.send(Ok(sent)).await.is_err() {
                return;
            }
        }
        if events.is_empty() {
            tokio::select! {
                () = sender.closed() => return,
                _ = tokio::time::timeout(LOOK, changes.next()) => {}
            }
        }
    }
}
