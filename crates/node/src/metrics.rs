//! Figures for Prometheus, in its text form.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use undine_api::internal::NodeReport;

use crate::agent::Agent;

/// `GET /metrics`.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(agent)
}

async fn metrics(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let text = agent
        .last_report()
        .map(|report| render(&report))
        .unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// The last report as text.
pub fn render(report: &NodeReport) -> String {
    let mut out = String::new();
    let usage = &report.usage;
    let inventory = &report.status.inventory;
    for (name, help, value) in [
        (
            "node_cpu_ratio",
            "Share of the node's CPUs in use",
            usage.cpu,
        ),
        (
            "node_cpu_cores",
            "CPUs that servers may use",
            f64::from(inventory.cpu.0) / 1000.0,
        ),
        (
            "node_memory_bytes",
            "Memory in use by servers",
            usage.memory.0 as f64,
        ),
        (
            "node_memory_capacity_bytes",
            "Memory that servers may use",
            inventory.memory.0 as f64,
        ),
        ("node_disk_bytes", "Disk in use", usage.disk.0 as f64),
        (
            "node_disk_capacity_bytes",
            "Disk that replicas may use",
            inventory.disk.0 as f64,
        ),
        (
            "node_cpu_pressure_ratio",
            "Share of ten seconds with a wait for CPU",
            usage.cpu_pressure,
        ),
        (
            "node_memory_pressure_ratio",
            "The same for memory",
            usage.memory_pressure,
        ),
        (
            "node_io_pressure_ratio",
            "The same for disks",
            usage.io_pressure,
        ),
        (
            "node_servers",
            "Servers known here",
            report.status.servers.len() as f64,
        ),
        (
            "node_replicas",
            "Replicas held here",
            report.status.replicas.len() as f64,
        ),
    ] {
        let _ = writeln!(
            out,
            "# HELP undine_{name} {help}\n# TYPE undine_{name} gauge\nundine_{name} {value}"
        );
    }
    servers(&mut out, report);
    out
}

fn servers(out: &mut String, report: &NodeReport) {
    type Get = fn(&undine_api::internal::ServerUsage) -> f64;
    let figures: [(&str, &str, Get); 7] = [
        ("cpu_cores", "CPUs in use", |server| server.cpu),
        ("memory_bytes", "Memory of its processes", |server| {
            server.memory.0 as f64
        }),
        ("disk_read_bytes_per_second", "Read from disk", |server| {
            server.disk_read_bps
        }),
        ("disk_write_bytes_per_second", "Written to disk", |server| {
            server.disk_write_bps
        }),
        ("net_in_bytes_per_second", "Received", |server| {
            server.net_in_bps
        }),
        ("net_out_bytes_per_second", "Sent", |server| {
            server.net_out_bps
        }),
        (
            "cpu_pressure_ratio",
            "Share of time with a wait for CPU",
            |server| server.cpu_pressure,
        ),
    ];
    for (name, help, get) in figures {
        let _ = writeln!(
            out,
            "# HELP undine_server_{name} {help}\n# TYPE undine_server_{name} gauge"
        );
        for server in &report.servers {
            let _ = writeln!(
                out,
                "undine_server_{name}{{server=\"{}\"}} {}",
                server.server,
                get(server)
            );
        }
    }
}
