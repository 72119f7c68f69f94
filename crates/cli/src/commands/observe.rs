//! Operations, audit, events, metrics, the support bundle.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::StreamExt;
use undine_api::public::{MetricResolution, MetricSubject};
use undine_client::{GetMetricsQuery, ListAuditQuery, StreamEventsQuery};

use super::{Context, every};
use crate::args::{Audit, MetricKind, Metrics, Operation, ResolutionName};
use crate::show::say;
use crate::wait::wait;

const OPERATIONS: [(&str, &str); 5] = [
    ("ID", "id"),
    ("KIND", "kind"),
    ("STATE", "state"),
    ("PROGRESS", "progress"),
    ("MADE", "created_at"),
];
const AUDIT: [(&str, &str); 5] = [
    ("WHEN", "at"),
    ("WHO", "actor"),
    ("WHAT", "action"),
    ("TO WHAT", "subject"),
    ("OUTCOME", "outcome"),
];

pub async fn operation(context: &Context, command: Operation) -> Result<()> {
    match command {
        Operation::List => context.list(
            &every!(context, every_operations, ListOperationsQuery),
            &OPERATIONS,
        ),
        Operation::Show { operation } => {
            context.tell(&context.client.get_operation(operation).await?)
        }
        Operation::Wait { operation } => context.tell(&wait(&context.client, operation).await?),
    }
}

pub async fn audit(context: &Context, command: Audit) -> Result<()> {
    let Audit::List { action, reseller } = command;
    let query = ListAuditQuery {
        action,
        reseller,
        ..ListAuditQuery::default()
    };
    context.list(&context.client.every_audit(query).await?, &AUDIT)
}

/// Prints events as they come, until interrupted.
pub async fn events(context: &Context, after: Option<u64>) -> Result<()> {
    let response = context
        .client
        .stream_events(&StreamEventsQuery { after })
        .await?;
    let mut stream = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(piece) = stream.next().await {
        rest.extend_from_slice(&piece.context("the stream of events broke off")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(data) = String::from_utf8_lossy(&line).strip_prefix("data:") {
                say!("{}", data.trim());
            }
        }
    }
    Ok(())
}

pub async fn metrics(context: &Context, wanted: &Metrics) -> Result<()> {
    let query = GetMetricsQuery {
        subject_kind: match wanted.kind {
            MetricKind::Node => MetricSubject::Node,
            MetricKind::Server => MetricSubject::Server,
            MetricKind::Site => MetricSubject::Site,
            MetricKind::Edge => MetricSubject::Edge,
        },
        subject: wanted.id,
        resolution: Some(match wanted.resolution {
            ResolutionName::TenSeconds => MetricResolution::TenSeconds,
            ResolutionName::Minute => MetricResolution::Minute,
            ResolutionName::Hour => MetricResolution::Hour,
        }),
        from: None,
        to: None,
    };
    let answer = context.client.get_metrics(&query).await?;
    if context.json {
        return context.tell(&answer);
    }
    for series in &answer.series {
        let last = series.points.last();
        let value = last.map_or_else(|| "-".to_owned(), |point| point.value.to_string());
        say!("{:28} {value}", series.name);
    }
    Ok(())
}

pub async fn support_bundle(context: &Context, out: &Path) -> Result<()> {
    let bundle = context.client.support_bundle().await?;
    std::fs::write(out, serde_json::to_vec_pretty(&bundle)?)
        .with_context(|| format!("{} cannot be written", out.display()))?;
    if context.json {
        return context.tell(&serde_json::json!({ "file": out }));
    }
    say!(
        "{} holds no secrets; read it before you send it",
        out.display()
    );
    Ok(())
}
