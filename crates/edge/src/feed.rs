//! Follows control's routing table by long polls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use undine_api::edge::RouteUpdate;
use undine_link::{CallError, Method};

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::table::Routes;

const WAIT_S: u64 = 25;
/// Longer than control waits, so that an instance that hangs is passed over.
const DEADLINE: Duration = Duration::from_secs(WAIT_S + 8);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An answer without news that comes faster than this is no long poll: be gentle.
const GENTLE: Duration = Duration::from_secs(1);

/// Follows control's table, for ever.
pub struct Feed {
    /// The line to control.
    pub cluster: Arc<Cluster>,
    /// What is served.
    pub routes: Arc<Routes>,
    /// Counted here: changes and failures.
    pub metrics: Arc<Metrics>,
    /// Where control was when this edge joined; used beside what the table says.
    pub joined_at: Vec<SocketAddr>,
}

impl Feed {
    /// Polls until the task is ended.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        // The version to ask for; 0 asks for the whole table.
        let mut after = self.routes.current().version();
        loop {
            self.look_where_control_is();
            let asked = Instant::now();
            match self.poll(after).await {
                Ok(update) => {
                    self.metrics.control_answers(true);
                    pause = FIRST_PAUSE;
                    let news = self.take(update, &mut after);
                    if !news && asked.elapsed() < GENTLE {
                        tokio::time::sleep(GENTLE).await;
                    }
                }
                Err(error) => {
                    self.metrics.control_answers(false);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "control sends no routes; the last ones are served"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn poll(&self, after: u64) -> Result<RouteUpdate, CallError> {
        let path = format!("/internal/v1/routes?after={after}&wait_s={WAIT_S}");
        let control = self.cluster.trust().control.clone();
        control
            .call(Method::GET, &path, None::<&()>, DEADLINE)
            .await
    }

    /// Applies a change; says whether there was any.
    fn take(&self, update: RouteUpdate, after: &mut u64) -> bool {
        let table = self.routes.current();
        let is_news = update.whole
            || update.version != table.version()
            || update.panel != table.panel().panel
            || !update.routes.is_empty()
            || !update.removed.is_empty();
        if !is_news {
            return false;
        }
        match table.apply(update) {
            Ok(next) => {
                *after = next.version();
                tracing::debug!(version = next.version(), hosts = next.len(), "new routes");
                let moved = next.version() != table.version();
                self.routes.replace(next);
                moved
            }
            Err(gap) => {
                tracing::warn!(%gap, "asking for the whole table");
                *after = 0;
                false
            }
        }
    }

    fn look_where_control_is(&self) {
        let table = self.routes.current();
        let mut addresses: Vec<SocketAddr> = table
            .panel()
            .panel
            .instances
            .iter()
            .map(|instance| instance.address)
            .collect();
        for address in &self.joined_at {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let control = &self.cluster.trust().control;
        let known = control.addresses();
        let same = known.len() == addresses.len() && known.iter().all(|it| addresses.contains(it));
        if !same && let Err(error) = control.set_addresses(&addresses) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "control's addresses"
            );
        }
    }
}
