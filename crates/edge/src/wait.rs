//! A request waits for its turn, for as long as its visitor does and the limits allow.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use crate::hold::{Ended, Place};
use crate::page;
use crate::proxy::{Destination, Gate, Request};
use crate::verdict::size;

/// As much of a body as the proxy keeps to send it again.
const BODY: usize = 64 * 1024;

impl Gate {
    /// Waits until it is the request's turn to look at the route again.
    pub async fn wait(&self, session: &mut Session, request: &mut Request) -> Result<()> {
        let Destination::Site(entry) = &request.goes_to else {
            return Error::err(ErrorType::ConnectError);
        };
        let entry = Arc::clone(entry);
        let place = match request.place.take() {
            Some(place) => place,
            None => self
                .holds
                .enter(entry.route.server, weight(session))
                .map_err(|full| {
                    tracing::debug!(host = entry.route.host, ?full, "nobody more is held");
                    Error::new(ErrorType::HTTPStatus(page::UNAVAILABLE.status))
                })?,
        };
        let turn = place.turn(&entry.route.host, !request.tried.is_empty());
        let left = place.left();
        let place: &Place = request.place.insert(place);
        let outcome = tokio::select! {
            biased;
            _ = turn => Ok(()),
            error = gone(session) => Err((Ended::Left, error)),
            () = tokio::time::sleep(left) => {
                let waited_s = place.waited().as_secs_f32();
                tracing::debug!(host = entry.route.host, waited_s, "held in vain");
                let status = ErrorType::HTTPStatus(page::UNAVAILABLE.status);
                Err((Ended::TooLong, Error::new(status)))
            }
        };
        match outcome {
            Ok(()) => {
                request.is_my_turn = true;
                request.tried.clear();
                Ok(())
            }
            Err((how, error)) => {
                request.ends_waiting(how);
                Err(error)
            }
        }
    }
}

/// The bytes that a waiting request keeps: its head, and what is taken in of its body.
fn weight(session: &mut Session) -> usize {
    size(session.req_header()) + if session.is_body_empty() { 0 } else { BODY }
}

/// Resolves when the visitor leaves. A short body is taken in meanwhile, because a connection shows
/// its end only behind it; the proxy sends it from its buffer. A long one stays where it is, so
/// that its visitor's leaving shows only later.
pub async fn gone(session: &mut Session) -> Box<Error> {
    let is_h2 = session.is_http2();
    if !is_h2 && !session.is_body_empty() {
        if length(session).is_none_or(|length| length > BODY) {
            return std::future::pending().await;
        }
        session.enable_retry_buffering();
    }
    loop {
        // Of HTTP/2, the stream's end shows beside its body.
        let body_done = is_h2 || session.is_body_done();
        match session.read_body_or_idle(body_done).await {
            Ok(_) if body_done => return Error::new_down(ErrorType::ConnectionClosed),
            Ok(_) => {}
            Err(error) => return error.into_down(),
        }
    }
}

fn length(session: &Session) -> Option<usize> {
    let length = session.req_header().headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.trim().parse().ok()
}
