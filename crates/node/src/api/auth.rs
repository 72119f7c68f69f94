//! Who may ask: control, by its certificate.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use undine_api::Problem;
use undine_api::internal::Role;
use undine_link::Peer;

use super::Refusal;

/// Refuses everybody but control, before anything else is looked at.
pub async fn control_only(
    peer: Result<Peer, axum::http::StatusCode>,
    request: Request,
    next: Next,
) -> Response {
    match peer {
        Ok(peer) if peer.role() == Some(Role::Control) => next.run(request).await,
        peer => {
            let address = peer.as_ref().ok().map(|peer| peer.address);
            let role = peer
                .ok()
                .and_then(|peer| peer.role())
                .map_or("nobody known", Role::as_str);
            tracing::warn!(role, ?address, path = request.uri().path(), "refused");
            Refusal(Problem::new(
                403,
                "control-only",
                "Only control may ask this",
                format!("the caller's certificate says {role}"),
            ))
            .into_response()
        }
    }
}
