//! The copies of servers' disks are compared when their time has come, a node at a time.

use std::collections::{BTreeMap, BTreeSet};

use undine_failover::scrub::{self, Candidate};
use undine_model::lifecycle::{OperationState, ServerState};
use undine_model::{NodeId, ServerId};
use undine_store::{
    Db, Operation, OperationFilter, Replica, ReplicaFilter, ReplicaState, Server, ServerFilter,
};

use crate::app::server_scrub::{KIND, begin};
use crate::clock::now_ms;
use crate::control::Control;
use crate::copies;
use crate::operations::wake;
use crate::policy::Policy;
use crate::refusal::Result;

const DAY_MS: i64 = 86_400_000;

/// Begins what is due.
pub async fn turn(control: &Control) -> Result<()> {
    let days = Policy::of(&control.store).await?.scrub_every_days;
    if days == 0 {
        return Ok(());
    }
    let servers = running(control).await?;
    let mut copies = copies_by_server(control).await?;
    let with_copies = |server: Server| {
        let own = copies.remove(&server.id).unwrap_or_default();
        (server, own)
    };
    let all: Vec<(Server, Vec<Replica>)> = servers.into_iter().map(with_copies).collect();
    let busy = busy(control, &all).await?;
    let failed = failed(control).await?;
    let candidates: Vec<Candidate> = all
        .iter()
        .filter_map(|(server, copies)| candidate(server, copies, failed.get(&server.id)))
        .collect();
    let every_ms = i64::from(days) * DAY_MS;
    for id in scrub::due(&candidates, &busy, every_ms, now_ms()) {
        let tx = control.store.begin().await?;
        let server = tx.servers().lock(id).await?;
        let reason = format!("its copies are compared every {days} days");
        match begin(&tx, &server, reason).await {
            Ok(_) => tx.commit().await?,
            // Another instance was faster, or something happened to it.
            Err(refusal) => {
                tracing::debug!(server = %server.name, %refusal, "copies are not compared");
            }
        }
    }
    wake(control);
    Ok(())
}

async fn running(control: &Control) -> Result<Vec<Server>> {
    let filter = ServerFilter {
        state: Some(ServerState::Running),
        ..ServerFilter::default()
    };
    Ok(control.store.servers().all(&filter).await?)
}

async fn copies_by_server(control: &Control) -> Result<BTreeMap<ServerId, Vec<Replica>>> {
    let mut found: BTreeMap<ServerId, Vec<Replica>> = BTreeMap::new();
    let filter = ReplicaFilter::default();
    for copy in control.store.replicas().all(&filter).await? {
        found.entry(copy.server).or_default().push(copy);
    }
    Ok(found)
}

/// A server of which nothing is being filled, with something to compare.
fn candidate(server: &Server, all: &[Replica], failed_ms: Option<&i64>) -> Option<Candidate> {
    let is_filled = all.iter().any(|copy| copy.state == ReplicaState::Syncing);
    let is_alone = scrub::compared(&copies::record(server, all)).is_empty();
    if server.operation.is_some() || is_filled || is_alone {
        return None;
    }
    Some(Candidate {
        server: server.id,
        since_ms: server.scrubbed_at.unwrap_or(server.created_at),
        failed_ms: failed_ms.copied(),
        nodes: nodes_of(all),
    })
}

fn nodes_of(copies: &[Replica]) -> BTreeSet<NodeId> {
    let in_sync = copies::in_sync(copies, None).into_iter();
    in_sync.map(|copy| copy.node).collect()
}

async fn past(control: &Control, state: OperationState) -> Result<Vec<Operation>> {
    let filter = OperationFilter {
        kind: Some(KIND.to_owned()),
        state: Some(state),
        ..OperationFilter::default()
    };
    Ok(control.store.operations().all(&filter).await?)
}

/// The nodes on which something is compared already.
async fn busy(control: &Control, all: &[(Server, Vec<Replica>)]) -> Result<BTreeSet<NodeId>> {
    let mut busy = BTreeSet::new();
    for state in [OperationState::Pending, OperationState::Running] {
        for operation in past(control, state).await? {
            let works = |server: &Server| operation.subjects.contains(&server.id.uuid());
            if let Some((_, copies)) = all.iter().find(|(server, _)| works(server)) {
                busy.extend(nodes_of(copies));
            }
        }
    }
    Ok(busy)
}

/// When the last try of each server failed.
async fn failed(control: &Control) -> Result<BTreeMap<ServerId, i64>> {
    let mut failed = BTreeMap::new();
    for operation in past(control, OperationState::Failed).await? {
        let Some(subject) = operation.subjects.first() else {
            continue;
        };
        let at: &mut i64 = failed.entry(ServerId::from_uuid(*subject)).or_default();
        *at = (*at).max(operation.updated_at);
    }
    Ok(failed)
}
