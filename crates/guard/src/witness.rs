//! Asking other nodes whether they live: for this guard itself, and as a witness for those who ask
//! it. Only an answer of the other side's guard or agent, as itself, is life: a port that accepts
//! connections belongs to a kernel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use undine_api::guard::{self, Alive, Peer, Reach};
use undine_api::internal::Role;
use undine_link::{CallError, Credentials, Method, PeerClient};
use undine_model::NodeId;

/// The guard is asked first; the agent in what is left of the second.
const GUARD_DEADLINE: Duration = Duration::from_millis(guard::REACH_MS / 2);
const AGENT_DEADLINE: Duration = Duration::from_millis(guard::REACH_MS / 2 - 50);
/// More connections than this are not kept.
const MOST_CLIENTS: usize = 64;

/// Who asks.
pub struct Witness {
    credentials: Credentials,
    clients: Mutex<HashMap<(Role, NodeId, SocketAddr), PeerClient>>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness(..)")
    }
}

impl Witness {
    /// One with these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            clients: Mutex::default(),
        }
    }

    /// Tries a node by both networks at once; ends within [`guard::REACH_MS`].
    pub async fn reach(&self, peer: &Peer) -> Reach {
        let by_storage = async {
            match peer.storage {
                Some(address) => Some(self.answers(peer.node, address).await),
                None => None,
            }
        };
        let by_management = self.answers(peer.node, peer.address);
        let (storage, management) = tokio::join!(by_storage, by_management);
        Reach {
            node: peer.node,
            reachable: management || storage == Some(true),
            storage,
        }
    }

    async fn answers(&self, node: NodeId, agent: SocketAddr) -> bool {
        if let Some(address) = guard::listens_at(agent) {
            let alive = self
                .ask::<Alive>(
                    Role::Guard,
                    node,
                    address,
                    "/guard/v1/alive",
                    GUARD_DEADLINE,
                )
                .await;
            if alive {
                return true;
            }
        }
        // Control alone may ask it anything; that it says so is an answer.
        self.ask::<serde_json::Value>(Role::Node, node, agent, "/node/v1/status", AGENT_DEADLINE)
            .await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        role: Role,
        node: NodeId,
        address: SocketAddr,
        path: &str,
        deadline: Duration,
    ) -> bool {
        let key = (role, node, address);
        let Some(client) = self.client(key) else {
            return false;
        };
        let answer: Result<T, CallError> =
            client.call(Method::GET, path, None::<&()>, deadline).await;
        let lives = !matches!(answer, Err(CallError::Unreachable { .. }));
        if !lives {
            // A connection that was cut off would wait for its next repetition: a new one does not.
            lock(&self.clients).remove(&key);
        }
        lives
    }

    fn client(&self, key: (Role, NodeId, SocketAddr)) -> Option<PeerClient> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&key) {
            return Some(client.clone());
        }
        let (role, node, address) = key;
        match PeerClient::new(&self.credentials, role, &node.to_string(), address) {
            Ok(client) => {
                if clients.len() >= MOST_CLIENTS {
                    clients.clear();
                }
                clients.insert(key, client.clone());
                Some(client)
            }
            Err(error) => {
                tracing::warn!(%error, "no client for a peer");
                None
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
