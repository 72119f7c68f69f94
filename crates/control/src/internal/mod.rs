//! What nodes, guards, edges and other instances call, under mutual TLS. One table says which
//! role may call what; everybody else is refused before anything is read.

mod blobs;
mod handlers;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use undine_api::internal::Role;
use undine_link::{Identity, Peer};

use crate::api::{VisitorAddress, outermost};
use crate::control::Control;
use crate::refusal::Refusal;

/// A path and who may call it.
pub struct Guarded {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: &'static str,
    /// Who may call it; nobody else may.
    pub who: Who,
    handler: fn() -> MethodRouter<Control>,
}

/// Who may call a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody, also without a certificate: the request itself proves what it must.
    Anybody,
    /// Programs of these roles.
    Roles(&'static [Role]),
}

impl Who {
    /// May a caller of this role?
    pub fn allows(self, role: Option<Role>) -> bool {
        match self {
            Self::Anybody => true,
            Self::Roles(roles) => role.is_some_and(|role| roles.contains(&role)),
        }
    }
}

const ALL: &[Role] = &[Role::Control, Role::Node, Role::Guard, Role::Edge];

/// Every internal path.
pub const TABLE: &[Guarded] = &[
    Guarded {
        method: Method::POST,
        path: "/internal/v1/join",
        who: Who::Anybody,
        handler: || post(handlers::join),
    },
    Guarded {
        method: Method::POST,
        path: "/internal/v1/renew",
        who: Who::Roles(ALL),
        handler: || post(handlers::renew),
    },
    Guarded {
        method: Method::GET,
        path: "/internal/v1/instances",
        who: Who::Roles(ALL),
        handler: || get(handlers::instances),
    },
    Guarded {
        method: Method::POST,
        path: "/internal/v1/lease",
        who: Who::Roles(&[Role::Guard]),
        handler: || post(handlers::lease),
    },
    Guarded {
        method: Method::GET,
        path: "/internal/v1/heard",
        who: Who::Roles(&[Role::Control]),
        handler: || get(handlers::heard),
    },
    Guarded {
        method: Method::POST,
        path: "/internal/v1/nodes/report",
        who: Who::Roles(&[Role::Node]),
        handler: || post(handlers::node_report),
    },
    Guarded {
        method: Method::GET,
        path: "/internal/v1/blobs/{hash}",
        who: Who::Roles(&[Role::Node, Role::Control]),
        handler: || get(blobs::blob),
    },
    Guarded {
        method: Method::GET,
        path: "/internal/v1/routes",
        who: Who::Roles(&[Role::Edge]),
        handler: || get(handlers::routes),
    },
    Guarded {
        method: Method::POST,
        path: "/internal/v1/edges/report",
        who: Who::Roles(&[Role::Edge]),
        handler: || post(handlers::edge_report),
    },
];

/// The internal API; what is below no internal path is the panel and the public API, for edges.
pub fn router(control: &Control) -> Router {
    let mut router = Router::new();
    for guarded in TABLE {
        let guard = middleware::from_fn_with_state((control.clone(), guarded.who), guard);
        router = router.route(guarded.path, (guarded.handler)().route_layer(guard));
    }
    let panel = crate::api::router(control, false).layer(middleware::from_fn_with_state(
        (control.clone(), Who::Roles(&[Role::Edge, Role::Control])),
        through_edge,
    ));
    router
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .layer(middleware::from_fn(outermost))
        .with_state(control.clone())
        .fallback_service(panel)
}

fn identity_of(request: &Request) -> Option<Identity> {
    request
        .extensions()
        .get::<ConnectInfo<Peer>>()
        .and_then(|info| info.0.identity.clone())
}

async fn check(control: &Control, who: Who, identity: Option<Identity>) -> Result<(), Refusal> {
    if !who.allows(identity.as_ref().map(|identity| identity.role)) {
        return Err(Refusal::of(
            403,
            "wrong-role",
            "Not open to this caller",
            match &identity {
                Some(identity) => format!(
                    "A program of the role {} may not call this.",
                    identity.role.as_str()
                ),
                None => "This needs a certificate of the cluster.".to_owned(),
            },
        )
        .remedy("Programs get their certificate when they join."));
    }
    match (who, identity) {
        (Who::Roles(_), Some(identity)) => crate::app::joining::still_in(control, &identity).await,
        _ => Ok(()),
    }
}

async fn guard(
    State((control, who)): State<(Control, Who)>,
    request: Request,
    next: Next,
) -> Response {
    // Programs call without a visitor. A visitor whom an edge let through would come with the
    // edge's certificate: the edges refuse such paths, and so do we.
    if request.headers().contains_key("x-forwarded-for") {
        return Refusal::of(
            404,
            "not-found",
            "There is no such page",
            "This path is for programs of the cluster.",
        )
        .into_response();
    }
    match check(&control, who, identity_of(&request)).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// An edge passes the visitor's address on; from nobody else is it believed.
async fn through_edge(
    State((control, who)): State<(Control, Who)>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = check(&control, who, identity_of(&request)).await {
        // `outermost` is inside of this layer: the problem is written here.
        let body = axum::Json((*refusal.0).clone());
        let status = refusal.status();
        return (status, body).into_response();
    }
    let visitor = request.headers().get("x-forwarded-for").and_then(|value| {
        value
            .to_str()
            .ok()?
            .rsplit(',')
            .next()
            .map(|text| text.trim().to_owned())
    });
    if let Some(address) = visitor.filter(|text| text.parse::<std::net::IpAddr>().is_ok()) {
        request.extensions_mut().insert(VisitorAddress(address));
    }
    next.run(request).await
}
