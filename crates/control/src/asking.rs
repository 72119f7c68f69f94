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
use crate::refusal::Result;
use crate::routes::INSTANCE_SILENT_MS;

/// Another instance answers within this time.
const INSTANCE: Duration = Duration::from_millis(400);
/// A witness tries for a second, then answers.
const WITNESS: Duration = Duration::from_millis(1_300);
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
    let answers = join_all(asked).await.into_iter().flatten();
    let ages: Vec<_> = answers.flat_map(|heard| heard.ages_ms).collect();
    control.heard.others(&ages, Instant::now());
    Ok(())
}

/// Asks other nodes' guards whether they reach this node, and notes what they say.
pub async fn ask_witnesses(control: &Control, node: &Node, witnesses: Vec<&Node>) {
    let mut path = format!(
        "/guard/v1/reach/{}?address={}",
        node.id,
        SocketAddr::new(node.address, node.port)
    );
    if let Some(storage) = node.storage_address {
        let storage = SocketAddr::new(storage, node.port);
        path.push_str(&format!("&storage={storage}"));
    }
    let path = &path;
    let asked = witnesses.into_iter().filter_map(|it| {
        let guard = control.asking.guard(control, it)?;
        Some(async move {
            let answer = guard
                .call::<Reach>(Method::GET, path, None::<&()>, WITNESS)
                .await;
            match answer {
                Ok(Reach { reachable }) => {
                    let now = Instant::now();
                    control.heard.witness(node.id, it.id, reachable, now);
                }
                Err(error) => tracing::info!(%error, "a witness said nothing"),
            }
        })
    });
    join_all(asked).await;
}
