//! The paths of a fake node.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use undine_api::Problem;
use undine_api::guest::{Answer, FailureKind, Health, Upload};
use undine_api::node::{
    FetchImage, GuestCall, ImageStatus, NodeStatus, OLD_TERM, Phase, ServerStatus, StartReport,
    StartSpec, StopSpec, TERM_HEADER, TemplateState, TemplateStatus, TemplateWish, UPLOAD_HEADER,
};
use undine_link::Credentials;
use undine_model::{Bytes, ServerId};

use super::disk::{self, FakeSlot};
use super::{FakeServer, Inner};

pub(super) type Shared = State<Arc<Inner>>;
pub(super) type Answered<T> = Result<Json<T>, Refused>;

pub(super) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_GATEWAY);
        (status, Json(self.0)).into_response()
    }
}

pub(super) fn start(
    listener: tokio::net::TcpListener,
    credentials: &Credentials,
    inner: Arc<Inner>,
) -> CancellationToken {
    let router = Router::new()
        .route("/node/v1/status", get(node_status))
        .route("/node/v1/images/{hash}", put(image))
        .route("/node/v1/templates", put(template))
        .route(
            "/node/v1/replicas/{server}",
            put(disk::replica).delete(disk::remove_replica),
        )
        .route("/node/v1/servers/{server}/slots", put(disk::slots))
        .route(
            "/node/v1/servers/{server}/joins/{replica}",
            put(disk::join).delete(disk::cancel_join),
        )
        .route(
            "/node/v1/servers/{server}/scrubs/{replica}",
            put(disk::scrub).delete(disk::end_scrub),
        )
        .route(
            "/node/v1/servers/{server}",
            put(start_server).get(server).merge(delete(forget)),
        )
        .route("/node/v1/servers/{server}/stop", post(stop))
        .route("/node/v1/servers/{server}/guest", post(guest))
        .route("/node/v1/servers/{server}/releases", post(release))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(
            inner.clone(),
            of_this_life,
        ))
        .with_state(inner);
    let told = CancellationToken::new();
    let (credentials, serving) = (credentials.clone(), told.clone());
    tokio::spawn(async move {
        tokio::select! {
            // Dropped, not ended in order: whoever calls now gets no answer.
            () = serving.cancelled() => {}
            _ = undine_link::serve(listener, &credentials, router, std::future::pending()) => {}
        }
    });
    told
}

/// As a real node: orders of an earlier life of control's store are refused.
async fn of_this_life(
    State(node): Shared,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let said = request.headers().get(TERM_HEADER);
    let said = said.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if let Some(said) = said {
        let heard = {
            let mut state = node.state();
            state.term = state.term.max(said);
            state.term
        };
        if said < heard && request.method() != axum::http::Method::GET {
            let detail = format!("term {heard} has begun");
            return Refused(Problem::new(409, OLD_TERM, "An earlier life", detail)).into_response();
        }
    }
    next.run(request).await
}

async fn node_status(State(node): Shared) -> Answered<NodeStatus> {
    node.called("GET status")?;
    Ok(Json(node.status()))
}

async fn image(State(node): Shared, Json(fetch): Json<FetchImage>) -> Answered<ImageStatus> {
    let hash = fetch.manifest.hash;
    node.called(&format!("PUT images/{hash}"))?;
    node.state().images.insert(hash.clone());
    Ok(Json(ImageStatus {
        hash,
        present: true,
        have: 1,
        total: 1,
        error: None,
    }))
}

/// Holds every template whose image it holds.
async fn template(State(node): Shared, Json(wish): Json<TemplateWish>) -> Answered<TemplateStatus> {
    node.called(&format!("PUT templates {}", wish.peers.len()))?;
    let here = node.state().images.contains(&wish.image_hash);
    Ok(Json(TemplateStatus {
        name: format!("{}m-{}c", wish.memory.whole_mib(), wish.vcpus),
        state: if here {
            TemplateState::Present
        } else {
            TemplateState::Absent
        },
        have: 0,
        total: 0,
        error: None,
    }))
}

pub(super) fn status(id: ServerId, server: &FakeServer) -> ServerStatus {
    let health = Health {
        data_mounted: true,
        manifest_version: server.guest.version,
        answers: true,
        trouble: Vec::new(),
    };
    ServerStatus {
        server: id,
        epoch: server.epoch,
        phase: if server.running {
            Phase::Running
        } else {
            Phase::Stopped
        },
        error: None,
        start: server.running.then(|| StartReport {
            from_template: true,
            spare: None,
            fallback: None,
            steps_s: vec![("vm".to_owned(), 0.1), ("health".to_owned(), 0.2)],
        }),
        health: server.running.then_some(health),
        applied: server.running.then(|| undine_api::guest::Applied {
            version: server.guest.version,
            failed: Vec::new(),
        }),
        slots: server.slots.iter().map(FakeSlot::status).collect(),
    }
}

