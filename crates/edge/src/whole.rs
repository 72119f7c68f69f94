//! Answers to requests that change nothing are taken in whole before they are passed on.
//!
//! A node may die in the middle of an answer. What a visitor has of it cannot be taken back, and
//! the rest would never come. So a short answer is kept until its end is here: when its server dies
//! before, the request waits and is asked again, as one is that got no answer at all. An answer
//! that is long, or that comes bit by bit from a server that is seen to be alive, is passed on as
//! it comes.

use std::net::SocketAddr;
use std::time::Duration;

use http::Version;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Server;
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::forward;
use crate::proxy::{Destination, Gate, Request};
use crate::upstream::{is_safe, may_be_silent};
use crate::wait::gone;

/// An answer longer than this is passed on as it comes.
const MOST: usize = 256 * 1024;
/// Bytes of all answers that are kept at the same time; beyond, they are passed on as they come.
const MOST_IN_ALL: usize = 64 << 20;
/// Whoever takes longer from an answer's beginning to its end must show to be alive.
const SOON: Duration = Duration::from_millis(200);
/// A server in the same network takes a connection much sooner than this, or is not there.
const CONNECT: Duration = Duration::from_secs(1);

/// Asks servers, and keeps what they answer.
pub struct Asker {
    connector: Connector,
    room: Semaphore,
}

impl Asker {
    /// Keeps connections to servers as the proxy itself does.
    pub fn new(conf: &ServerConf) -> Self {
        Self {
            connector: Connector::new(Some(ConnectorOptions::from_server_conf(conf))),
            room: Semaphore::new(MOST_IN_ALL),
        }
    }
}

/// What of an answer has come and is not passed on yet.
struct Kept<'a> {
    room: &'a Semaphore,
    permit: Option<SemaphorePermit<'a>>,
    parts: Vec<HttpTask>,
    bytes: usize,
}

impl<'a> Kept<'a> {
    const fn new(room: &'a Semaphore) -> Self {
        Self {
            room,
            permit: None,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    const fn has_begun(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Keeps a part. False when no more are to be kept.
    fn keep(&mut self, part: HttpTask) -> bool {
        let (length, to_come) = match &part {
            HttpTask::Body(Some(body), _) => (body.len(), 0),
            HttpTask::Header(head, false) => (0, length(head)),
            _ => (0, 0),
        };
        let is_end = part.is_end();
        self.parts.push(part);
        self.bytes += length;
        !is_end && self.bytes.max(to_come) <= MOST && self.takes(length)
    }

    fn takes(&mut self, length: usize) -> bool {
        let Ok(more) = self
            .room
            .try_acquire_many(u32::try_from(length).unwrap_or(u32::MAX))
        else {
            return false;
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        true
    }
}

fn length(head: &ResponseHeader) -> usize {
    let text = head.headers.get(CONTENT_LENGTH).map(|it| it.to_str());
    text.and_then(Result::ok)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl Gate {
    /// Is this a request whose answer is taken in whole?
    pub fn takes_whole(session: &mut Session, request: &Request) -> bool {
        matches!(request.goes_to, Destination::Site(_))
            && is_safe(session)
            && session.is_body_empty()
            && !may_be_silent(session)
    }

    /// Asks until a server has answered, or nothing is left to do.
    pub async fn answer_whole(&self, session: &mut Session, request: &mut Request) -> Result<()> {
        loop {
            let peer = self.upstream_peer(session, request).await?;
            match self.ask(&peer, session, request).await {
                Err(error) if error.retry() => {}
                outcome => return outcome,
            }
        }
    }

    async fn ask(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<()> {
        let connected = self.asker.connector.get_http_session(peer).await;
        let (mut server, reused) = match connected {
            Ok((HttpSession::H1(server), reused)) => (server, reused),
            Ok(_) => return Error::err(ErrorType::InternalError),
            Err(error) => {
                return Err(self.fail_to_connect(session, peer, request, error.into_up()));
            }
        };
        match self.exchange(&mut server, peer, session, request).await {
            Ok(()) => {
                let idle = peer.options.idle_timeout;
                let server = HttpSession::H1(server);
                self.asker
                    .connector
                    .release_http_session(server, peer, idle)
                    .await;
                Ok(())
            }
            Err(error) => Err(self.error_while_proxy(peer, session, error, request, reused)),
        }
    }

    async fn exchange(
        &self,
        server: &mut Server,
        peer: &HttpPeer,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<()> {
        // It may have moved while we connected: nothing is sent to who is no longer the owner.
        if !self.is_there(request) {
            return Err(Error::new_up(ErrorType::ConnectError));
        }
        server.read_timeout = peer.options.read_timeout;
        server.write_timeout = peer.options.write_timeout;
        let mut head = session.req_header().clone();
        head.set_version(Version::HTTP_11);
        forward::strip_hops(&mut head);
        self.upstream_request_filter(session, &mut head, request)
            .await?;
        server
            .write_request_header(Box::new(head))
            .await
            .map_err(Error::into_up)?;
        let at = request.tried.last().copied();
        let mut kept = Kept::new(&self.asker.room);
        take_in(server, at, session, &mut kept).await?;
        let mut parts = std::mem::take(&mut kept.parts);
        if let Some(HttpTask::Header(head, is_end)) = parts.first_mut() {
            frame(head, *is_end || is_without_body(session, head))?;
            self.response_filter(session, head, request).await?;
        }
        while !session.write_response_tasks(parts).await? {
            kept.permit = None;
            parts = vec![next(server, session).await?];
        }
        Ok(())
    }
}

/// Takes in the answer: all of it, or as much as is kept.
async fn take_in(
    server: &mut Server,
    at: Option<SocketAddr>,
    session: &mut Session,
    kept: &mut Kept<'_>,
) -> Result<()> {
    let alive = shows_life(at);
    tokio::pin!(alive);
    loop {
        let part = tokio::select! {
            part = next(server, session) => part?,
            // Reading is given up only between two parts of a body, where nothing is lost by it.
            () = &mut alive, if kept.has_begun() => return Ok(()),
        };
        if matches!(&part, HttpTask::Header(head, _) if head.status.is_informational()) {
            continue;
        }
        if !kept.keep(part) {
            return Ok(());
        }
    }
}

/// The next part of an answer, for as long as its visitor is there.
async fn next(server: &mut Server, session: &mut Session) -> Result<HttpTask> {
    tokio::select! {
        part = server.read_response_task() => part.map_err(Error::into_up),
        error = gone(session) => Err(error),
    }
}

/// Resolves when some time has passed and somebody takes connections there.
async fn shows_life(at: Option<SocketAddr>) {
    let Some(address) = at else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(SOON).await;
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return;
        }
    }
}

/// A body whose length the server did not say must show its end in some way, so that the visitor's
/// connection can be kept.
fn frame(head: &mut ResponseHeader, is_without_body: bool) -> Result<()> {
    let says_length = |head: &ResponseHeader| {
        head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING)
    };
    if is_without_body || says_length(head) {
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    head.insert_header(TRANSFER_ENCODING, "chunked")
}

fn is_without_body(session: &Session, head: &ResponseHeader) -> bool {
    session.req_header().method == http::Method::HEAD || matches!(head.status.as_u16(), 204 | 304)
}
