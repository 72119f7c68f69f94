//! Visitors: some for every site of the demo, by every edge in turn. Each takes a breath between
//! two visits, so that quick sites do not end the crowd before slow ones were seen. They count what
//! goes wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Site;
use super::stats::{Summary, summary};
use super::wire;

/// Visitors of each site at a time.
const EACH: usize = 2;
const BREATH: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// What visitors met.
#[derive(Debug, Default)]
pub struct Visits {
    /// How many there were.
    pub requests: usize,
    /// How many got the right page, by site.
    pub well: BTreeMap<String, usize>,
    /// How many did not get the right page.
    pub failed: usize,
    /// What some of these got instead.
    pub troubles: Vec<String>,
    /// How long each took.
    pub took: Option<Summary>,
}

impl Visits {
    /// For a file.
    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests,
            "failed": self.failed,
            "well_by_site": self.well,
            "troubles": self.troubles,
            "answer_s": self.took.map(Summary::rounded),
        })
    }
}

/// One visit; how it failed, if it did.
pub fn visit(edge: SocketAddr, site: &Site) -> Result<f64, String> {
    let begun = Instant::now();
    match wire::get(edge, &site.host, "/", PATIENCE) {
        Ok(page) if page.status == 200 && page.text().contains(&site.expect) => {
            Ok(begun.elapsed().as_secs_f64())
        }
        Ok(page) => Err(format!(
            "{} by {edge}: status {} without `{}`",
            site.host, page.status, site.expect
        )),
        Err(error) => Err(format!("{} by {edge}: {error:#}", site.host)),
    }
}

/// So many visits in all.
pub fn visits(edges: &[SocketAddr], sites: &[Site], requests: usize) -> Visits {
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Visits::default(), Vec::new()));
    let work = |site: &Site| loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= requests {
            return;
        }
        let outcome = visit(edges[index % edges.len()], site);
        if let Ok(mut all) = all.lock() {
            let (met, took) = &mut *all;
            met.requests += 1;
            match outcome {
                Ok(seconds) => {
                    took.push(seconds);
                    *met.well.entry(site.host.clone()).or_default() += 1;
                }
                Err(trouble) => {
                    met.failed += 1;
                    met.troubles.push(trouble);
                }
            }
        }
        thread::sleep(BREATH);
    };
    thread::scope(|scope| {
        for site in sites.iter().cycle().take(sites.len() * EACH) {
            scope.spawn(move || work(site));
        }
    });
    let (mut met, took) = all.into_inner().unwrap_or_default();
    met.troubles.truncate(10);
    met.took = summary(&took);
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_meets_a_closed_door_is_counted() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let site = Site {
            host: "a.test".to_owned(),
            expect: "hello".to_owned(),
        };
        let met = visits(&[closed], &[site], 7);
        assert_eq!((met.requests, met.failed), (7, 7));
        assert!(
            met.troubles[0].contains("nobody listens"),
            "{:?}",
            met.troubles
        );
        assert!(met.took.is_none());
    }
}
