//! What happens to one request: whose it is, where it goes, and what is told when it cannot go.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::access_log::{AccessLog, Line};
use crate::cluster::Cluster;
use crate::connection::{self, Connection, Running};
use crate::forward::{self, Visitor};
use crate::hold::{Ended, Holds, Place};
use crate::host;
use crate::instances::Instances;
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::page::{self, Page};
use crate::table::{Entry, Routes};
use crate::traffic::{Answered, Traffic};
use crate::upstream::{Next, SILENCE, is_safe};
use crate::verdict::Verdict;
use crate::whole::Asker;

/// A visitor who takes nothing for so long is gone.
const TAKE: Duration = Duration::from_secs(60);

/// Sends requests where they belong.
pub struct Gate {
    /// Who is where.
    pub routes: Arc<Routes>,
    /// Who answers for the panel.
    pub instances: Arc<Instances>,
    /// Our certificate for control.
    pub cluster: Arc<Cluster>,
    /// Counted for control.
    pub traffic: Arc<Traffic>,
    /// Counted for the operator.
    pub metrics: Arc<Metrics>,
    /// One line a request, if wanted.
    pub access_log: Option<AccessLog>,
    /// Where visitors find HTTPS; 443 is not written out.
    pub https_port: u16,
    /// Requests that wait for their server.
    pub holds: Arc<Holds>,
    /// Connections to servers.
    pub lines: Arc<Lines>,
    /// Asks servers for whole answers.
    pub asker: Asker,
}

/// One request on its way.
pub struct Request {
    started: Instant,
    /// Its id, told to everybody it meets.
    pub id: String,
    /// The host name, when it has a proper one.
    pub host: Option<String>,
    /// Whose it is.
    pub goes_to: Destination,
    /// Addresses that were tried, the last one last.
    pub tried: Vec<SocketAddr>,
    /// Its place among those that wait for its server, once it had to.
    pub place: Option<Place>,
    /// It waited, and may ask now.
    pub is_my_turn: bool,
    /// How often its server broke off without an answer.
    pub broken: u32,
    /// A server may have got it.
    sent: bool,
    /// How long it was held.
    held: Duration,
    /// Keeps the connection from counting as idle.
    running: Option<Running>,
}

impl Request {
    /// It waits no more.
    pub fn ends_waiting(&mut self, how: Ended) {
        if let Some(place) = self.place.take() {
            self.held += place.end(how);
        }
    }
}

/// Whose a request is.
pub enum Destination {
    /// Nobody's.
    Nowhere,
    /// A site's.
    Site(Arc<Entry>),
    /// The panel's.
    Panel,
}

impl Gate {
    fn page_for(&self, error: &Error, request: &Request, safe: bool) -> Option<Page> {
        let panel = matches!(request.goes_to, Destination::Panel);
        match (error.etype(), error.esource()) {
            (ErrorType::HTTPStatus(503), _) if panel => Some(page::NO_CONTROL),
            (ErrorType::HTTPStatus(status), _) => Some(page::for_status(*status)),
            (ErrorType::ReadTimedout, ErrorSource::Upstream) => Some(page::TIMEOUT),
            (_, ErrorSource::Upstream) if panel => Some(page::NO_CONTROL),
            (_, ErrorSource::Upstream) if request.sent && !safe => Some(page::INTERRUPTED),
            (_, ErrorSource::Upstream) => Some(page::NO_ANSWER),
            (ErrorType::ReadTimedout, ErrorSource::Downstream) => Some(page::TOO_SLOW),
            // The visitor is gone.
            (
                ErrorType::WriteError
                | ErrorType::WriteTimedout
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed,
                ErrorSource::Downstream,
            ) => None,
            (_, ErrorSource::Downstream) => Some(page::BAD_REQUEST),
            _ => Some(page::BROKEN),
        }
    }

