//! Visitors: they come to every site of the demo in turn, by every edge, and count what goes wrong.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Site;
use super::stats::{Summary, summary};
use super::wire;

const AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What visitors met.
#[derive(Debug, Default)]
pub struct Visits {
    /// How many there were.
    pub requests: usize,
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

/// So many visits, some at a time.
pub fn visits(edges: &[SocketAddr], sites: &[Site], requests: usize) -> Visits {
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Vec::new(), Vec::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= requests {
                return;
            }
            let edge = edges[(index / sites.len()) % edges.len()];
            let outcome = visit(edge, &sites[index % sites.len()]);
            let Ok(mut all) = all.lock() else { return };
            match outcome {
                Ok(took) => all.0.push(took),
                Err(trouble) => all.1.push(trouble),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let (took, mut troubles) = all.into_inner().unwrap_or_default();
    let failed = requests - took.len();
    troubles.truncate(10);
    Visits {
        requests,
        failed,
        troubles,
        took: summary(&took),
    }
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
