//! One site: how it stands, its use, its log, its databases and releases.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use undine_api::guest::LogKind;
use undine_api::public::{Database, MetricSubject, Release, ReleaseState};
use undine_model::lifecycle::SiteState;

use super::cluster::ALL;
use super::dns::{self, Dns};
use super::fields::id;
use super::frame::{Frame, page as written};
use super::sites::Row;
use super::words::{Chart, OperationRow, Shown, ago, bytes, charts, cores, operation};
use crate::api::extract::Asked;
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::app::{databases, operations, releases, site_restart, sites};
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::Result;

/// What of the log.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    log: Option<String>,
    find: Option<String>,
}

/// What is told once, of what was just done.
#[derive(Default)]
pub(super) struct Once {
    /// A new database's password.
    pub(super) password: String,
    /// The site's program was restarted.
    pub(super) restarted: bool,
}

struct ReleaseRow {
    id: String,
    state: &'static str,
    class: &'static str,
    when: String,
    back: bool,
}

fn release(release: &Release) -> ReleaseRow {
    let (state, class) = match release.state {
        _ if release.live => ("live", ""),
        ReleaseState::Uploading => ("uploading", "busy"),
        ReleaseState::Ready => ("kept", "off"),
        ReleaseState::Failed => ("failed", "bad"),
        ReleaseState::Removed => ("removed", "off"),
    };
    ReleaseRow {
        id: release.id.to_string(),
        state,
        class,
        when: ago(release.created_at),
        back: !release.live && release.state == ReleaseState::Ready,
    }
}

#[derive(Template)]
#[template(path = "site.html")]
struct Page {
    f: Frame,
    s: Row,
    once: Once,
    actions: &'static [(&'static str, &'static str)],
    working: Vec<OperationRow>,
    charts: Vec<Chart>,
    log: &'static str,
    find: String,
    lines: Vec<String>,
    no_lines: String,
    facts: Vec<(&'static str, String)>,
    databases: Vec<Database>,
    releases: Vec<ReleaseRow>,
    dns: Dns,
    /// It was deleted: for how long that can be undone.
    undo: String,
}

const SHOWN: &[Shown] = &[
    ("requests", "Requests in ten seconds", |value| {
        format!("{value:.0}")
    }),
    ("answer_ms", "Time to answer", |value| {
        format!("{value:.0} ms")
    }),
    ("cpu", "Processors", cores),
    ("memory_bytes", "Memory", bytes),
    ("disk_bytes", "Disk", bytes),
];
const LAST: PageWish = PageWish {
    limit: Some(5),
    cursor: None,
};

/// The page.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    Asked(asked): Asked<Which>,
) -> Result<Response> {
    shown(&control, &viewer, &which, asked, Once::default()).await
}

/// The page with what is told once.
pub(super) async fn one(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    once: Once,
) -> Result<Response> {
    shown(control, viewer, which, Which::default(), once).await
}

async fn shown(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    asked: Which,
    once: Once,
) -> Result<Response> {
    let caller = &viewer.caller;
    let site = sites::get(control, caller, id(which)?).await?;
    let mut done: Vec<OperationRow> =
        operations::all(control, caller, &LAST, Some(site.id.uuid()), None)
            .await?
            .items
            .into_iter()
            .map(operation)
            .collect();
    // The last one stays in sight when it failed; else only what is not over yet.
    let first = done.first().map(|it| it.id.clone());
    done.retain(|it| !it.ended || (it.class == "bad" && Some(&it.id) == first.as_ref()));
    let (kind, log) = match asked.log.as_deref() {
        Some("error") => (LogKind::Error, "error"),
        _ => (LogKind::Access, "access"),
    };
    let find = asked.find.unwrap_or_default();
    let (lines, no_lines) = tail(control, viewer, &site, kind, &find).await;
    let dns = dns::of(control, &site).await;
    let live = if dns.pending || done.iter().any(|it| !it.ended) {
        1
    } else {
        5
    };
    let restarts = site_restart::runs_a_program(control, site.server, &site.runtime).await;
    let restarts = restarts.unwrap_or_default();
    let aliases: Vec<String> = site.aliases.iter().map(ToString::to_string).collect();
    written(&Page {
        f: Frame::new(control, viewer, site.domain.as_str(), "/sites", live).await?,
        once,
        actions: match site.state {
            SiteState::Active if restarts => &[("restart", "Restart"), ("suspend", "Suspend")],
            SiteState::Active => &[("suspend", "Suspend")],
            SiteState::Suspended => &[("unsuspend", "End the suspension")],
            SiteState::Failed => &[("retry", "Try again")],
            // The way back stands in the notice.
            SiteState::Creating | SiteState::Deleted | SiteState::Deleting => &[],
        },
        working: done,
        charts: charts(control, caller, MetricSubject::Site, site.id.uuid(), SHOWN).await?,
        log,
        find,
        lines,
        no_lines,
        facts: vec![
            ("Address", site.url.clone()),
            ("Runs", site.runtime.to_string()),
            (
                "Further names",
                if aliases.is_empty() {
                    "none".to_owned()
                } else {
                    aliases.join(", ")
                },
            ),
            (
                "Folder for visitors",
                match site.settings.document_root.as_str() {
                    "" => "the whole site".to_owned(),
                    folder => folder.to_owned(),
                },
            ),
            ("Added", ago(site.created_at)),
        ],
        databases: databases::all(control, caller, &ALL, Some(site.id))
            .await?
            .items,
        releases: releases::all(control, caller, site.id, &LAST)
            .await?
            .items
            .iter()
            .map(release)
            .collect(),
        dns,
        undo: site.gone_at.map(left).unwrap_or_default(),
        s: Row::from(site),
    })
}

/// How long it is until then, in words.
fn left(at: i64) -> String {
    let minutes = (at - now_ms()).max(0) / 60_000;
    match minutes {
        0..=90 => format!("{minutes} minutes"),
        _ => format!("{} hours", minutes / 60),
    }
}

/// The log's last lines, or why there are none.
async fn tail(
    control: &Control,
    viewer: &Viewer,
    site: &undine_api::public::Site,
    kind: LogKind,
    find: &str,
) -> (Vec<String>, String) {
    if site.state == SiteState::Creating {
        return (Vec::new(), "The site is not there yet.".to_owned());
    }
    match sites::logs(control, &viewer.caller, site.id, kind, 200).await {
        Ok(log) => {
            let mut lines = log.lines;
            lines.retain(|line| line.contains(find));
            (lines, "No lines.".to_owned())
        }
        Err(refusal) => (Vec::new(), refusal.0.detail.clone()),
    }
}
