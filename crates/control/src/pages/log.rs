//! A site's log as it is written, with a filter: a page of the last lines, and with scripts a
//! stream of what is new.

use std::convert::Infallible;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{Response, Sse};
use futures_util::Stream;
use undine_api::guest::{Follow, LogKind};
use undine_model::SiteId;
use undine_model::path::visible;

use super::at_site::AtSite;
use super::fields::id;
use super::files::coded;
use super::frame::{Frame, page as written};
use crate::api::extract::Asked;
use crate::api::logs::{last_event, streamed};
use crate::app::sessions::Viewer;
use crate::app::sites;
use crate::app::tail::Watcher;
use crate::control::Control;
use crate::refusal::Result;

/// Which log, and what of it.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    log: Option<String>,
    #[serde(default)]
    find: String,
    /// Where the page ended; the stream goes on from there.
    after: Option<String>,
}

impl Which {
    fn kind(&self) -> (LogKind, &'static str) {
        match self.log.as_deref() {
            Some("error") => (LogKind::Error, "error"),
            _ => (LogKind::Access, "access"),
        }
    }

    fn ask(&self, site: SiteId, after: Option<String>) -> Follow {
        Follow {
            site,
            log: self.kind().0,
            after,
            find: self.find.trim().to_owned(),
            lines: 500,
        }
    }
}

#[derive(Template)]
#[template(path = "log.html")]
struct Page {
    f: Frame,
    id: String,
    domain: String,
    log: &'static str,
    find: String,
    find_query: String,
    lines: Vec<String>,
    none: String,
    stream: String,
}

/// The page.
pub async fn page(at: AtSite, Asked(asked): Asked<Which>) -> Result<Response> {
    let site = &at.site;
    let log = asked.kind().1;
    let found = sites::follow(&at.control, &at.viewer.caller, asked.ask(site.id, None)).await;
    let (lines, none, mark) = match found {
        Ok(piece) => (piece.lines, "No lines.".to_owned(), piece.mark),
        // The page stays: a server that is down for a moment has its log again later.
        Err(refusal) if refusal.0.status >= 500 => {
            (Vec::new(), refusal.0.detail.clone(), String::new())
        }
        Err(refusal) => return Err(refusal),
    };
    let stream = format!(
        "/sites/{}/log/live?log={log}&find={}&after={}",
        site.id,
        coded(&asked.find),
        coded(&mark)
    );
    written(&Page {
        f: at.frame("Log of").await?,
        id: site.id.to_string(),
        domain: site.domain.to_string(),
        log,
        find_query: coded(&asked.find),
        find: asked.find,
        lines: lines.iter().map(|line| visible(line)).collect(),
        none,
        stream,
    })
}

/// The stream.
pub async fn live(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    Asked(asked): Asked<Which>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    // What a browser says after its line broke counts more than what the page said.
    let after = last_event(&headers).or_else(|| asked.after.clone());
    let ask = asked.ask(id(&which)?, after.filter(|after| !after.is_empty()));
    streamed(&control, Watcher::Person(Box::new(viewer)), ask).await
}
