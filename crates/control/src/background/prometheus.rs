//! The page that Prometheus reads, on the loopback listener only.

use std::fmt::Write;

use axum::extract::State;
use undine_model::lifecycle::{NodeState, OperationState, ServerState, SiteState};
use undine_store::{
    AuditFilter, Db, NodeFilter, OperationFilter, ReplicaFilter, ReplicaState, ServerFilter,
    SiteFilter,
};

use crate::clock::now_ms;
use crate::control::{Control, PROGRAM};
use crate::refusal::Result;
use crate::slots::DIFFERS;

/// The page as of now.
pub async fn page(State(control): State<Control>) -> Result<String> {
    let store = &control.store;
    let mut page = Page::default();
    page.gauge(
        "undine_control_info",
        "The program.",
        &[(format!("version=\"{PROGRAM}\""), 1)],
    );
    let up = (now_ms() - control.started_at).unsigned_abs() / 1000;
    page.gauge(
        "undine_control_uptime_seconds",
        "Since the process started.",
        &[(String::new(), up)],
    );
    let mut rows = Vec::new();
    for state in NodeState::ALL {
        let filter = NodeFilter {
            state: Some(*state),
            ..NodeFilter::default()
        };
        rows.push((
            format!("state=\"{state}\""),
            store.nodes().count(&filter).await?,
        ));
    }
    page.gauge("undine_nodes", "Hardware nodes by state.", &rows);
    rows.clear();
    for state in ServerState::ALL {
        let filter = ServerFilter {
            state: Some(*state),
            ..ServerFilter::default()
        };
        rows.push((
            format!("state=\"{state}\""),
            store.servers().count(&filter).await?,
        ));
    }
    page.gauge("undine_servers", "Servers by state.", &rows);
    rows.clear();
    for state in ReplicaState::ALL {
        let filter = ReplicaFilter {
            state: Some(*state),
            ..ReplicaFilter::default()
        };
        rows.push((
            format!("state=\"{state}\""),
            store.replicas().count(&filter).await?,
        ));
    }
    page.gauge("undine_replicas", "Copies of disks by state.", &rows);
    let ages = control.heard.ages(std::time::Instant::now());
    let ages: Vec<(String, u64)> = ages
        .iter()
        .map(|(node, age)| (format!("node=\"{node}\""), age.as_secs()))
        .collect();
    page.gauge(
        "undine_node_silence_seconds",
        "Since this instance, or one that it asked, heard the node's guard.",
        &ages,
    );
    rows.clear();
    for state in SiteState::ALL {
        let filter = SiteFilter {
            state: Some(*state),
            ..SiteFilter::default()
        };
        rows.push((
            format!("state=\"{state}\""),
            store.sites().count(&filter).await?,
        ));
    }
    page.gauge("undine_sites", "Sites by state.", &rows);
    rows.clear();
    for state in OperationState::ALL {
        let filter = OperationFilter {
            state: Some(*state),
            ..OperationFilter::default()
        };
        rows.push((
            format!("state=\"{state}\""),
            store.operations().count(&filter).await?,
        ));
    }
    page.gauge(
        "undine_operations",
        "Operations of the last month by state.",
        &rows,
    );
    page.gauge(
        "undine_node_deaths_answered",
        "What followed nodes' deaths and failed disks in the last month, by kind and state.",
        &after_deaths(&control).await?,
    );
    page.gauge(
        "undine_scrubs",
        "Comparisons of servers' copies in the last month by state.",
        &by_state(&control, "server.scrub").await?,
    );
    let differ = AuditFilter {
        action: Some(DIFFERS.to_owned()),
        ..AuditFilter::default()
    };
    page.gauge(
        "undine_copies_that_differed",
        "Findings in the audit that a copy differed from its owner's.",
        &[(String::new(), store.audit().count(&differ).await?)],
    );
    Ok(page.0)
}

async fn by_state(control: &Control, kind: &str) -> Result<Vec<(String, u64)>> {
    let mut rows = Vec::new();
    for state in OperationState::ALL {
        let filter = OperationFilter {
            state: Some(*state),
            kind: Some(kind.to_owned()),
            ..OperationFilter::default()
        };
        let count = control.store.operations().count(&filter).await?;
        rows.push((format!("state=\"{state}\""), count));
    }
    Ok(rows)
}

/// Fail-overs, copies that were filled again, power that was cut.
async fn after_deaths(control: &Control) -> Result<Vec<(String, u64)>> {
    let mut rows = Vec::new();
    for kind in ["server.failover", "server.replicate", "node.power_off"] {
        let found = by_state(control, kind).await?;
        rows.extend(
            found
                .into_iter()
                .map(|(state, count)| (format!("kind=\"{kind}\",{state}"), count)),
        );
    }
    Ok(rows)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, rows: &[(String, u64)]) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in rows {
            let _ = match labels.as_str() {
                "" => writeln!(self.0, "{name} {value}"),
                labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }
}
