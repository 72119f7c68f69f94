//! Operations, audit, events, metrics, the support bundle.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;

use super::Context;
use crate::args::{MetricKind, Metrics, Operation, ResolutionName};
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
        Operation::List => context.list("/v1/operations", &OPERATIONS).await,
        Operation::Show { operation } => context.look(&format!("/v1/operations/{operation}")).await,
        Operation::Wait { operation } => {
            let done = wait(&context.client, &operation).await?;
            context.tell(&serde_json::to_value(done)?)
        }
    }
}

pub async fn audit(context: &Context) -> Result<()> {
    context.list("/v1/audit", &AUDIT).await
}

/// Prints events as they come, until interrupted.
pub async fn events(context: &Context, after: Option<u64>) -> Result<()> {
    let mut request = context.client.request(Method::GET, "/v1/events");
    if let Some(after) = after {
        request = request.header("last-event-id", after.to_string());
    }
    let response = context
        .client
        .send(request.header("accept", "text/event-stream"))
        .await?;
    let mut stream = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(piece) = stream.next().await {
        rest.extend_from_slice(&piece.context("the stream of events broke off")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(data) = String::from_utf8_lossy(&line).strip_prefix("data:") {
                println!("{}", data.trim());
            }
        }
    }
    Ok(())
}

pub async fn metrics(context: &Context, wanted: &Metrics) -> Result<()> {
    let kind = match wanted.kind {
        MetricKind::Node => "node",
        MetricKind::Server => "server",
        MetricKind::Site => "site",
        MetricKind::Edge => "edge",
    };
    let resolution = match wanted.resolution {
        ResolutionName::TenSeconds => "ten_seconds",
        ResolutionName::Minute => "minute",
        ResolutionName::Hour => "hour",
    };
    let path = format!(
        "/v1/metrics?subject_kind={kind}&subject={}&resolution={resolution}",
        wanted.id
    );
    let answer: Value = context.client.get(&path).await?;
    if context.json {
        return context.tell(&answer);
    }
    for series in answer
        .get("series")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let last = series
            .get("points")
            .and_then(Value::as_array)
            .and_then(|points| points.last());
        let value = last
            .and_then(|point| point.get("value"))
            .unwrap_or(&Value::Null);
        println!(
            "{:28} {value}",
            series.get("name").and_then(Value::as_str).unwrap_or("")
        );
    }
    Ok(())
}

pub async fn support_bundle(context: &Context, out: &Path) -> Result<()> {
    let bundle: Value = context.client.get("/v1/support-bundle").await?;
    std::fs::write(out, serde_json::to_vec_pretty(&bundle)?)
        .with_context(|| format!("{} cannot be written", out.display()))?;
    if context.json {
        return context.tell(&serde_json::json!({ "file": out }));
    }
    println!(
        "{} holds no secrets; read it before you send it",
        out.display()
    );
    Ok(())
}
