//! What the provider decides for the whole cluster.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, IfMatch, Provider, ProviderReader};
use super::reply::{Answer, Reply};
use crate::app::settings;
use crate::control::Control;

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new().routes(routes!(get_failover_policy, update_failover_policy))
}

/// Shows how patient the cluster is with silent nodes, and how it copies disks.
#[utoipa::path(
    get,
    path = "/v1/settings/failover",
    tag = "cluster",
    responses((status = 200, description = "Here it is.", body = FailoverPolicy))
)]
async fn get_failover_policy(
    _: ProviderReader,
    State(control): State<Control>,
) -> Answer<FailoverPolicy> {
    let policy = settings::failover(&control).await?;
    Ok(Reply::at(policy.version, policy))
}

/// Changes that, from now on.
#[utoipa::path(
    patch,
    path = "/v1/settings/failover",
    tag = "cluster",
    request_body = UpdateFailoverPolicy,
    responses((status = 200, description = "Here it is.", body = FailoverPolicy))
)]
async fn update_failover_policy(
    Provider(caller): Provider,
    State(control): State<Control>,
    IfMatch(expected): IfMatch,
    Body(wish): Body<UpdateFailoverPolicy>,
) -> Answer<FailoverPolicy> {
    let policy = settings::change_failover(&control, &caller, expected, wish).await?;
    Ok(Reply::at(policy.version, policy))
}
