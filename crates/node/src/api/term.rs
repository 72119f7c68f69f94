//! Every request of control says which life of its store it was read from. A question makes the
//! node hear of it; an order of an earlier life is refused, and a good one is carried out to its
//! end even if the caller goes away, so that a later question is answered with what it did.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use undine_api::node::TERM_HEADER;

use super::Refusal;
use crate::agent::Agent;
use crate::problems;

/// Below these nothing is decided about disks; what is asked there may take long.
const HARMLESS: [&str; 2] = ["/guest", "/releases"];

/// Hears the term and refuses what is of an earlier one. An older control says none.
pub async fn of_this_life(
    State(agent): State<Arc<Agent>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(said) = said(request.headers()) else {
        return next.run(request).await;
    };
    if let Err(problem) = agent.terms().hear(said).await {
        return Refusal(problem).into_response();
    }
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let held = match agent.terms().hold(said).await {
        Ok(held) => held,
        Err(problem) => return Refusal(problem).into_response(),
    };
    let path = request.uri().path();
    if HARMLESS.iter().any(|end| path.ends_with(end)) {
        drop(held);
        return next.run(request).await;
    }
    let order = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(held);
        response
    });
    order
        .await
        .unwrap_or_else(|error| Refusal(problems::internal(error.to_string())).into_response())
}

fn said(headers: &HeaderMap) -> Option<u64> {
    headers.get(TERM_HEADER)?.to_str().ok()?.parse().ok()
}
