//! Which server or instance is asked, how, and for how long.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::ACCEPT;
use pingora::protocols::TcpKeepalive;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use undine_api::edge::Target;
use undine_link::CONTROL_HOST;

use crate::proxy::{Destination, Gate, Request};

const CONNECT: Duration = Duration::from_secs(2);
const CONNECT_TLS: Duration = Duration::from_secs(4);
/// How long a server may think, or pause within an answer.
const ANSWER: Duration = Duration::from_secs(300);
/// The same for streams of events and upgraded connections, which may be silent for long.
pub const SILENCE: Duration = Duration::from_secs(2 * 3600);
/// A server that takes nothing for so long is gone.
const TAKE: Duration = Duration::from_secs(60);
/// Shorter than web servers keep their side open, so that we are the first to close.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

impl Gate {
    /// Where to try next; none when everything was tried.
    ///
    /// The table is read anew for every try: a server may have moved between two of them.
    pub fn next_address(&self, request: &Request) -> Result<Option<SocketAddr>> {
        let addresses = match &request.goes_to {
            Destination::Nowhere => return Error::err(ErrorType::HTTPStatus(500)),
            Destination::Panel => self.instances.order(),
            Destination::Site(entry) => {
                let table = self.routes.current();
                let now = table.route(&entry.route.host);
                match now.map(|entry| &entry.route.target) {
                    Some(Target::Server { addresses }) => addresses.clone(),
                    _ => return Error::err(ErrorType::HTTPStatus(503)),
                }
            }
        };
        Ok(addresses
            .into_iter()
            .find(|address| !request.tried.contains(address)))
    }

    /// Is there an address that was not tried yet?
    pub fn has_another(&self, request: &Request) -> bool {
        matches!(self.next_address(request), Ok(Some(_)))
    }

    /// A try failed; whom it was at counts as out.
    pub fn note_failure(&self, request: &Request) {
        self.metrics
            .upstream_failures
            .fetch_add(1, Ordering::Relaxed);
        if let (Destination::Panel, Some(address)) = (&request.goes_to, request.tried.last()) {
            self.instances.failed(*address);
        }
    }

    /// How to reach an address for this request.
    pub fn peer(&self, address: SocketAddr, session: &Session, request: &Request) -> HttpPeer {
        let mut peer = match &request.goes_to {
            Destination::Panel => {
                let trust = self.cluster.trust();
                let name = CONTROL_HOST.to_owned();
                let mut peer = HttpPeer::new_mtls(address, name, Arc::clone(&trust.key));
                peer.options.ca = Some(Arc::clone(&trust.ca));
                peer.options.total_connection_timeout = Some(CONNECT_TLS);
                peer
            }
            Destination::Site(entry) => {
                let mut peer = HttpPeer::new(address, false, String::new());
                // An address may pass from one server to another: connections must not.
                let mut hasher = DefaultHasher::new();
                entry.route.server.hash(&mut hasher);
                peer.group_key = hasher.finish();
                peer.options.total_connection_timeout = Some(CONNECT);
                peer
            }
            Destination::Nowhere => HttpPeer::new(address, false, String::new()),
        };
        let patience = if may_be_silent(session) {
            SILENCE
        } else {
            ANSWER
        };
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.read_timeout = Some(patience);
        peer.options.write_timeout = Some(TAKE);
        peer.options.idle_timeout = Some(KEEP_ALIVE);
        peer.options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(5),
            count: 3,
            user_timeout: Duration::ZERO,
        });
        peer
    }
}

fn may_be_silent(session: &Session) -> bool {
    let accept = session.req_header().headers.get(ACCEPT);
    let events = accept.is_some_and(|accept| {
        let text = accept.as_bytes();
        text.windows(17).any(|part| part == b"text/event-stream")
    });
    events || session.is_upgrade_req()
}
