//! The public REST API, `/v1`: handlers are thin, one file a resource; the use cases are in
//! `app`. `door` stands before all of it, `extract` reads requests, `reply` writes answers.

mod accounts;
mod cluster;
mod databases;
mod door;
pub mod download;
mod events;
pub mod extract;
mod files;
pub mod logs;
mod observe;
mod plans;
mod releases;
mod reply;
mod resellers;
mod servers;
mod settings;
mod sites;
mod spec;
mod tokens;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use crate::control::Control;
use crate::refusal::Refusal;

pub use door::{RequestId, VisitorAddress, outermost};
pub use spec::document;

/// Every route of `/v1`, with its description.
fn described() -> OpenApiRouter<Control> {
    OpenApiRouter::with_openapi(spec::head())
        .merge(accounts::routes())
        .merge(cluster::routes())
        .merge(databases::routes())
        .merge(events::routes())
        .merge(files::routes())
        .merge(logs::routes())
        .merge(observe::routes())
        .merge(plans::routes())
        .merge(releases::routes())
        .merge(resellers::routes())
        .merge(servers::routes())
        .merge(settings::routes())
        .merge(sites::routes())
        .merge(tokens::routes())
}

/// The public API, whole. `metrics` adds the operator's page for Prometheus, which has no token
/// and belongs on a loopback address only.
pub fn router(control: &Control, metrics: bool) -> Router {
    let (api, _) = described().split_for_parts();
    let mut router = api
        .route_layer(middleware::from_fn_with_state(control.clone(), door::door))
        .route("/healthz", axum::routing::get(healthz))
        .route(
            "/openapi.json",
            axum::routing::get(|| async { axum::Json(spec::document()) }),
        )
        .merge(crate::pages::router(control));
    if metrics {
        router = router.route(
            "/metrics",
            axum::routing::get(crate::background::prometheus::page),
        );
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(outermost))
        .with_state(control.clone())
}

async fn unknown(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(120).collect();
    Refusal::of(
        404,
        "no-such-path",
        "There is nothing at this path",
        format!("Nothing is at {path}."),
    )
    .remedy("See /openapi.json for what is there.")
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(120).collect();
    Refusal::of(
        405,
        "method-not-allowed",
        "This path does not take that method",
        format!("{path} does not take {method}."),
    )
    .remedy("See /openapi.json for what it takes.")
}

async fn healthz(State(control): State<Control>) -> impl IntoResponse {
    match control.store.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer\n",
        ),
    }
}
