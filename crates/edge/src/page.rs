//! The pages that an edge shows in its own name: plain words, no dependence on anything.

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use undine_api::Problem;
use undine_api::problem::PROBLEM_JSON;

/// What to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// A stable name of what happened, for programs.
    pub kind: &'static str,
    /// What happened.
    pub title: &'static str,
    /// What it means and what to do.
    pub words: &'static str,
    /// When trying again makes sense.
    pub retry_after_s: Option<u32>,
}

const fn page(status: u16, kind: &'static str, title: &'static str, words: &'static str) -> Page {
    Page {
        status,
        kind,
        title,
        words,
        retry_after_s: None,
    }
}

impl Page {
    const fn retry(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// The request names no host.
pub const NO_HOST: Page = page(
    400,
    "no-host",
    "The request names no website",
    "It should say which website it is for, and this one does not, or not in a way that can be understood.",
);
/// The request is damaged.
pub const BAD_REQUEST: Page = page(
    400,
    "bad-request",
    "The request cannot be understood",
    "It breaks the rules of HTTP. Another browser may help.",
);
/// Nobody has this name.
pub const UNKNOWN: Page = page(
    404,
    "unknown-host",
    "There is no website here",
    "The address leads to this server, but no website of this name is hosted here. Check the spelling; if the website is new, give it a minute.",
);
/// Not for visitors.
pub const NOT_HERE: Page = page(
    404,
    "not-found",
    "There is nothing here",
    "This address leads nowhere.",
);
/// The request took too long to arrive.
pub const TOO_SLOW: Page = page(
    408,
    "request-timeout",
    "The request took too long",
    "It did not arrive in time. Please try again.",
);
/// Too much in the request's head.
pub const TOO_LARGE: Page = page(
    431,
    "request-header-too-large",
    "The request's head is too large",
    "The browser sent too many or too long headers. Deleting this website's cookies may help.",
);
/// Something is wrong with the edge itself.
pub const BROKEN: Page = page(
    500,
    "edge-error",
    "Something went wrong",
    "This is our fault, not yours. Please try again.",
);
/// The server did not answer, or not in a way that can be understood.
pub const NO_ANSWER: Page = page(
    502,
    "no-answer",
    "The website does not answer",
    "Its server could not be reached just now. Please try again in a moment.",
);
/// The server was lost after it had taken something that must not be sent twice.
pub const INTERRUPTED: Page = page(
    502,
    "interrupted",
    "The website was interrupted",
    "Its server was lost while it worked on what you sent. It may have been taken or not: look before you send it again.",
);
/// The server is not up.
pub const UNAVAILABLE: Page = page(
    503,
    "unavailable",
    "The website will be back soon",
    "Its server is starting or being moved. This page may be reloaded in a few seconds.",
)
.retry(5);
/// The account is suspended.
pub const SUSPENDED: Page = page(
    503,
    "suspended",
    "The website is suspended",
    "It has been switched off for now. If it is yours, please ask your provider.",
)
.retry(3600);
/// No instance of control answers.
pub const NO_CONTROL: Page = page(
    503,
    "control-unavailable",
    "The panel does not answer",
    "It cannot be reached just now. Websites are not affected. Please try again in a moment.",
)
.retry(5);
/// The server accepted the request and then said nothing.
pub const TIMEOUT: Page = page(
    504,
    "timeout",
    "The website takes too long",
    "Its server accepted the request but did not answer in time.",
);

/// The page for a status that arose on the way.
pub fn for_status(status: u16) -> Page {
    match status {
        400 => BAD_REQUEST,
        404 => NOT_HERE,
        408 => TOO_SLOW,
        431 => TOO_LARGE,
        502 => NO_ANSWER,
        503 => UNAVAILABLE,
        504 => TIMEOUT,
        _ => BROKEN,
    }
}

/// Answers with a page; a program that asks for JSON gets it.
pub async fn show(session: &mut Session, page: Page, request_id: &str) -> Result<()> {
    say(session, page, page.words, request_id).await
}

/// The same with words of somebody's own.
pub async fn say(session: &mut Session, page: Page, words: &str, request_id: &str) -> Result<()> {
    let request = session.req_header();
    let (kind, body) = if wants_json(request) {
        (PROBLEM_JSON, json(page, words, request_id))
    } else {
        ("text/html; charset=utf-8", html(page, words, request_id))
    };
    let mut head = ResponseHeader::build(page.status, Some(8))?;
    head.insert_header(CONTENT_TYPE, kind)?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    if let Some(seconds) = page.retry_after_s {
        head.insert_header(RETRY_AFTER, seconds.to_string())?;
    }
    send(session, head, request_id, body).await
}

/// Sends a visitor elsewhere, for good.
pub async fn redirect(session: &mut Session, to: &[u8], request_id: &str) -> Result<()> {
    let mut head = ResponseHeader::build(308, Some(4))?;
    head.insert_header(LOCATION, to)?;
    send(session, head, request_id, Bytes::new()).await
}

async fn send(
    session: &mut Session,
    mut head: ResponseHeader,
    request_id: &str,
    body: Bytes,
) -> Result<()> {
    let is_head = session.req_header().method == Method::HEAD;
    head.insert_header("X-Request-Id", request_id)?;
    head.set_content_length(body.len())?;
    if !session.as_mut().is_body_empty() {
        // What still comes of the request is not waited for.
        session.set_keepalive(None);
    }
    let bare = is_head || body.is_empty();
    session.write_response_header(Box::new(head), bare).await?;
    if !bare {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

fn wants_json(request: &RequestHeader) -> bool {
    let accept = request.headers.get(ACCEPT).and_then(|it| it.to_str().ok());
    accept.is_some_and(|accept| accept.contains("json") && !accept.contains("text/html"))
}

fn json(page: Page, words: &str, request_id: &str) -> Bytes {
    let mut problem = Problem::new(page.status, page.kind, page.title, words);
    problem.request_id = Some(request_id.to_owned());
    // Plain strings and numbers always become JSON.
    Bytes::from(serde_json::to_vec(&problem).unwrap_or_default())
}

/// Plain text within a page.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
        safe
    })
}

/// Nothing of the request stands in the page; words may be somebody's own.
fn html(page: Page, words: &str, request_id: &str) -> Bytes {
    let Page { status, title, .. } = page;
    let words = escaped(words);
    Bytes::from(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>\
         :root{{color-scheme:light dark}}\
         body{{font:1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto 0;padding:0 1.5rem}}\
         h1{{font-size:1.6rem;line-height:1.25;margin:0 0 .6rem}}\
         p{{margin:.4rem 0}}small{{opacity:.65}}</style></head>\n\
         <body><main><small>{status}</small><h1>{title}</h1><p>{words}</p>\
         <p><small>Request {request_id}</small></p></main></body></html>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_its_status_and_its_words() {
        for page in [
            NO_HOST,
            UNKNOWN,
            NO_ANSWER,
            UNAVAILABLE,
            SUSPENDED,
            NO_CONTROL,
            TIMEOUT,
        ] {
            let html = String::from_utf8(html(page, page.words, "r-1").to_vec()).unwrap();
            assert!(
                html.contains(&page.status.to_string()) && html.contains(&*escaped(page.words))
            );
            assert!(html.contains("r-1") && !html.contains("http:"));
            assert_eq!(page.status == 503, page.retry_after_s.is_some());
        }
    }

    #[test]
    fn only_a_program_gets_json() {
        let asks = |accept: &'static str| {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.insert_header(ACCEPT, accept).unwrap();
            wants_json(&request)
        };
        assert!(asks("application/json") && asks("application/problem+json, */*"));
        assert!(!asks("text/html,application/json;q=0.9") && !asks("*/*"));
    }
}
