//! The edge's own figures in Prometheus' text form.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use tokio::net::TcpListener;

use crate::hold::Ended;
use crate::instances::Instances;
use crate::table::Routes;
use crate::traffic::Answered;

/// A scraper that is slower than this is let go.
const SCRAPE: Duration = Duration::from_secs(10);

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By the status' first digit; 0 for visitors who left.
    requests: [AtomicU64; 6],
    bytes_out: AtomicU64,
    took_ms: AtomicU64,
    /// Tries at a server or an instance that failed.
    pub upstream_failures: AtomicU64,
    /// Visitors turned away because they hold too many connections.
    pub refused_connections: AtomicU64,
    /// Connections open now.
    pub connections: AtomicUsize,
    polls_failed: AtomicU64,
    control_answers: AtomicU64,
    /// Requests that wait for their server.
    pub hold: Hold,
}

/// Of requests that wait, or waited, for their server.
#[derive(Debug, Default)]
pub struct Hold {
    now: AtomicUsize,
    total: AtomicU64,
    /// Turned away because too many waited.
    pub refused: AtomicU64,
    /// By [`Ended`], in its order.
    ended: [AtomicU64; 4],
    waited_ms: AtomicU64,
    longest_ms: AtomicU64,
    cut: AtomicU64,
}

impl Hold {
    /// One more waits; so many do now.
    pub fn began(&self, now: usize) {
        self.now.store(now, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// One waits no more; so many do now.
    pub fn ended(&self, how: Ended, waited: Duration, now: usize) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.now.store(now, Ordering::Relaxed);
        self.ended[how as usize].fetch_add(1, Ordering::Relaxed);
        self.waited_ms.fetch_add(waited_ms, Ordering::Relaxed);
        self.longest_ms.fetch_max(waited_ms, Ordering::Relaxed);
    }

    /// So many connections to where servers are no longer were cut.
    pub fn cut(&self, many: usize) {
        let many = u64::try_from(many).unwrap_or(u64::MAX);
        self.cut.fetch_add(many, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request.
    pub fn count(&self, answered: &Answered) {
        let class = usize::from(answered.status / 100).min(5);
        let took_ms = u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX);
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(answered.bytes, Ordering::Relaxed);
        self.took_ms.fetch_add(took_ms, Ordering::Relaxed);
    }

    /// Whether the last poll for routes was answered.
    pub fn control_answers(&self, answers: bool) {
        self.control_answers
            .store(u64::from(answers), Ordering::Relaxed);
        if !answers {
            self.polls_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything as Prometheus reads it.
    pub fn render(&self, routes: &Routes, instances: &Instances) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, lines: &[(&str, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let classes = ["left", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .map(|class| format!("{{class=\"{class}\"}}"));
        let requests: Vec<(&str, u64)> = classes
            .iter()
            .map(String::as_str)
            .zip(self.requests.iter().map(load))
            .collect();
        put(
            "undine_edge_requests_total",
            "counter",
            "Requests by class of status.",
            &requests,
        );
        for (name, help, value) in [
            (
                "sent_bytes_total",
                "Bytes of answers' bodies.",
                load(&self.bytes_out),
            ),
            (
                "request_milliseconds_total",
                "Sum of the answers' times.",
                load(&self.took_ms),
            ),
            (
                "upstream_failures_total",
                "Failed tries at servers.",
                load(&self.upstream_failures),
            ),
            (
                "refused_connections_total",
                "Connections over a visitor's limit.",
                load(&self.refused_connections),
            ),
            (
                "route_polls_failed_total",
                "Polls for routes without an answer.",
                load(&self.polls_failed),
            ),
            (
                "held_requests_total",
                "Requests that had to wait for their server.",
                load(&self.hold.total),
            ),
            (
                "held_milliseconds_total",
                "Sum of their waits.",
                load(&self.hold.waited_ms),
            ),
            (
                "hold_refused_total",
                "Requests that did not wait because too many did.",
                load(&self.hold.refused),
            ),
            (
                "cut_connections_total",
                "Connections to where a server is no longer.",
                load(&self.hold.cut),
            ),
        ] {
            put(
                &format!("undine_edge_{name}"),
                "counter",
                help,
                &[("", value)],
            );
        }
        let ends =
            ["answered", "too_long", "failed", "left"].map(|end| format!("{{end=\"{end}\"}}"));
        let ended: Vec<(&str, u64)> = ends
            .iter()
            .map(String::as_str)
            .zip(self.hold.ended.iter().map(load))
            .collect();
        put(
            "undine_edge_held_requests_ended_total",
            "counter",
            "Requests that waited, by how that ended.",
            &ended,
        );
        let table = routes.current();
        let (known, healthy) = instances.count();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        for (name, help, value) in [
            (
                "connections",
                "Visitors' connections now.",
                count(self.connections.load(Ordering::Relaxed)),
            ),
            (
                "held_requests",
                "Requests that wait for their server now.",
                count(self.hold.now.load(Ordering::Relaxed)),
            ),
            (
                "held_milliseconds_longest",
                "The longest wait since the start.",
                load(&self.hold.longest_ms),
            ),
            ("routes", "Host names in the table.", count(table.len())),
            ("routes_version", "The table's version.", table.version()),
            (
                "control_answers",
                "Whether control answered the last poll.",
                load(&self.control_answers),
            ),
            (
                "control_instances",
                "Instances of control in the table.",
                count(known),
            ),
            (
                "control_instances_healthy",
                "Instances of control that answer.",
                count(healthy),
            ),
        ] {
            put(
                &format!("undine_edge_{name}"),
                "gauge",
                help,
                &[("", value)],
            );
        }
        text
    }
}

/// Serves `/metrics` and `/healthz`, for ever.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    routes: Arc<Routes>,
    instances: Arc<Instances>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, routes, instances) = (metrics.clone(), routes.clone(), instances.clone());
        tokio::spawn(async move {
            let mut session = ServerSession::new_http1(Box::new(Stream::from(stream)));
            let answer = async {
                if !session.read_request().await? {
                    return Ok(());
                }
                let (status, body) = match session.req_header().uri.path() {
                    "/metrics" => (200, metrics.render(&routes, &instances)),
                    "/healthz" => (200, "ok\n".to_owned()),
                    _ => (404, "only /metrics and /healthz are here\n".to_owned()),
                };
                let mut head = ResponseHeader::build(status, Some(2))?;
                head.insert_header("content-type", "text/plain; version=0.0.4")?;
                head.set_content_length(body.len())?;
                session.set_keepalive(None);
                session.write_response_header(Box::new(head)).await?;
                session.write_response_body(Bytes::from(body), true).await?;
                session.finish().await.map(|_| ())
            };
            // A scraper that goes away or is slow harms only itself.
            let _: Result<pingora::Result<()>, _> = tokio::time::timeout(SCRAPE, answer).await;
        });
    }
}
