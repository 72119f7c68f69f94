//! Visitors' connections: how many, whose, and whether anything happens on them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pingora::protocols::http::ServerSession;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// One visitor's connection.
#[derive(Debug)]
pub struct Connection {
    opened: Instant,
    running: AtomicU32,
    /// When a request last began or ended, milliseconds after `opened`.
    moved_ms: AtomicU64,
}

impl Connection {
    /// A connection that was just opened.
    pub fn new() -> Self {
        Self {
            opened: Instant::now(),
            running: AtomicU32::new(0),
            moved_ms: AtomicU64::new(0),
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn moved(&self) {
        self.moved_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// A request's head has arrived; it runs until the answer of this call is dropped.
    pub fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.moved();
        Running(Arc::clone(self))
    }

    /// Resolves when no request has run for this long: the visitor is idle, or sends a request's
    /// head too slowly, and may be let go.
    pub async fn overdue(&self, limit: Duration) {
        loop {
            let idle_ms = self.age_ms() - self.moved_ms.load(Ordering::Relaxed).min(self.age_ms());
            let left = match self.running.load(Ordering::Relaxed) {
                0 => limit.saturating_sub(Duration::from_millis(idle_ms)),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

/// A request that runs on a connection.
#[derive(Debug)]
pub struct Running(Arc<Connection>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.moved();
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connection that a request came on.
pub fn of(session: &ServerSession) -> Option<&Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref()
}

/// All connections of visitors.
#[derive(Debug)]
pub struct Connections {
    by_client: Mutex<HashMap<IpAddr, u32>>,
    /// The most that one address may hold; 0 for no limit.
    limit: u32,
    metrics: Arc<Metrics>,
    changed: Notify,
}

impl Connections {
    /// None yet; one address may hold so many (0 for no limit).
    pub fn new(limit: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            by_client: Mutex::default(),
            limit,
            metrics,
            changed: Notify::new(),
        }
    }

    /// Counts a connection; none when this visitor holds too many.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admitted> {
        let mut clients = self
            .by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let held = clients.entry(client).or_default();
        if self.limit != 0 && *held >= self.limit {
            self.metrics
                .refused_connections
                .fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *held += 1;
        self.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Some(Admitted {
            client,
            all: Arc::clone(self),
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.metrics.connections.load(Ordering::Relaxed)
    }

    /// Waits until none is open.
    pub async fn all_closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.open() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    client: IpAddr,
    all: Arc<Connections>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut clients = self
            .all
            .by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = clients.get_mut(&self.client) {
            *held -= 1;
            // Visitors who left take no memory.
            if *held == 0 {
                clients.remove(&self.client);
            }
        }
        drop(clients);
        self.all.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        self.all.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_visitor_holds_no_more_than_the_limit() {
        let all = Arc::new(Connections::new(2, Arc::default()));
        let [one, other] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let first = all.admit(one).unwrap();
        let _second = all.admit(one).unwrap();
        assert!(all.admit(one).is_none());
        assert!(all.admit(other).is_some());
        drop(first);
        assert!(all.admit(one).is_some());
        assert_eq!(all.by_client.lock().unwrap().len(), 1, "the other left");
    }

    #[tokio::test]
    async fn a_connection_is_overdue_only_while_nothing_runs() {
        let connection = Arc::new(Connection::new());
        let limit = Duration::from_millis(60);
        let running = connection.begin();
        let early = tokio::time::timeout(limit * 3, connection.overdue(limit)).await;
        assert!(early.is_err(), "a request is running");
        drop(running);
        connection.overdue(limit).await;
        assert!(connection.opened.elapsed() >= limit * 3);
    }
}
