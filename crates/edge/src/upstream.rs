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
use undine_model::ServerId;

use crate::proxy::{Destination, Gate, Request};

/// To an instance of control, which may be further away.
const CONNECT: Duration = Duration::from_secs(2);
/// To a server, in the same network: who does not answer by then is not there.
const CONNECT_SERVER: Duration = Duration::from_secs(1);
const CONNECT_TLS: Duration = Duration::from_secs(4);
/// How long a server may think, or pause within an answer.
const ANSWER: Duration = Duration::from_secs(300);
/// The same for streams of events and upgraded connections, which may be silent for long.
pub const SILENCE: Duration = Duration::from_secs(2 * 3600);
/// A server that takes nothing for so long is gone.
const TAKE: Duration = Duration::from_secs(60);
/// Shorter than web servers keep their side open, so that we are the first to close.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A server that takes requests and breaks off without an answer is asked no more often than this:
/// what one request does to it must not go on for as long as a fail-over may take.
const BREAKS: u32 = 3;

/// What to do next with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask here.
    Ask(SocketAddr),
    /// Its server will be back: wait.
    Wait,
    /// Nobody is left to ask.
    Fail,
}

impl Gate {
    /// Where to try next.
    ///
    /// The table is read anew for every try: a server may have moved between two of them.
    pub fn next(&self, request: &Request) -> Result<Next> {
        let addresses = match &request.goes_to {
            Destination::Nowhere => return Error::err(ErrorType::HTTPStatus(500)),
            Destination::Panel => self.instances.order(),
            Destination::Site(entry) => {
                let table = self.routes.current();
                let now = table.route(&entry.route.host);
                match now.map(|entry| &entry.route.target) {
                    Some(Target::Server { .. }) if self.joins(entry.route.server, request) => {
                        return Ok(Next::Wait);
                    }
                    Some(Target::Server { addresses }) => addresses.clone(),
                    Some(Target::Held { .. }) if self.may_wait(request) => return Ok(Next::Wait),
                    _ => return Error::err(ErrorType::HTTPStatus(503)),
                }
            }
        };
        let fresh = addresses
            .into_iter()
            .find(|address| !request.tried.contains(address));
        Ok(match fresh {
            Some(address) => Next::Ask(address),
            None if self.may_wait(request) => Next::Wait,
            None => Next::Fail,
        })
    }

    /// Others wait for this server already, and it is not this request's turn.
    fn joins(&self, server: ServerId, request: &Request) -> bool {
        self.may_wait(request) && !request.is_my_turn && self.holds.is_closed(server)
    }

    fn may_wait(&self, request: &Request) -> bool {
        let for_site = matches!(request.goes_to, Destination::Site(_));
        for_site && self.holds.is_on() && request.broken < BREAKS
    }

    /// Is there anything left to do but to fail?
    pub fn may_go_on(&self, request: &Request) -> bool {
        matches!(self.next(request), Ok(Next::Ask(_) | Next::Wait))
    }

    /// Is the address that a request was sent to still where its server is?
    pub fn is_there(&self, request: &Request) -> bool {
        let (Destination::Site(entry), Some(address)) = (&request.goes_to, request.tried.last())
        else {
            return true;
        };
        let table = self.routes.current();
        match table.route(&entry.route.host).map(|it| &it.route.target) {
            Some(Target::Server { addresses } | Target::Held { addresses }) => {
                addresses.contains(address)
            }
            _ => true,
        }
    }

    /// A try failed; whom it was at counts as out.
    pub fn note_failure(&self, request: &Request) {
        self.metrics
            .upstream_failures
            .fetch_add(1, Ordering::Relaxed);
        if let (Destination::Panel, Some(address)) = (&request.goes_to, request.tried.last()) {
            self.instances.failed(*address);
        }
        if let Some(place) = &request.place {
            place.failed();
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
                if !is_safe(session) {
                    // A kept connection may lead to a node that died a moment ago, and what is
                    // sent there must not be sent again. A fresh one fails before.
                    request.id.hash(&mut hasher);
                }
                peer.group_key = hasher.finish();
                peer.options.total_connection_timeout = Some(CONNECT_SERVER);
                self.lines
                    .note(entry.route.server, address, &mut peer.options);
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
        // A connection for one request is not kept.
        let of_many = is_safe(session) || matches!(request.goes_to, Destination::Panel);
        peer.options.idle_timeout = Some(if of_many { KEEP_ALIVE } else { Duration::ZERO });
        // Who vanished is noticed within 20 s even when no route changes.
        peer.options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(5),
            interval: Duration::from_secs(5),
            count: 3,
            user_timeout: Duration::from_secs(20),
        });
        peer
    }
}

/// Does the request change nothing, so that it may be sent twice? PUT and DELETE are repeatable by
/// the letter only: a second DELETE answers that there is nothing, and applications do more.
pub fn is_safe(session: &Session) -> bool {
    session.req_header().method.is_safe()
}

/// May its answer be silent for long: a stream of events, or an upgraded connection?
pub fn may_be_silent(session: &Session) -> bool {
    let accept = session.req_header().headers.get(ACCEPT);
    let events = accept.is_some_and(|accept| {
        let text = accept.as_bytes();
        text.windows(17).any(|part| part == b"text/event-stream")
    });
    events || session.is_upgrade_req()
}
