//! What control may ask of the node (see `undine_api::node`), and nobody else; templates alone are
//! for other nodes.

pub mod auth;
pub mod guest;
pub mod json;
pub mod routes;
pub mod templates;
pub mod term;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use undine_api::Problem;
use undine_api::problem::PROBLEM_JSON;

use crate::agent::Agent;

/// The largest request that is not an upload: a whole manifest with room to spare.
const BODY_LIMIT: usize = 20 << 20;

/// Every endpoint: method and path.
pub const ENDPOINTS: [(&str, &str); 16] = [
    ("GET", "/node/v1/status"),
    ("PUT", "/node/v1/images/{hash}"),
    ("PUT", "/node/v1/templates"),
    ("PUT", "/node/v1/replicas/{server}"),
    ("DELETE", "/node/v1/replicas/{server}"),
    ("PUT", "/node/v1/servers/{server}"),
    ("GET", "/node/v1/servers/{server}"),
    ("DELETE", "/node/v1/servers/{server}"),
    ("POST", "/node/v1/servers/{server}/stop"),
    ("PUT", "/node/v1/servers/{server}/slots"),
    ("PUT", "/node/v1/servers/{server}/joins/{replica}"),
    ("DELETE", "/node/v1/servers/{server}/joins/{replica}"),
    ("PUT", "/node/v1/servers/{server}/scrubs/{replica}"),
    ("DELETE", "/node/v1/servers/{server}/scrubs/{replica}"),
    ("POST", "/node/v1/servers/{server}/guest"),
    ("POST", "/node/v1/servers/{server}/releases"),
];

/// The node's API, open to control alone.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/node/v1/status", get(routes::status))
        .route("/node/v1/images/{hash}", put(routes::image))
        .route("/node/v1/templates", put(templates::put))
        .route("/node/v1/replicas/{server}", put(routes::replica))
        .route("/node/v1/replicas/{server}", delete(routes::remove_replica))
        .route("/node/v1/servers/{server}", put(routes::start))
        .route("/node/v1/servers/{server}", get(routes::server))
        .route("/node/v1/servers/{server}", delete(routes::forget))
        .route("/node/v1/servers/{server}/stop", post(routes::stop))
        .route("/node/v1/servers/{server}/slots", put(routes::slots))
        .route(
            "/node/v1/servers/{server}/joins/{replica}",
            put(routes::join).delete(routes::cancel_join),
        )
        .route(
            "/node/v1/servers/{server}/scrubs/{replica}",
            put(routes::scrub).delete(routes::end_scrub),
        )
        .route("/node/v1/servers/{server}/guest", post(guest::ask))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        // Streamed through, never held: its size is the guest's to judge.
        .route(
            "/node/v1/servers/{server}/releases",
            post(guest::upload).layer(DefaultBodyLimit::disable()),
        )
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(
            agent.clone(),
            term::of_this_life,
        ))
        .layer(middleware::from_fn(auth::control_only))
        .merge(for_nodes())
        .with_state(agent)
}

/// What other nodes may ask.
fn for_nodes() -> Router<Arc<Agent>> {
    Router::new()
        .route("/node/v1/templates/{name}", get(templates::serve))
        .layer(middleware::from_fn(templates::nodes_only))
}

async fn not_found() -> Refusal {
    Refusal(Problem::new(
        404,
        "no-endpoint",
        "No such endpoint",
        "the node's API has no such path",
    ))
}

/// A problem as an answer.
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.0.status)
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(
                kind = self.0.kind,
                detail = self.0.detail,
                "a request failed"
            );
        }
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (
            status,
            [(axum::http::header::CONTENT_TYPE, PROBLEM_JSON)],
            body,
        )
            .into_response()
    }
}
