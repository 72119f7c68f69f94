//! What if: what changes of the cluster would lead to, without any of them being made.

use std::collections::BTreeMap;

use undine_api::public::{ClusterScore, NotPossible, PlannedStep, WhatIf, WhatIfAnswer};
use undine_manifest::Profile;
use undine_model::{ServerId, Slug};
use undine_placement::plan::{self, Action, Change};
use undine_placement::snapshot::{Load, Server, Snapshot};
use undine_store::{Db, NodeFilter, ProfileFilter, ReplicaFilter, Resolution, ServerFilter};

use super::nodes;
use super::server_create::replica_count;
use crate::clock::now_ms;
use crate::control::Control;
use crate::placement::{Records, reserved};
use crate::refusal::{Refusal, Result};

/// Loads are means over the last so many milliseconds.
const LATELY: i64 = 15 * 60_000;
/// Most servers, nodes and copies that can be imagined at once.
const MOST: u32 = 1000;

/// Everything that decides about places, as recorded.
pub async fn records(control: &Control, db: &impl Db) -> Result<Records> {
    let servers = db.servers().all(&ServerFilter::default()).await?;
    let mut loads = BTreeMap::new();
    for server in &servers {
        loads.extend(load(db, server.id).await?.map(|load| (server.id, load)));
    }
    Ok(Records {
        nodes: db.nodes().all(&NodeFilter::default()).await?,
        replicas: db.replicas().all(&ReplicaFilter::default()).await?,
        servers,
        loads,
        cpu_overcommit: control.cluster.cpu_overcommit,
    })
}

/// What a server used lately; none when it was not measured.
async fn load(db: &impl Db, server: ServerId) -> Result<Option<Load>> {
    const NAMES: [&str; 4] = ["cpu", "memory_bytes", "net_in_bps", "net_out_bps"];
    let now = now_ms();
    let series = db
        .metrics()
        .read(server.uuid(), &NAMES, now - LATELY, now, Resolution::Minute)
        .await?;
    let mean = |name: &str| {
        let points = &series.iter().find(|s| s.name == name)?.points;
        let sum: f64 = points.iter().map(|p| p.value).sum();
        (!points.is_empty()).then(|| (sum / points.len() as f64).max(0.0))
    };
    let (Some(cpu), Some(memory)) = (mean("cpu"), mean("memory_bytes")) else {
        return Ok(None);
    };
    let net = mean("net_in_bps").unwrap_or(0.0) + mean("net_out_bps").unwrap_or(0.0);
    Ok(Some(Load {
        cpu_milli: (cpu * 1000.0) as u64,
        memory_mib: (memory / f64::from(1u32 << 20)) as u64,
        io: 0,
        net_kbit: (net / 125.0) as u64,
    }))
}

/// A server of a profile's usual size.
pub fn usual(name: &Slug, profile: &Profile) -> Server {
    let amounts = reserved(profile.cpu, profile.memory, profile.disk);
    let mut server = Server::new(format!("new {name}"), amounts);
    server.profile = name.to_string();
    server
}

/// Imagines the changes in this order: load, new nodes, lost ones, drained ones, new servers,
/// balancing.
pub async fn what_if(control: &Control, wish: WhatIf) -> Result<WhatIfAnswer> {
    let records = records(control, &control.store).await?;
    // Only a copy with every acknowledged write can become a lost server's disk.
    let snapshot = if wish.lose.is_empty() {
        records.snapshot()
    } else {
        records.in_sync()
    };
    let changes = changes(control, &snapshot, &wish).await?;
    let policy = records.policy(replica_count(control, wish.replicas).await?);
    // Large clusters take seconds.
    let found = tokio::task::spawn_blocking(move || plan::what_if(&snapshot, &policy, &changes))
        .await
        .map_err(|error| Refusal::internal(&error))?
        .map_err(|error| {
            Refusal::conflict(
                "not-imaginable",
                "That cannot be imagined",
                error.to_string(),
            )
        })?;
    Ok(WhatIfAnswer {
        summary: found.summary,
        before: score(&found.before),
        after: score(&found.after),
        steps: found
            .plans
            .iter()
            .flat_map(|plan| &plan.steps)
            .map(|step| shown(&step.action, &step.reason))
            .collect(),
        not_possible: found
            .refused
            .into_iter()
            .map(|refused| NotPossible {
                subject: refused.subject,
                reason: refused.reason,
            })
            .collect(),
    })
}

