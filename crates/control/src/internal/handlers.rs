//! Joining, renewing, leases, reports and the edges' routes.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use undine_api::edge::{EdgeReport, RouteUpdate};
use undine_api::guard::Owned;
use undine_api::internal::{
    Heard, Instances, JoinAnswer, JoinRequest, LeaseAnswer, LeaseRequest, NodeReport, RenewAnswer,
    RenewRequest, Role,
};
use undine_failover::membership::confirms;
use undine_link::Peer;
use undine_model::NodeId;
use undine_model::lifecycle::NodeState;
use undine_store::{Db, Lease, ServerFilter};

use crate::api::extract::Body;
use crate::app::{cluster, joining, reports};
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::leases::LEASE_MS;
use crate::memory::is_doubted;
use crate::refusal::{Refusal, Result};
use crate::routes::update_after;

pub(super) async fn join(
    State(control): State<Control>,
    Body(wish): Body<JoinRequest>,
) -> Result<Json<JoinAnswer>> {
    joining::join(&control, wish).await.map(Json)
}

pub(super) async fn renew(
    State(control): State<Control>,
    peer: Peer,
    Body(wish): Body<RenewRequest>,
) -> Result<Json<RenewAnswer>> {
    let identity = peer.identity.ok_or_else(Refusal::unauthorized)?;
    joining::renew(&control, &identity, &wish.csr)
        .await
        .map(Json)
}

pub(super) async fn instances(State(control): State<Control>) -> Result<Json<Instances>> {
    cluster::addresses(&control.store).await.map(Json)
}

/// The caller's id, when it has this role.
fn id_as<T: std::str::FromStr>(peer: &Peer, role: Role) -> Result<T> {
    peer.id_as(role)
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Refusal::forbidden("The certificate names no program that this is open to."))
}

pub(super) async fn lease(
    State(control): State<Control>,
    peer: Peer,
    Body(wish): Body<LeaseRequest>,
) -> Result<Json<LeaseAnswer>> {
    // Only a guard that has heard an answer proves a round trip; its first try has heard none.
    let node = id_as(&peer, Role::Guard)?;
    let now = std::time::Instant::now();
    if control
        .heard
        .renewed(node, wish.number, wish.last_answered, now)
    {
        control.leases.renewed(Lease {
            node,
            number: wish.number,
            renewed_at: now_ms(),
        });
    }
    Ok(Json(LeaseAnswer {
        number: wish.number,
        lease_ms: LEASE_MS,
        owns: owned(&control, node, wish.confirm).await,
        peers: control.leases.peers_of(node),
    }))
}

/// What the node owns, read now; none when it was not asked for or cannot be told for certain.
async fn owned(control: &Control, node: NodeId, asked: bool) -> Option<Vec<Owned>> {
    if !asked {
        return None;
    }
    let filter = ServerFilter {
        node: Some(node),
        ..ServerFilter::default()
    };
    // Nothing is committed for what would not be told.
    if !are_known(control, &filter).await.ok()? || !confirm(control, node).await.ok()? {
        return None;
    }
    let servers = control.store.servers().all(&filter).await.ok()?;
    let is_trusted = are_known(control, &filter).await.ok()?;
    let records: Vec<_> = servers.iter().map(|it| copies::record(it, &[])).collect();
    // Read last: whom an operator has declared dead meanwhile is told nothing.
    let found = control.store.nodes().find(node).await.ok()?;
    let is_dead = found.is_none_or(|it| it.state == NodeState::Fenced);
    let owned = confirms(node, is_dead, is_trusted, &records)?;
    let owned = owned.into_iter();
    Some(
        owned
            .map(|(server, epoch)| Owned { server, epoch })
            .collect(),
    )
}

/// The store is not in doubt about any of these servers.
async fn are_known(control: &Control, filter: &ServerFilter) -> Result<bool> {
    for server in control.store.servers().all(filter).await? {
        if is_doubted(&control.store, server.id).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Commits that the node is confirmed what it owns, before it is told: whoever is about to declare
/// it dead sees that its record has changed, and waits. Tells whether it may be told.
async fn confirm(control: &Control, node: NodeId) -> Result<bool> {
    let tx = control.store.begin().await?;
    let found = tx.nodes().lock(node).await?;
    if matches!(found.state, NodeState::Fenced | NodeState::Removed) {
        return Ok(false);
    }
    tx.nodes().update(&found, now_ms()).await?;
    tx.commit().await?;
    control.failpoints.pass("lease/confirm/committed").await;
    Ok(true)
}

pub(super) async fn node_report(
    State(control): State<Control>,
    peer: Peer,
    Body(report): Body<NodeReport>,
) -> Result<Json<()>> {
    let node = id_as(&peer, Role::Node)?;
    if report.status.node != node {
        return Err(Refusal::forbidden("A node reports about itself only."));
    }
    reports::node(&control, node, &report).await.map(Json)
}

pub(super) async fn edge_report(
    State(control): State<Control>,
    peer: Peer,
    Body(report): Body<EdgeReport>,
) -> Result<Json<()>> {
    let edge = id_as(&peer, Role::Edge)?;
    reports::edge(&control, edge, &report).await.map(Json)
}

/// What an edge has and how long it waits.
#[derive(Deserialize)]
pub(super) struct RoutesQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_s: u64,
}

const LONGEST_WAIT_S: u64 = 30;
/// Changes of other instances are noticed at the latest after this.
const LOOK: Duration = Duration::from_secs(2);

pub(super) async fn routes(
    State(control): State<Control>,
    Query(asked): Query<RoutesQuery>,
) -> Result<Json<RouteUpdate>> {
    let until = tokio::time::Instant::now() + Duration::from_secs(asked.wait_s.min(LONGEST_WAIT_S));
    let mut changes = control.store.changes();
    loop {
        let update = update_after(&control, asked.after).await?;
        let news = update.whole || update.version != asked.after;
        let now = tokio::time::Instant::now();
        if news || now >= until {
            return Ok(Json(update));
        }
        let route = changes.mark().route;
        let wait = LOOK.min(until - now);
        // Events wake too; the routes are read only when they moved or the time is over.
        let _ = tokio::time::timeout(wait, async {
            while let Ok(mark) = changes.next().await {
                if mark.route != route {
                    break;
                }
            }
        })
        .await;
    }
}

/// How long ago this instance heard each node: other instances ask before they declare one dead.
pub(super) async fn heard(State(control): State<Control>) -> Json<Heard> {
    let ages = control.heard.ages(std::time::Instant::now());
    let ages_ms = ages
        .into_iter()
        .map(|(node, age)| (node, age.as_millis().min(u128::from(u64::MAX)) as u64))
        .collect();
    Json(Heard { ages_ms })
}
