//! What the guard answers (see `undine_api::guard`): to control and to other nodes' guards, and to
//! nobody else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use undine_api::Problem;
use undine_api::guard::{Alive, Peer, Reach};
use undine_api::internal::Role;
use undine_api::problem::PROBLEM_JSON;
use undine_model::NodeId;

use crate::lease::State as LeaseState;
use crate::shared::{Shared, boottime_ms};
use crate::witness::Witness;

/// Every endpoint: method and path.
pub const ENDPOINTS: [(&str, &str); 2] = [
    ("GET", "/guard/v1/alive"),
    ("GET", "/guard/v1/reach/{node}"),
];

/// What the handlers need.
#[derive(Debug)]
pub struct Served {
    /// This node.
    pub node: NodeId,
    /// The brain.
    pub shared: Arc<Shared>,
    /// Who tries other nodes.
    pub witness: Arc<Witness>,
}

/// The guard's API.
pub fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/guard/v1/alive", get(alive))
        .route("/guard/v1/reach/{node}", get(reach))
        .fallback(not_found)
        .layer(middleware::from_fn(guards_and_control))
        .with_state(served)
}

/// A problem as an answer.
struct Refusal(Problem);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response()
    }
}

async fn guards_and_control(
    peer: Result<undine_link::Peer, StatusCode>,
    request: Request,
    next: Next,
) -> Response {
    let role = peer.ok().and_then(|peer| peer.role());
    if matches!(role, Some(Role::Guard | Role::Control)) {
        return next.run(request).await;
    }
    let said = role.map_or("nobody known", Role::as_str);
    Refusal(
        Problem::new(
            403,
            "wrong-role",
            "Not open to this caller",
            format!("only guards and control may ask this; the caller's certificate says {said}"),
        )
        .remedy("programs get their certificate when they join"),
    )
    .into_response()
}

async fn not_found() -> Refusal {
    Refusal(Problem::new(
        404,
        "no-endpoint",
        "No such endpoint",
        "the guard's API has no such path",
    ))
}

async fn alive(State(served): State<Arc<Served>>) -> Json<Alive> {
    let brain = served.shared.brain();
    Json(Alive {
        node: served.node,
        held: brain.state(boottime_ms()) == LeaseState::Held,
        isolated: brain.is_isolated(),
        paused: brain.ledger().servers(),
    })
}

#[derive(Deserialize)]
struct Where {
    address: Option<String>,
    storage: Option<String>,
}

async fn reach(
    State(served): State<Arc<Served>>,
    Path(node): Path<String>,
    Query(asked): Query<Where>,
) -> Result<Json<Reach>, Refusal> {
    let node: NodeId = node.parse().map_err(|error: undine_model::id::InvalidId| {
        let problem = Problem::new(422, "no-node", "No such node", error.to_string());
        Refusal(problem.field("node").remedy("give the node's id"))
    })?;
    let missing = || bad_address("address", "it is missing");
    let address = asked.address.ok_or_else(missing)?;
    let peer = Peer {
        node,
        address: parse("address", &address)?,
        storage: asked
            .storage
            .map(|text| parse("storage", &text))
            .transpose()?,
    };
    Ok(Json(served.witness.reach(&peer).await))
}

fn parse(field: &'static str, text: &str) -> Result<SocketAddr, Refusal> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err(bad_address(field, "port 0 is nobody's")),
        Err(_) => Err(bad_address(field, &format!("`{text}` is not IP:PORT"))),
    }
}

fn bad_address(field: &'static str, why: &str) -> Refusal {
    let problem = Problem::new(
        422,
        "bad-address",
        "The address cannot be used",
        format!("{field}: {why}"),
    );
    let remedy = "give the address of the node's agent, such as 10.0.0.7:7300";
    Refusal(problem.field(field).remedy(remedy))
}