async fn start_server(
    State(node): Shared,
    Path(id): Path<ServerId>,
    Json(spec): Json<StartSpec>,
) -> Answered<ServerStatus> {
    node.called(&format!("PUT servers/{id}"))?;
    let mut state = node.state();
    let bad = state.bad_domains.clone();
    let server = state.servers.entry(id).or_default();
    let mut applied = None;
    if spec.epoch < server.epoch {
        return Err(lower_epoch(server.epoch).into());
    }
    if !server.running {
        server.running = true;
        server.epoch = spec.epoch;
        server.version = spec.version;
        server.open(&spec);
        let whole = undine_api::guest::Ask::Apply(Box::new(spec.manifest));
        if let Ok(Answer::Applied(done)) = server.guest.ask(whole, &bad) {
            applied = Some(done);
        }
    }
    let mut status = status(id, server);
    status.applied = applied.or(status.applied);
    Ok(Json(status))
}

async fn server(State(node): Shared, Path(id): Path<ServerId>) -> Answered<ServerStatus> {
    node.called(&format!("GET servers/{id}"))?;
    let state = node.state();
    let server = state.servers.get(&id).ok_or_else(|| absent(id))?;
    Ok(Json(status(id, server)))
}

pub(super) fn lower_epoch(seen: u64) -> Problem {
    Problem::new(
        409,
        "epoch",
        "A newer owner was seen",
        format!("epoch {seen} was seen here"),
    )
}

pub(super) fn absent(id: ServerId) -> Problem {
    Problem::new(
        404,
        "not-found",
        "Not here",
        format!("server {id} is not here"),
    )
}

async fn forget(State(node): Shared, Path(id): Path<ServerId>) -> Answered<()> {
    node.called(&format!("DELETE servers/{id}"))?;
    node.state().servers.remove(&id);
    Ok(Json(()))
}

async fn stop(
    State(node): Shared,
    Path(id): Path<ServerId>,
    Json(spec): Json<StopSpec>,
) -> Answered<ServerStatus> {
    node.called(&format!("POST servers/{id}/stop"))?;
    let mut state = node.state();
    let server = state.servers.get_mut(&id).ok_or_else(|| absent(id))?;
    if spec.epoch < server.epoch {
        return Err(lower_epoch(server.epoch).into());
    }
    server.running = false;
    server.slots.clear();
    Ok(Json(status(id, server)))
}

async fn guest(
    State(node): Shared,
    Path(id): Path<ServerId>,
    Json(call): Json<GuestCall>,
) -> Answered<Answer> {
    let value = serde_json::to_value(&call.ask).unwrap_or_default();
    node.called(&format!("guest {}", value["ask"].as_str().unwrap_or("?")))?;
    let mut state = node.state();
    let bad = state.bad_domains.clone();
    let server = state.servers.get_mut(&id).filter(|server| server.running);
    let server = server.ok_or_else(|| absent(id))?;
    if server.epoch != call.epoch {
        return Err(Problem::new(409, "epoch", "Another epoch", "not this epoch").into());
    }
    server
        .guest
        .ask(call.ask, &bad)
        .map(Json)
        .map_err(|failure| {
            let (status, kind) = match failure.kind {
                FailureKind::NeedsWhole => (409, "needs-whole"),
                FailureKind::NotFound => (404, "guest-not-found"),
                FailureKind::Conflict => (409, "guest-conflict"),
                FailureKind::Full => (507, "guest-full"),
                _ => (422, "guest-invalid"),
            };
            Problem::new(status, kind, "The guest refused", failure.message).into()
        })
}

async fn release(
    State(node): Shared,
    Path(id): Path<ServerId>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Answer> {
    node.called(&format!("POST servers/{id}/releases"))?;
    let wrong = |why: &str| Problem::new(422, "bad-archive", "The archive was refused", why);
    let upload: Upload = headers
        .get(UPLOAD_HEADER)
        .and_then(|value| serde_json::from_str(value.to_str().ok()?).ok())
        .ok_or_else(|| wrong("no description"))?;
    let (mut digest, mut size) = (Sha256::new(), 0_u64);
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| wrong("the archive broke off"))?;
        size += piece.len() as u64;
        digest.update(&piece);
    }
    if hex::encode(digest.finalize()) != upload.sha256 || size != upload.size {
        return Err(wrong("size or SHA-256 differ").into());
    }
    let mut state = node.state();
    let server = state.servers.get_mut(&id).ok_or_else(|| absent(id))?;
    server.guest.releases.insert(upload.release, size);
    Ok(Json(Answer::Uploaded {
        files: 1,
        bytes: Bytes(size),
    }))
}
