//! What the cluster holds and what is left.

use undine_api::public::{Capacity, HardwareAdvice, NodeCapacity, Outlook, Resources};
use undine_manifest::Profile;
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, MilliCpu, Slug};
use undine_placement::Policy;
use undine_placement::snapshot::{Server, Snapshot};
use undine_store::{Db, NodeFilter, ProfileFilter, ServerFilter};

use super::server_create::{candidate, replica_count};
use super::what_if::{records, usual};
use crate::clock::now_ms;
use crate::control::Control;
use crate::placement::Candidate;
use crate::refusal::{Refusal, Result};

/// The capacity now.
pub async fn capacity(control: &Control) -> Result<Capacity> {
    let store = &control.store;
    let mut nodes = Vec::new();
    let mut candidates = Vec::new();
    for node in store.nodes().all(&NodeFilter::default()).await? {
        let Some(candidate) = candidate(&control.cluster, store, &node, &node.name).await? else {
            continue;
        };
        let filter = ServerFilter {
            node: Some(node.id),
            ..ServerFilter::default()
        };
        nodes.push(NodeCapacity {
            node: node.id,
            name: node.name,
            state: node.state,
            total: candidate.total,
            free: candidate.free(),
            servers: store
                .servers()
                .all(&filter)
                .await?
                .iter()
                .map(|server| server.id)
                .collect(),
        });
        if node.state == NodeState::Ready {
            candidates.push(candidate);
        }
    }
    let outlook = outlook(control).await?;
    Ok(Capacity {
        total: sum(candidates.iter().map(|node| node.total)),
        committed: sum(candidates.iter().map(|node| node.committed)),
        free: sum(candidates.iter().map(Candidate::free)),
        nodes,
        fits: outlook
            .iter()
            .map(|it| (it.profile.to_string(), it.fits))
            .collect(),
        outlook,
    })
}

fn sum(of: impl Iterator<Item = Resources>) -> Resources {
    of.fold(Resources::default(), |sum, one| Resources {
        cpu: MilliCpu(sum.cpu.0.saturating_add(one.cpu.0)),
        memory: Bytes(sum.memory.0 + one.memory.0),
        disk: Bytes(sum.disk.0 + one.disk.0),
    })
}

/// How many more of each profile fit, as the placement library would place them.
async fn outlook(control: &Control) -> Result<Vec<Outlook>> {
    let records = records(control, &control.store).await?;
    let copies = replica_count(control, None).await?;
    let mut wanted = Vec::new();
    for kept in control
        .store
        .profiles()
        .all(&ProfileFilter::default())
        .await?
    {
        if let Ok(profile) = serde_json::from_value::<Profile>(kept.definition) {
            let since = now_ms() - 30 * DAY_MS;
            let new = |s: &&undine_store::Server| s.profile == kept.name && s.created_at > since;
            let growth = records.servers.iter().filter(new).count() as f64 / 30.0;
            wanted.push((usual(&kept.name, &profile), kept.name, growth));
        }
    }
    // Counting fills the whole pool, which takes a while on a large one.
    tokio::task::spawn_blocking(move || {
        let (snapshot, policy) = (records.snapshot(), records.policy(copies));
        wanted
            .into_iter()
            .map(|(size, profile, growth)| look(&snapshot, &policy, &size, profile, growth))
            .collect()
    })
    .await
    .map_err(|error| Refusal::internal(&error))?
}

fn look(
    snapshot: &Snapshot,
    policy: &Policy,
    size: &Server,
    profile: Slug,
    growth: f64,
) -> Result<Outlook> {
    let found = undine_placement::capacity(snapshot, policy, size, growth)
        .map_err(|error| Refusal::internal(&error))?;
    Ok(Outlook {
        profile,
        fits: found.fit as u32,
        stopped_by: found.stopped_by,
        full_in_days: found.full_in_days,
        advice: found
            .advice
            .into_iter()
            .map(|advice| HardwareAdvice {
                machine: advice.machine,
                more: advice.more as u32,
            })
            .collect(),
    })
}

const DAY_MS: i64 = 86_400_000;
