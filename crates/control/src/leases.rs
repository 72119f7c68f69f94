//! Renewals of the nodes' leases: taken in memory, written in batches, shared by the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use undine_model::NodeId;
use undine_store::{Db, Lease, Store};

/// How long a lease lasts from the sending of its renewal (protocols §4).
pub const LEASE_MS: u64 = 2_000;

/// Renewals that this instance has taken and not yet written.
#[derive(Debug, Default)]
pub struct LeaseBook {
    fresh: Mutex<BTreeMap<NodeId, Lease>>,
}

impl LeaseBook {
    /// A node's guard renewed.
    pub fn renewed(&self, lease: Lease) {
        self.lock().insert(lease.node, lease);
    }

    /// Writes what came in.
    pub async fn write(&self, store: &Store) -> undine_store::Result<()> {
        let fresh: Vec<Lease> = std::mem::take(&mut *self.lock()).into_values().collect();
        store.leases().renew(&fresh).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Lease>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
