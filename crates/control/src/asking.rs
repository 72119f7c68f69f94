//! Before a node is declared dead: the other instances are asked whether they hear it, and other
//! nodes' guards whether they reach it. Whoever does not answer in time says nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Deserialize;
use undine_api::internal::{Heard, Role};
use undine_link::{ControlClient, Method, PeerClient};
use undine_model::NodeId;
use undine_store::{Db, InstanceFilter, Node};

use crate::clock::now_ms;
use crate::control::Control;
use crate::copies::is_live;
use crate::heard::Witnesses;
use crate::refusal::Result;
use crate::routes::INSTANCE_SILENT_MS;

/// Another instance answers within this time.
const INSTANCE: Duration = Duration::from_millis(400);
/// A witness tries for a second, then answers.
const WITNESS: Duration = Duration::from_millis(1_300);
/// So many witnesses are asked.
const WITNESSES: usize = 5;
/// A guard listens one port above its node's agent.
const GUARD_ABOVE: u16 = 1;

/// Clients that are kept.
#[derive(Default)]
pub struct AskBook {
    instances: Mutex<HashMap<SocketAddr, ControlClient>>,
    guards: Mutex<HashMap<(NodeId, SocketAddr), PeerClient>>,
}

/// What a guard says about another node.
#[derive(Deserialize)]
struct Reach {
    reachable: bool,
}

impl AskBook {
    fn instance(&self, control: &Control, address: SocketAddr) -> Option<ControlClient> {
        let mut known = self
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&address) {
            return Some(client.clone());
        }
        let client = ControlClient::new(control.credentials.clone(), &[address]).ok()?;
        known.insert(address, client.clone());
        Some(client)
    }

    fn guard(&self, control: &Control, node: &Node) -> Option<PeerClient> {
        let port = node.port.checked_add(GUARD_ABOVE)?;
        let address = SocketAddr::new(node.address, port);
        let mut known = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&(node.id, address)) {
            return Some(client.clone());
        }
        let id = node.id.to_string();
        let client = PeerClient::new(&control.credentials, Role::Guard, &id, address).ok()?;
        known.insert((node.id, address), client.clone());
        Some(client)
    }
}

/// Asks the other instances when they heard the nodes, and notes it.
pub async fn ask_instances(control: &Control) -> Result<()> {
    let filter = InstanceFilter::default();
    let alive_since = now_ms() - INSTANCE_SILENT_MS;
    let others = control.store.instances().all(&filter).await?;
    let asked = others
        .iter()
        .filter(|it| it.id != control.id && it.heartbeat_at > alive_since)
        .filter_map(|it| {
            control
                .asking
                .instance(control, it.internal_url.parse().ok()?)
        })
        .map(|client| async move {
            let path = "/internal/v1/heard";
            client
                .call::<Heard>(Method::GET, path, None::<&()>, INSTANCE)
                .await
        });
    for answer in join_all(asked).await {
        let now = Instant::now();
        for (node, age_ms) in answer.map(|heard| heard.ages_ms).unwrap_or_default() {
            control.heard.told(node, Duration::from_millis(age_ms), now);
        }
    }
    Ok(())
}

/// Asks other nodes' guards whether they reach this node.
pub async fn ask_witnesses(control: &Control, node: &Node, all: &[Node]) -> Witnesses {
    let now = Instant::now();
    let mut others: Vec<&Node> = all
        .iter()
        .filter(|it| it.id != node.id && is_live(it.state))
        .collect();
    // Those that are heard first.
    others.sort_by_key(|it| control.heard.silence(it.id, now).unwrap_or(Duration::MAX));
    let mut path = format!(
        "/guard/v1/reach/{}?address={}",
        node.id,
        SocketAddr::new(node.address, node.port)
    );
    if let Some(storage) = node.storage_address {
        let storage = SocketAddr::new(storage, node.port);
        path.push_str(&format!("&storage={storage}"));
    }
    let asked = others
        .into_iter()
        .take(WITNESSES)
        .filter_map(|it| control.asking.guard(control, it))
        .map(|guard| {
            let path = path.clone();
            async move {
                guard
                    .call::<Reach>(Method::GET, &path, None::<&()>, WITNESS)
                    .await
            }
        });
    let mut found = Witnesses::default();
    for answer in join_all(asked).await {
        match answer {
            Ok(Reach { reachable: true }) => found.reach += 1,
            Ok(Reach { reachable: false }) => found.miss += 1,
            Err(error) => tracing::info!(%error, "a witness said nothing"),
        }
    }
    found
}
