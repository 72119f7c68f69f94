//! Whose a request is, and what to do with it before any server is asked.

use std::sync::Arc;

use pingora::http::RequestHeader;
use pingora::proxy::Session;
use undine_api::edge::{Route, Target};

use crate::forward;
use crate::host;
use crate::page::{self, Page};
use crate::proxy::{Destination, Gate, Request, is_secure};

/// The most that a request's head may hold; servers behind us take little more.
const HEAD_LIMIT: usize = 32 * 1024;

/// What to do before anybody is asked.
pub enum Verdict {
    /// Ask a server.
    Forward,
    /// Answer with a page.
    Show(Page),
    /// Answer with a page that says this.
    Say(Page, String),
    /// Send the visitor to this URL.
    Redirect(Vec<u8>),
}

impl Gate {
    /// Decides, and notes in the request whose it is.
    pub fn judge(&self, session: &mut Session, request: &mut Request) -> Verdict {
        let head = session.req_header();
        if size(head) > HEAD_LIMIT {
            return Verdict::Show(page::TOO_LARGE);
        }
        request.host = host::host(head);
        let Some(host) = &request.host else {
            return Verdict::Show(page::NO_HOST);
        };
        let table = self.routes.current();
        let path = host::path_and_query(head);
        // Behind a host name in a redirect, anything else could lead somewhere else.
        if !path.starts_with(b"/") {
            return Verdict::Show(page::BAD_REQUEST);
        }
        if table.is_panel(host) {
            if forward::is_internal(path) {
                return Verdict::Show(page::NOT_HERE);
            }
            request.goes_to = Destination::Panel;
            return Verdict::Forward;
        }
        let Some(entry) = table.route(host) else {
            return Verdict::Show(if table.is_blank() {
                page::UNAVAILABLE
            } else {
                page::UNKNOWN
            });
        };
        request.goes_to = Destination::Site(Arc::clone(entry));
        if entry.route.https_only && !is_secure(session) {
            let mut to = format!("https://{host}").into_bytes();
            if self.https_port != 443 {
                to.extend_from_slice(format!(":{}", self.https_port).as_bytes());
            }
            to.extend_from_slice(path);
            return Verdict::Redirect(to);
        }
        of_target(&entry.route, path)
    }
}

fn of_target(route: &Route, path: &[u8]) -> Verdict {
    match &route.target {
        // A held one is waited for on the way.
        Target::Server { .. } | Target::Held { .. } => Verdict::Forward,
        Target::Unavailable => Verdict::Show(page::UNAVAILABLE),
        Target::Suspended { words: None } => Verdict::Show(page::SUSPENDED),
        Target::Suspended { words: Some(words) } => Verdict::Say(page::SUSPENDED, words.clone()),
        Target::Redirect { to } => {
            let mut to = to.trim_end_matches('/').as_bytes().to_vec();
            to.extend_from_slice(path);
            Verdict::Redirect(to)
        }
    }
}

/// The bytes of a request's head.
pub fn size(head: &RequestHeader) -> usize {
    let headers = head.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    head.raw_path().len() + headers
}
