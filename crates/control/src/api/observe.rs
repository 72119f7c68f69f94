//! Operations, metrics, audit, the support bundle.

use axum::extract::State;
use undine_api::public::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use undine_model::OperationId;
use undine_model::lifecycle::OperationState;
use uuid::Uuid;

use super::extract::{Asked, PathId, ProviderReader, Reader};
use super::reply::{Answer, Reply};
use crate::app::observe::{AuditWish, MetricsWish};
use crate::app::paging::PageWish;
use crate::app::{observe, operations, support};
use crate::control::Control;

/// Which operations.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationsQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// That work on this thing, by its id.
    subject: Option<Uuid>,
    /// In this state.
    state: Option<OperationState>,
}

/// Which audit rows.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Of this action only, such as `site.create`.
    action: Option<String>,
    /// About the customers, the plans or the brand of this reseller only (id or name); a reseller
    /// sees no others anyway.
    reseller: Option<String>,
}

/// Which measurements.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MetricsQuery {
    /// Of what kind of thing.
    subject_kind: MetricSubject,
    /// Of which one.
    subject: Uuid,
    /// How close together; ten seconds unless said otherwise.
    resolution: Option<MetricResolution>,
    /// From when, ms since 1970; an hour ago unless said otherwise.
    from: Option<i64>,
    /// Until when; now unless said otherwise.
    to: Option<i64>,
}

/// Its routes.
pub fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(get_metrics))
        .routes(routes!(list_audit))
        .routes(routes!(support_bundle))
}

/// Lists operations, newest first; an account's owner sees its own.
#[utoipa::path(
    get,
    path = "/v1/operations",
    tag = "operations",
    params(OperationsQuery),
    responses((status = 200, description = "Here it is.", body = List<Operation>))
)]
async fn list_operations(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<OperationsQuery>,
) -> Answer<List<Operation>> {
    let page = PageWish {
        limit: asked.limit,
        cursor: asked.cursor,
    };
    operations::all(&control, &caller, &page, asked.subject, asked.state)
        .await
        .map(Reply::ok)
}

/// Shows an operation with its steps.
#[utoipa::path(
    get,
    path = "/v1/operations/{id}",
    tag = "operations",
    params(("id" = OperationId, Path, description = "The operation.")),
    responses((status = 200, description = "Here it is.", body = Operation))
)]
async fn get_operation(
    Reader(caller): Reader,
    State(control): State<Control>,
    PathId(id): PathId<OperationId>,
) -> Answer<Operation> {
    operations::get(&control, &caller, id).await.map(Reply::ok)
}

/// Shows measurements of a node, a server, a site or an edge.
#[utoipa::path(
    get,
    path = "/v1/metrics",
    tag = "metrics",
    params(MetricsQuery),
    responses((status = 200, description = "Here it is.", body = Metrics))
)]
async fn get_metrics(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<MetricsQuery>,
) -> Answer<Metrics> {
    let wish = MetricsWish {
        subject_kind: asked.subject_kind,
        subject: asked.subject,
        resolution: asked.resolution.unwrap_or(MetricResolution::TenSeconds),
        from: asked.from,
        to: asked.to,
    };
    observe::metrics(&control, &caller, wish)
        .await
        .map(Reply::ok)
}

/// Lists what was done by whom, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "Here it is.", body = List<AuditRow>))
)]
async fn list_audit(
    Reader(caller): Reader,
    State(control): State<Control>,
    Asked(asked): Asked<AuditQuery>,
) -> Answer<List<AuditRow>> {
    let page = PageWish {
        limit: asked.limit,
        cursor: asked.cursor,
    };
    let which = AuditWish {
        action: asked.action,
        reseller: asked.reseller,
    };
    observe::audit(&control, &caller, &page, which)
        .await
        .map(Reply::ok)
}

/// Gathers what support needs, without secrets.
#[utoipa::path(
    get,
    path = "/v1/support-bundle",
    tag = "support",
    responses((status = 200, description = "Here it is.", body = SupportBundle))
)]
async fn support_bundle(
    ProviderReader(caller): ProviderReader,
    State(control): State<Control>,
) -> Answer<SupportBundle> {
    support::bundle(&control, &caller).await.map(Reply::ok)
}
