//! What nodes and edges report: facts into the records, measurements into the metrics, and servers
//! that are not what the records say.

use serde_json::json;
use undine_api::edge::EdgeReport;
use undine_api::internal::NodeReport;
use undine_api::node::{Phase, SlotState, SlotStatus};
use undine_model::lifecycle::{ServerEvent, ServerState};
use undine_model::{EdgeId, NodeId};
use undine_store::{
    Db, MetricSubject, NodeFacts, Replica, ReplicaFilter, Sample, Server, ServerFilter, SiteFilter,
};
use uuid::Uuid;

use crate::app::servers::{Wish, begin};
use crate::background::{reconcile, returned};
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies::is_live;
use crate::operations::{event_of, wake};
use crate::refusal::Result;
use crate::routes::server_changed;
use crate::slots;

/// A record that changed within this time may be ahead of a report that was on its way.
const SETTLED_MS: i64 = 8_000;

/// A node reports.
pub async fn node(control: &Control, id: NodeId, report: &NodeReport) -> Result<()> {
    let now = now_ms();
    // First of all: a visitor may be waiting for it.
    slots_failed(control, id, report).await?;
    let inventory = &report.status.inventory;
    let facts = NodeFacts {
        inventory: json!(inventory),
        capacity: json!({"cpu": inventory.cpu, "memory": inventory.memory, "disk": inventory.disk}),
        accelerator: inventory.accelerator.clone(),
        versions: json!({"agent": inventory.agent, "qemu": inventory.qemu, "kernel": inventory.kernel}),
    };
    control.store.nodes().report(id, &facts, now).await?;
    let samples = node_samples(control, id, report, now).await?;
    control.store.metrics().record(&samples).await?;
    replicas(control, id, report, now).await?;
    leftovers(control, id, report).await?;
    stands_still(control, id, report, now).await?;
    servers(control, id, report, now).await
}

/// What runs here and belongs elsewhere is ended, in a task of its own.
async fn leftovers(control: &Control, id: NodeId, report: &NodeReport) -> Result<()> {
    let node = control.store.nodes().get(id).await?;
    if !is_live(node.state) {
        // Cleaned as a whole before it is used again.
        return Ok(());
    }
    for status in &report.status.servers {
        if returned::leftover(control, id, status).await?.is_some() {
            let (control, node) = (control.clone(), node.clone());
            tokio::spawn(async move {
                if let Err(error) = returned::clean(&control, &node).await {
                    tracing::warn!(node = %node.name, %error, "leftovers could not be ended");
                }
            });
            break;
        }
    }
    Ok(())
}

/// A server that stands still although all of its slots live: it is told what is committed, and
/// tries again.
async fn stands_still(control: &Control, id: NodeId, report: &NodeReport, now: i64) -> Result<()> {
    for status in &report.status.servers {
        let live = |it: &SlotStatus| !matches!(it.state, SlotState::Failed);
        if status.phase != Phase::Paused || !status.slots.iter().all(live) {
            continue;
        }
        let Some(server) = control.store.servers().find(status.server).await? else {
            continue;
        };
        let same = server.node == Some(id) && server.epoch == status.epoch;
        if same && now - server.updated_at > SETTLED_MS {
            let control = control.clone();
            tokio::spawn(async move { slots::tell(&control, server.id).await });
        }
    }
    Ok(())
}

/// Servers whose disk has failed slots: looked after at once, each in a task of its own.
async fn slots_failed(control: &Control, id: NodeId, report: &NodeReport) -> Result<()> {
    for status in &report.status.servers {
        if !status.slots.iter().any(|it| it.state == SlotState::Failed) {
            continue;
        }
        let Some(server) = control.store.servers().find(status.server).await? else {
            continue;
        };
        if slots::failed(&server, id, status).is_empty() {
            continue;
        }
        let control = control.clone();
        tokio::spawn(async move {
            if let Err(error) = slots::degrade(&control, id, server.id).await {
                tracing::warn!(server = %server.name, %error, "a failed copy could not be taken out");
            }
        });
    }
    Ok(())
}

