//! What visitors did, by site, on its way to control.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use undine_api::edge::{EdgeReport, SiteTraffic};
use undine_link::Method;
use undine_model::SiteId;

use crate::cluster::Cluster;
use crate::table::Routes;

const EVERY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(5);

/// Counts by site since the last report. Bounded: there are no more keys than sites.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<HashMap<Option<SiteId>, SiteTraffic>>);

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Its site, if the name belongs to one.
    pub site: Option<SiteId>,
    /// The answer's status; 0 when the visitor left before one.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the request's head to the answer's end.
    pub took: Duration,
}

impl Traffic {
    /// Counts a request.
    pub fn count(&self, answered: Answered) {
        self.add(&SiteTraffic {
            site: answered.site,
            requests: 1,
            errors: u64::from(answered.status >= 500),
            bytes_out: answered.bytes,
            total_ms: u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX),
        });
    }

    fn add(&self, more: &SiteTraffic) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sites.entry(more.site).or_insert_with(|| SiteTraffic {
            site: more.site,
            ..SiteTraffic::default()
        });
        sum.requests += more.requests;
        sum.errors += more.errors;
        sum.bytes_out += more.bytes_out;
        sum.total_ms = sum.total_ms.saturating_add(more.total_ms);
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Vec<SiteTraffic> {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *sites).into_values().collect()
    }

    /// Reports to control every ten seconds, for ever.
    pub async fn report(
        self: Arc<Self>,
        cluster: Arc<Cluster>,
        routes: Arc<Routes>,
        addresses: Vec<SocketAddr>,
    ) {
        loop {
            let sites = self.take();
            let report = EdgeReport {
                version: routes.current().version(),
                addresses: addresses.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                sites,
            };
            let control = cluster.trust().control.clone();
            let sent = control
                .call::<serde_json::Value>(
                    Method::POST,
                    "/internal/v1/edges/report",
                    Some(&report),
                    DEADLINE,
                )
                .await;
            if let Err(error) = sent {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the report waits for control"
                );
                // Counted on. An answer that got lost counts twice, which metrics bear.
                let known = routes.current().sites();
                for site in &report.sites {
                    // A site that is gone meanwhile needs no more counting.
                    if site.site.is_none_or(|id| known.contains(&id)) {
                        self.add(site);
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    #[test]
    fn requests_are_summed_by_site_and_taken_once() {
        let traffic = Traffic::default();
        let site: SiteId = Id::from_parts(1, [1; 10]);
        for status in [200, 503, 499] {
            traffic.count(Answered {
                site: Some(site),
                status,
                bytes: 10,
                took: Duration::from_millis(7),
            });
        }
        let expected = SiteTraffic {
            site: Some(site),
            requests: 3,
            errors: 1,
            bytes_out: 30,
            total_ms: 21,
        };
        assert_eq!(traffic.take(), [expected]);
        assert!(traffic.take().is_empty());
    }
}
