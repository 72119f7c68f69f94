//! The guard of a fake node: it renews the lease and answers as a witness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use undine_api::internal::LeaseAnswer;
use undine_link::{ControlClient, Credentials, Method};
use undine_model::NodeId;

use super::Inner;

const EVERY: Duration = Duration::from_millis(500);

/// Answers as a witness until the token is cancelled.
pub(super) fn start(
    listener: TcpListener,
    credentials: &Credentials,
    inner: Arc<Inner>,
    until: CancellationToken,
) {
    let router = Router::new()
        .route("/guard/v1/reach/{node}", get(reach))
        .with_state(inner);
    let credentials = credentials.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            _ = undine_link::serve(listener, &credentials, router, std::future::pending()) => {}
        }
    });
}

async fn reach(State(node): State<Arc<Inner>>, Path(other): Path<NodeId>) -> Json<Value> {
    let _ = node.called(&format!("GET reach/{other}"));
    let reachable = !node.state().unreachable.contains(&other);
    Json(json!({"node": other, "reachable": reachable, "storage": null}))
}

/// Renews every half second until the token is cancelled.
pub(super) fn renew(
    credentials: &Credentials,
    instances: &[SocketAddr],
    until: CancellationToken,
) -> anyhow::Result<()> {
    let client = ControlClient::new(credentials.clone(), instances)?;
    let renewals = async move {
        let (mut number, mut answered) = (0_u64, 0);
        loop {
            number += 1;
            let wish = json!({"number": number, "last_answered": answered});
            let path = "/internal/v1/lease";
            let answer = client
                .call::<LeaseAnswer>(Method::POST, path, Some(&wish), EVERY)
                .await;
            if answer.is_ok() {
                answered = number;
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            () = renewals => {}
        }
    });
    Ok(())
}