async fn changes(control: &Control, snapshot: &Snapshot, wish: &WhatIf) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if let Some(percent) = wish.load_percent {
        if !(1..=10_000).contains(&percent) {
            return Err(Refusal::invalid(
                "load_percent",
                "Loads can grow to 1 to 10000 percent.",
            ));
        }
        changes.push(Change::ScaleLoad {
            to: u64::from(percent) * 10,
        });
    }
    changes.extend(new_nodes(control, snapshot, wish).await?);
    let lose = known(control, snapshot, "lose", &wish.lose).await?;
    if !lose.is_empty() {
        changes.push(Change::LoseNodes { nodes: lose });
    }
    let drain = known(control, snapshot, "drain", &wish.drain).await?;
    if !drain.is_empty() {
        changes.push(Change::DrainNodes { nodes: drain });
    }
    changes.extend(new_servers(control, wish).await?);
    if wish.rebalance {
        changes.push(Change::Rebalance);
    }
    if changes.is_empty() {
        return Err(Refusal::invalid("lose", "Nothing is to change.").remedy(
            "Name at least one of load_percent, add_nodes, lose, drain, add_servers, rebalance.",
        ));
    }
    Ok(changes)
}

/// Nodes by id or name, each once.
async fn known(
    control: &Control,
    snapshot: &Snapshot,
    field: &'static str,
    wanted: &[String],
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for text in wanted.iter().take(MOST as usize) {
        let name = nodes::named(control, text)
            .await
            .map_err(|refusal| refusal.field(field))?
            .name
            .to_string();
        if !snapshot.nodes.iter().any(|node| node.id == name) {
            return Err(Refusal::invalid(
                field,
                format!("The node {name} never said what it is made of."),
            ));
        }
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

async fn new_nodes(control: &Control, snapshot: &Snapshot, wish: &WhatIf) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (like, count) in &wish.add_nodes {
        few("add_nodes", *count)?;
        let like = known(control, snapshot, "add_nodes", std::slice::from_ref(like)).await?;
        let model = snapshot.nodes.iter().find(|node| like.contains(&node.id));
        for number in 1..=*count {
            changes.extend(model.map(|node| {
                let mut node = node.clone();
                // No slug, so that it is nobody's name.
                node.id = format!("new {} {number}", node.id);
                node.state = undine_placement::snapshot::NodeState::Up;
                node.rack = None;
                Change::AddNode {
                    node: Box::new(node),
                }
            }));
        }
    }
    Ok(changes)
}

async fn new_servers(control: &Control, wish: &WhatIf) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (name, count) in &wish.add_servers {
        few("add_servers", *count)?;
        let filter = ProfileFilter {
            name: Some(name.clone()),
        };
        let kept = control.store.profiles().find_by(&filter).await?;
        let kept = kept.ok_or_else(|| {
            Refusal::invalid("add_servers", format!("There is no profile `{name}`."))
        })?;
        let profile =
            serde_json::from_value(kept.definition).map_err(|error| Refusal::internal(&error))?;
        changes.push(Change::AddServers {
            like: Box::new(usual(name, &profile)),
            count: *count as usize,
        });
    }
    Ok(changes)
}

fn few(field: &'static str, count: u32) -> Result<()> {
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    Err(Refusal::invalid(
        field,
        format!("1 to {MOST} of a kind can be imagined, not {count}."),
    ))
}

fn score(of: &plan::Score) -> ClusterScore {
    ClusterScore {
        broken_limits: of.broken_limits as u64,
        unsurvivable_losses: of.unsurvivable_losses as u64,
        nodes_above_mark: of.nodes_above_mark as u64,
        highest_use_percent: of.highest_use as f64 / 10.0,
    }
}

fn shown(action: &Action, reason: &str) -> PlannedStep {
    let (what, from, to): (_, Option<&String>, Vec<&String>) = match action {
        Action::Place {
            owner, replicas, ..
        } => (
            "place",
            None,
            std::iter::once(owner).chain(replicas).collect(),
        ),
        Action::Migrate { from, to, .. } => ("migrate", Some(from), vec![to]),
        Action::MoveReplica { from, to, .. } => ("move_copy", Some(from), vec![to]),
        Action::AddReplica { to, .. } => ("add_copy", None, vec![to]),
        Action::Restart { from, to, .. } => ("restart", Some(from), vec![to]),
    };
    PlannedStep {
        server: action.server().to_owned(),
        action: what.to_owned(),
        from: from.cloned(),
        to: to.into_iter().cloned().collect(),
        reason: reason.to_owned(),
    }
}
