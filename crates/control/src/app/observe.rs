//! Events, metrics and audit.

use undine_api::public::{
    AuditRow, Event, List, MetricPoint, MetricResolution, MetricSeries, MetricSubject, Metrics,
};
use undine_store::{AuditFilter, Db, Resolution};
use uuid::Uuid;

use super::caller::Caller;
use super::paging::{PageWish, list};
use super::{resellers, sites};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// An event as the API shows it.
pub fn show_event(event: undine_store::Event) -> Event {
    Event {
        seq: event.seq,
        kind: event.event.kind,
        subject_kind: event.event.subject_kind,
        subject: event.event.subject.to_string(),
        account: event.event.account,
        at: event.event.at,
        data: event.event.data,
    }
}

/// At most so many events at once.
const EVENTS: u32 = 200;

/// Events after this number that the caller may see.
pub async fn events(control: &Control, caller: &Caller, after: u64) -> Result<Vec<Event>> {
    let account = match &caller.sites {
        Some(_) => caller.token.account,
        None => caller.account(),
    };
    let mut events = control.store.events().after(after, account, EVENTS).await?;
    // Of an account that is reached in part, only what those sites do.
    if let Some(sites) = &caller.sites {
        events.retain(|it| sites.iter().any(|site| site.uuid() == it.event.subject));
    }
    Ok(events.into_iter().map(show_event).collect())
}

/// Which measurements.
pub struct MetricsWish {
    /// Of what.
    pub subject_kind: MetricSubject,
    /// Of which.
    pub subject: Uuid,
    /// How close together.
    pub resolution: MetricResolution,
    /// From when; an hour ago unless said otherwise.
    pub from: Option<i64>,
    /// Until when; now unless said otherwise.
    pub to: Option<i64>,
}

/// Measurements of one thing that the caller may see.
pub async fn metrics(control: &Control, caller: &Caller, wish: MetricsWish) -> Result<Metrics> {
    match wish.subject_kind {
        MetricSubject::Site => {
            sites::reach(
                control,
                caller,
                undine_model::SiteId::from_uuid(wish.subject),
            )
            .await?;
        }
        _ if caller.is_provider() => {}
        _ => {
            return Err(caller
                .stranger(control, "subject", &wish.subject.to_string())
                .await);
        }
    }
    let resolution = match wish.resolution {
        MetricResolution::TenSeconds => Resolution::Fine,
        MetricResolution::Minute => Resolution::Minute,
        MetricResolution::Hour => Resolution::Hour,
    };
    let to = wish.to.unwrap_or_else(|| now_ms() + 1);
    let from = wish.from.unwrap_or(to - 3_600_000);
    if from >= to || to - from > resolution.kept_ms() + 3_600_000 {
        return Err(Refusal::invalid(
            "from",
            format!(
                "Ask for up to {} hours at this resolution.",
                resolution.kept_ms() / 3_600_000
            ),
        ));
    }
    let series = control
        .store
        .metrics()
        .read(wish.subject, &[], from, to, resolution)
        .await?;
    Ok(Metrics {
        subject_kind: wish.subject_kind,
        subject: wish.subject.to_string(),
        resolution: wish.resolution,
        series: series
            .into_iter()
            .map(|series| MetricSeries {
                name: series.name,
                points: series
                    .points
                    .into_iter()
                    .map(|point| MetricPoint {
                        at: point.at,
                        value: point.value,
                    })
                    .collect(),
            })
            .collect(),
    })
}

/// Which audit rows.
#[derive(Debug, Default)]
pub struct AuditWish {
    /// Of this action.
    pub action: Option<String>,
    /// About the customers, the plans or the brand of this reseller (id or name).
    pub reseller: Option<String>,
}

/// One page of the audit rows that the caller may see, newest first.
pub async fn audit(
    control: &Control,
    caller: &Caller,
    wish: &PageWish,
    which: AuditWish,
) -> Result<List<AuditRow>> {
    let reseller = resellers::meant(control, caller, which.reseller.as_deref()).await?;
    let filter = AuditFilter {
        // A reseller sees what was about its customers, its plans and itself.
        account: caller.account().filter(|_| caller.reseller().is_none()),
        reseller,
        action: which.action,
        ..AuditFilter::default()
    };
    let page = control
        .store
        .audit()
        .list(&filter, wish.request(true)?)
        .await?;
    Ok(list(page, |row| AuditRow {
        id: row.id.to_string(),
        at: row.created_at,
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        account: row.account,
        reseller: row.reseller,
        outcome: row.outcome,
        request_id: row.request_id.map(|id| id.to_string()),
        ip: row.ip,
        data: row.data,
    }))
}

/// Cores in use by each of these servers, as measured within the last minute; for the provider.
pub async fn busy(
    control: &Control,
    servers: &[undine_api::public::Server],
) -> Result<std::collections::BTreeMap<String, f64>> {
    let now = now_ms();
    let mut busy = std::collections::BTreeMap::new();
    for server in servers {
        let series = control
            .store
            .metrics()
            .read(
                server.id.uuid(),
                &["cpu"],
                now - 60_000,
                now + 1,
                Resolution::Fine,
            )
            .await?;
        if let Some(point) = series.first().and_then(|series| series.points.last()) {
            busy.insert(server.id.to_string(), point.value);
        }
    }
    Ok(busy)
}

/// The number of the newest event.
pub async fn newest(control: &Control) -> Result<u64> {
    Ok(control.store.events().newest().await?)
}
