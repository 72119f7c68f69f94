//! What stands before every request: its id, who sends it, the size of its body, and requests that
//! come twice.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use undine_api::problem::PROBLEM_JSON;
use undine_api::public::{IDEMPOTENCY_KEY, MAX_JSON, REQUEST_ID};
use undine_model::SiteId;
use undine_store::{Begun, Db, SavedResponse};
use uuid::Uuid;

use super::extract::too_large;
use crate::app::caller::Caller;
use crate::app::reseller_suspend::{self, behind};
use crate::clock::{now_ms, sha256};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// The id of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

/// Where a request comes from, when an edge says so.
#[derive(Debug, Clone)]
pub struct VisitorAddress(pub String);

/// Gives the request an id and writes the problem, if one comes out.
pub async fn outermost(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    request.extensions_mut().insert(RequestId(id));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(Refusal(mut problem)) = response.extensions_mut().remove::<Refusal>() {
        problem.request_id = Some(id.to_string());
        let status = response.status();
        tracing::info!(%id, %method, path, status = status.as_u16(), kind = problem.kind, "refused");
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let headers = std::mem::take(response.headers_mut());
        response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        copy(&headers, response.headers_mut(), &header::ALLOW);
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(REQUEST_ID), value);
    }
    response
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let Some(value) = from.get(name) {
        to.insert(name, value.clone());
    }
}

/// Lets in who has a token, with a body of a sensible size, once for each idempotency key.
pub async fn door(State(control): State<Control>, request: Request, next: Next) -> Response {
    match pass(&control, request, next).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn pass(control: &Control, mut request: Request, next: Next) -> Result<Response> {
    let caller = caller(
        control,
        request.headers().clone(),
        request.extensions().clone(),
    )
    .await?;
    if !request.method().is_safe() {
        caller.may_change()?;
    }
    request.extensions_mut().insert(caller.clone());
    let path = request.uri().path();
    // Streamed through: their size is judged where they are taken.
    let streamed = (request.method() == Method::POST && path.ends_with("/releases"))
        || (request.method() == Method::PUT && path.ends_with("/files/content"));
    let key = idempotency_key(&request)?;
    let mut hash = format!("{} {}", request.method(), request.uri());
    if !streamed {
        let (parts, body) = request.into_parts();
        let bytes = whole_body(&parts.headers, body).await?;
        hash = format!("{hash} {}", sha256(&bytes));
        request = Request::from_parts(parts, Body::from(bytes));
    }
    match key {
        Some(key) if request.method() == Method::POST => {
            once(control, &caller, &key, &sha256(hash), request, next).await
        }
        _ => Ok(next.run(request).await),
    }
}

async fn caller(
    control: &Control,
    headers: HeaderMap,
    extensions: axum::http::Extensions,
) -> Result<Caller> {
    let secret = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "))
        .ok_or_else(Refusal::unauthorized)?;
    let now = now_ms();
    let token = control
        .store
        .tokens()
        .by_secret(&sha256(secret.trim()), now)
        .await?
        .ok_or_else(Refusal::unauthorized)?;
    if token.last_used_at.is_none_or(|used| now - used > 60_000) {
        control.store.tokens().touch(token.id, now).await?;
    }
    let id = extensions
        .get::<RequestId>()
        .map_or_else(Uuid::nil, |id| id.0);
    let ip = extensions
        .get::<VisitorAddress>()
        .map(|address| address.0.clone());
    let narrow = token.sites.as_ref();
    Ok(Caller {
        sites: narrow.map(|ids| ids.iter().map(|id| SiteId::from_uuid(*id)).collect()),
        stopped: reseller_suspend::stopped(&control.store, behind(&token)).await?,
        token,
        person: None,
        request_id: id,
        ip,
    })
}

fn idempotency_key(request: &Request) -> Result<Option<String>> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > 200 {
        return Err(Refusal::invalid(
            IDEMPOTENCY_KEY,
            "An idempotency key has 1 to 200 printable characters.",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Reads the body, up to the size of a request of ours. What is beyond is read and thrown away
/// for a while: a client that is still sending does not hear an answer.
async fn whole_body(headers: &HeaderMap, body: Body) -> Result<Bytes> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    let mut stream = body.into_data_stream();
    let mut whole = Vec::with_capacity(announced.min(MAX_JSON));
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| {
            Refusal::of(
                400,
                "broken-body",
                "The body broke off",
                crate::refusal::capital(&error.to_string()),
            )
        })?;
        if announced > MAX_JSON || whole.len() + piece.len() > MAX_JSON {
            drain(stream).await;
            return Err(too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_FOR: Duration = Duration::from_secs(15);

async fn drain(mut stream: axum::body::BodyDataStream) {
    let all = async {
        let mut seen = 0;
        while let Some(Ok(piece)) = stream.next().await {
            seen += piece.len();
            if seen > DRAIN_BYTES {
                break;
            }
        }
    };
    // Whoever sends for longer than this hears nothing.
    let _ = tokio::time::timeout(DRAIN_FOR, all).await;
}

/// An instance that dies over a request blocks its key for this long.
const BUSY_MS: i64 = 60_000;
/// An answer is given again for this long.
const REMEMBER_MS: i64 = 24 * 3_600_000;
const MAX_ANSWER: usize = 4 << 20;

/// Does the work once, and gives later requests with the same key the same answer.
async fn once(
    control: &Control,
    caller: &Caller,
    key: &str,
    hash: &str,
    request: Request,
    next: Next,
) -> Result<Response> {
    let keys = control.store.idempotency();
    let token = caller.token.id;
    let purpose = format!("answer/{token}/{key}");
    match keys.begin(key, token, hash, now_ms(), BUSY_MS).await? {
        Begun::Fresh => {}
        Begun::InProgress => {
            return Err(Refusal::conflict(
                "in-progress",
                "The same request is being worked on",
                "A request with this idempotency key is not answered yet.",
            )
            .remedy("Send it again in a moment."));
        }
        Begun::OtherRequest => {
            return Err(Refusal::of(
                422,
                "idempotency-key-reused",
                "The key belongs to another request",
                "This idempotency key came with another request before.",
            )
            .field(IDEMPOTENCY_KEY)
            .remedy("Use a fresh key for each new request."));
        }
        Begun::Done(saved) => return replay(control, &purpose, &saved),
    }
    let response = next.run(request).await;
    if !response.status().is_success() {
        keys.abandon(key, token).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_ANSWER)
        .await
        .map_err(|error| Refusal::internal(&error))?;
    // Sealed: the answer to a new token or database holds its secret.
    let saved = SavedResponse {
        status: parts.status.as_u16(),
        body: control.secrets.seal(&purpose, &bytes),
    };
    keys.finish(key, token, &saved, now_ms() + REMEMBER_MS)
        .await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn replay(control: &Control, purpose: &str, saved: &SavedResponse) -> Result<Response> {
    let body = control
        .secrets
        .open(purpose, &saved.body)
        .map_err(|error| Refusal::internal(&error))?;
    let status = StatusCode::from_u16(saved.status).unwrap_or(StatusCode::OK);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (
            HeaderName::from_static("idempotent-replay"),
            HeaderValue::from_static("true"),
        ),
    ];
    Ok((status, headers, body.to_string()).into_response())
}
