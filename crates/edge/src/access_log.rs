//! One line of JSON a request on standard output, written aside from the requests.

use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;
use undine_model::SiteId;

/// More lines than this are not waited for: a stuck reader must not hold up visitors.
const BACKLOG: usize = 8192;

/// One request. Its query is left out: it may hold secrets.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Seconds since 1970.
    pub time_unix_s: f64,
    /// As in the answer's `X-Request-Id`.
    pub request_id: String,
    /// The visitor.
    pub client: Option<IpAddr>,
    /// `GET` and so on.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host name.
    pub host: Option<String>,
    /// Without the query.
    pub path: String,
    /// 0 when the visitor left before an answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the request's head to the answer's end.
    pub took_ms: u64,
    /// How much of that it waited for its server.
    pub held_ms: u64,
    /// Its site.
    pub site: Option<SiteId>,
    /// Who answered.
    pub upstream: Option<String>,
}

/// Writes lines to standard output.
#[derive(Debug, Clone)]
pub struct AccessLog(SyncSender<Line>);

impl AccessLog {
    /// Starts the writer; it ends with the last clone.
    pub fn start() -> std::io::Result<Self> {
        let (sender, lines) = sync_channel(BACKLOG);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&lines))?;
        Ok(Self(sender))
    }

    /// Writes a line soon; drops it when the reader is stuck.
    pub fn write(&self, line: Line) {
        let _ = self.0.try_send(line);
    }
}

fn write(lines: &Receiver<Line>) {
    let mut out = std::io::stdout();
    for line in lines {
        let Ok(mut text) = serde_json::to_vec(&line) else {
            continue;
        };
        text.push(b'\n');
        // Nobody reads any more: the log ends, the edge does not.
        if out.write_all(&text).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