    fn log_line(&self, session: &Session, request: &Request, answered: &Answered) {
        let Some(log) = &self.access_log else {
            return;
        };
        let head = session.req_header();
        let path = host::path_and_query(head);
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        log.write(Line {
            time_unix_s: now.as_secs_f64(),
            request_id: request.id.clone(),
            client: client(session),
            method: head.method.to_string(),
            scheme: if is_secure(session) { "https" } else { "http" },
            host: request.host.clone(),
            path: String::from_utf8_lossy(path).into_owned(),
            status: answered.status,
            bytes: answered.bytes,
            took_ms: millis(answered.took),
            held_ms: millis(request.held),
            site: answered.site,
            upstream: request.tried.last().map(ToString::to_string),
        });
    }
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request {
            started: Instant::now(),
            id: uuid::Uuid::now_v7().simple().to_string(),
            host: None,
            goes_to: Destination::Nowhere,
            tried: Vec::new(),
            place: None,
            is_my_turn: false,
            broken: 0,
            sent: false,
            held: Duration::ZERO,
            running: None,
        }
    }

    /// No modules: servers compress for themselves.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<()> {
        // The context is made before the head is read: an idle connection's wait is no work.
        request.started = Instant::now();
        request.running = connection::of(session).map(Connection::begin);
        session.set_write_timeout(Some(TAKE));
        session.set_total_drain_timeout(Some(Duration::from_secs(10)));
        if session.is_upgrade_req() {
            session.set_read_timeout(Some(SILENCE));
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, request: &mut Request) -> Result<bool> {
        match self.judge(session, request) {
            Verdict::Forward if !Self::takes_whole(session, request) => return Ok(false),
            Verdict::Forward => self.answer_whole(session, request).await?,
            Verdict::Show(page) => page::show(session, page, &request.id).await?,
            Verdict::Say(page, words) => page::say(session, page, &words, &request.id).await?,
            Verdict::Redirect(to) => page::redirect(session, &to, &request.id).await?,
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        request: &mut Request,
    ) -> Result<Box<HttpPeer>> {
        loop {
            match self.next(request)? {
                Next::Ask(address) => {
                    request.is_my_turn = false;
                    request.tried.push(address);
                    return Ok(Box::new(self.peer(address, session, request)));
                }
                Next::Wait => self.wait(session, request).await?,
                Next::Fail => return Err(Error::new_up(ErrorType::ConnectError)),
            }
        }
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: RawFd,
        _: Option<&Digest>,
        request: &mut Request,
    ) -> Result<()> {
        // It may have moved while we connected: nothing is sent to who is no longer the owner.
        if self.is_there(request) {
            return Ok(());
        }
        Err(Error::new_up(ErrorType::ConnectError))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        request: &mut Request,
    ) -> Result<()> {
        request.sent = true;
        let visitor = Visitor {
            client: client(session),
            secure: is_secure(session),
            request_id: &request.id,
        };
        forward::prepare(upstream, visitor)
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        request.ends_waiting(Ended::Answered);
        response.insert_header("X-Request-Id", request.id.as_str())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        request: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.note_failure(request);
        // Nothing was sent by this try, so that any request may go on.
        error.set_retry(self.may_go_on(request));
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        request: &mut Request,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let repeatable = (!request.sent || is_safe(session))
            && !session.as_ref().retry_buffer_truncated()
            && !has_begun(session);
        if !repeatable {
            error.set_retry(false);
            return error;
        }
        error.retry.decide_reuse(reused);
        if error.retry() {
            // A kept connection had just been closed: the same address deserves a fresh one.
            request.tried.pop();
        } else if *error.esource() == ErrorSource::Upstream
            && *error.etype() != ErrorType::ReadTimedout
        {
            if self.is_there(request) {
                request.broken += 1;
            }
            self.note_failure(request);
            error.set_retry(self.may_go_on(request));
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        request: &mut Request,
    ) -> FailToProxy {
        let left = *error.esource() == ErrorSource::Downstream;
        request.ends_waiting(if left { Ended::Left } else { Ended::Failed });
        let mut outcome = FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
        // An answer that has begun cannot be taken back.
        if has_begun(session) {
            return outcome;
        }
        if let Some(page) = self.page_for(error, request, is_safe(session)) {
            outcome.error_code = page.status;
            session.set_keepalive(None);
            if let Err(error) = page::show(session, page, &request.id).await {
                tracing::debug!(%error, "the visitor left before the page");
            }
        }
        outcome
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, request: &mut Request) {
        let answered = Answered {
            site: match &request.goes_to {
                Destination::Site(entry) => Some(entry.route.site),
                _ => None,
            },
            status: session
                .response_written()
                .map_or(0, |response| response.status.as_u16()),
            bytes: u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX),
            took: request.started.elapsed(),
        };
        self.traffic.count(answered);
        self.metrics.count(&answered);
        self.log_line(session, request, &answered);
        if let Some(error) = error {
            let host = request.host.as_deref().unwrap_or_default();
            match error.esource() {
                ErrorSource::Upstream => {
                    tracing::info!(request_id = request.id, host, %error, "a server failed");
                }
                _ => tracing::debug!(request_id = request.id, host, %error, "a request failed"),
            }
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Request, _: &Error) -> bool {
        // Told in `logging`, in our words.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Request,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn client(session: &Session) -> Option<IpAddr> {
    let address = session.client_addr()?.as_inet()?;
    Some(address.ip().to_canonical())
}

/// Did it come over TLS?
pub fn is_secure(session: &Session) -> bool {
    session
        .digest()
        .is_some_and(|digest| digest.ssl_digest.is_some())
}

/// Has the visitor got the beginning of an answer? A mere `100 Continue` is none.
fn has_begun(session: &Session) -> bool {
    let written = session.response_written().map(|response| response.status);
    written.is_some_and(|status| {
        status == StatusCode::SWITCHING_PROTOCOLS || !status.is_informational()
    })
}