async fn node_samples(
    control: &Control,
    id: NodeId,
    report: &NodeReport,
    now: i64,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut add = |kind, subject: Uuid, values: &[(&str, f64)]| {
        samples.extend(values.iter().map(|(name, value)| Sample {
            kind,
            subject,
            name: (*name).to_owned(),
            at: now,
            value: *value,
        }));
    };
    let usage = &report.usage;
    add(
        MetricSubject::Node,
        id.uuid(),
        &[
            ("cpu", usage.cpu),
            ("memory_bytes", usage.memory.0 as f64),
            ("disk_bytes", usage.disk.0 as f64),
            ("cpu_pressure", usage.cpu_pressure),
            ("memory_pressure", usage.memory_pressure),
            ("io_pressure", usage.io_pressure),
        ],
    );
    // A node speaks for its own servers, and a server for its own sites, and for no others.
    let own = ServerFilter {
        node: Some(id),
        ..ServerFilter::default()
    };
    let own: Vec<_> = control
        .store
        .servers()
        .all(&own)
        .await?
        .iter()
        .map(|s| s.id)
        .collect();
    for server in report
        .servers
        .iter()
        .filter(|server| own.contains(&server.server))
    {
        add(
            MetricSubject::Server,
            server.server.uuid(),
            &[
                ("cpu", server.cpu),
                ("memory_bytes", server.memory.0 as f64),
                ("disk_read_bps", server.disk_read_bps),
                ("disk_write_bps", server.disk_write_bps),
                ("net_in_bps", server.net_in_bps),
                ("net_out_bps", server.net_out_bps),
                ("cpu_pressure", server.cpu_pressure),
            ],
        );
    }
    if report.sites.is_empty() {
        return Ok(samples);
    }
    let mut known = std::collections::BTreeSet::new();
    for server in own {
        let filter = SiteFilter {
            server: Some(server),
            ..SiteFilter::default()
        };
        known.extend(
            control
                .store
                .sites()
                .all(&filter)
                .await?
                .iter()
                .map(|site| site.id),
        );
    }
    for site in report
        .sites
        .iter()
        .filter(|site| known.contains(&site.site))
    {
        add(
            MetricSubject::Site,
            site.site.uuid(),
            &[
                ("cpu", site.cpu),
                ("memory_bytes", site.memory.0 as f64),
                ("disk_bytes", site.disk.0 as f64),
                ("processes", f64::from(site.processes)),
            ],
        );
    }
    Ok(samples)
}

/// How much of its node's disk each replica takes up, when that moved by more than a hundredth.
async fn replicas(control: &Control, id: NodeId, report: &NodeReport, now: i64) -> Result<()> {
    let filter = ReplicaFilter {
        node: Some(id),
        ..ReplicaFilter::default()
    };
    let moved =
        |replica: &Replica, used: u64| replica.bytes.0.abs_diff(used) > replica.bytes.0 / 100;
    for replica in control.store.replicas().all(&filter).await? {
        let held = report
            .status
            .replicas
            .iter()
            .find(|held| held.server == replica.server);
        if let Some(held) = held.filter(|held| moved(&replica, held.used.0)) {
            control
                .store
                .replicas()
                .modify(replica.id, now, |replica| {
                    replica.bytes = held.used;
                    Ok(())
                })
                .await?;
        }
    }
    Ok(())
}

/// Servers that the records call running and the node does not: they are started again, at once or,
/// where that failed lately, by the reconciler after a pause.
async fn servers(control: &Control, id: NodeId, report: &NodeReport, now: i64) -> Result<()> {
    let filter = ServerFilter {
        node: Some(id),
        state: Some(ServerState::Running),
        ..ServerFilter::default()
    };
    for server in control.store.servers().all(&filter).await? {
        if server.operation.is_some() || now - server.updated_at < SETTLED_MS {
            continue;
        }
        let status = report
            .status
            .servers
            .iter()
            .find(|status| status.server == server.id);
        let phase = status.map_or(Phase::Absent, |status| status.phase);
        if matches!(phase, Phase::Absent | Phase::Stopped | Phase::Failed) {
            let why = status.and_then(|status| status.error.clone());
            ended(control, &server, why, now).await?;
        }
    }
    Ok(())
}

async fn ended(control: &Control, server: &Server, why: Option<String>, now: i64) -> Result<()> {
    let at_once = reconcile::is_started_at_once(control, server).await?;
    let tx = control.store.begin().await?;
    let mut record = tx.servers().lock(server.id).await?;
    if record.version != server.version {
        return Ok(());
    }
    let Ok((state, _)) = record.state.on(ServerEvent::Ended) else {
        return Ok(());
    };
    record.state = state;
    record.error = Some(why.unwrap_or_else(|| "its VM ended unasked".to_owned()));
    let record = tx.servers().update(&record, now).await?;
    let data = json!({"name": record.name, "error": record.error});
    let event = event_of("server.failed", record.id.uuid(), None, data);
    tx.events().announce(vec![event]).await?;
    if at_once {
        // In the same breath, so that visitors wait at the edges and none is turned away.
        let why = record.error.clone().unwrap_or_default();
        begin(control, &tx, record, Wish::Start, why).await?;
    } else {
        server_changed(&tx, server.id).await?;
    }
    tx.commit().await?;
    wake(control);
    Ok(())
}

/// An edge reports.
pub async fn edge(control: &Control, id: EdgeId, report: &EdgeReport) -> Result<()> {
    let now = now_ms();
    let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
    control
        .store
        .edges()
        .report(id, report.version, &addresses, &report.program, now)
        .await?;
    let mut samples = Vec::new();
    for traffic in &report.sites {
        let (kind, subject) = match traffic.site {
            Some(site) => (MetricSubject::Site, site.uuid()),
            None => (MetricSubject::Edge, id.uuid()),
        };
        let mean_ms = traffic.total_ms as f64 / traffic.requests.max(1) as f64;
        for (name, value) in [
            ("requests", traffic.requests as f64),
            ("errors", traffic.errors as f64),
            ("bytes_out", traffic.bytes_out as f64),
            ("answer_ms", mean_ms),
        ] {
            samples.push(Sample {
                kind,
                subject,
                name: name.to_owned(),
                at: now,
                value,
            });
        }
    }
    control.store.metrics().record(&samples).await?;
    Ok(())
}
