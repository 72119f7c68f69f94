//! What the cluster holds and what is left.

use std::collections::BTreeMap;

use undine_api::public::{Capacity, NodeCapacity, Resources};
use undine_manifest::Profile;
use undine_model::lifecycle::NodeState;
use undine_model::{Bytes, MilliCpu};
use undine_store::{Db, NodeFilter, ProfileFilter, ServerFilter};

use super::server_create::candidate;
use crate::control::Control;
use crate::placement::{Candidate, OVERHEAD};
use crate::refusal::Result;

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
    let mut fits = BTreeMap::new();
    for kept in store.profiles().all(&ProfileFilter::default()).await? {
        if let Ok(profile) = serde_json::from_value::<Profile>(kept.definition) {
            let count = candidates.iter().map(|node| times(node, &profile)).sum();
            fits.insert(kept.name.to_string(), count);
        }
    }
    Ok(Capacity {
        total: sum(candidates.iter().map(|node| node.total)),
        committed: sum(candidates.iter().map(|node| node.committed)),
        free: sum(candidates.iter().map(Candidate::free)),
        nodes,
        fits,
    })
}

fn sum(of: impl Iterator<Item = Resources>) -> Resources {
    of.fold(Resources::default(), |sum, one| Resources {
        cpu: MilliCpu(sum.cpu.0.saturating_add(one.cpu.0)),
        memory: Bytes(sum.memory.0 + one.memory.0),
        disk: Bytes(sum.disk.0 + one.disk.0),
    })
}

/// How many servers of a profile fit on a node.
fn times(node: &Candidate, profile: &Profile) -> u32 {
    let free = node.free();
    let by_memory = free.memory.0 / (profile.memory.0 + OVERHEAD.0).max(1);
    let by_disk = free.disk.0 / profile.disk.0.max(1);
    let by_cpu = u64::from(free.cpu.0 / profile.cpu.0.max(1));
    by_memory.min(by_disk).min(by_cpu) as u32
}
