//! Who did what.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::frame::{Frame, page as written};
use super::words::ago;
use crate::api::extract::Asked;
use crate::app::observe::{self, AuditWish};
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::control::Control;
use crate::refusal::Result;

/// Which rows.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Which {
    action: Option<String>,
    reseller: Option<String>,
    cursor: Option<String>,
}

struct Row {
    when: String,
    actor: String,
    ip: String,
    action: String,
    data: String,
    subject: String,
    outcome: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    f: Frame,
    rows: Vec<Row>,
    action: String,
    reseller: String,
    next: String,
    provider: bool,
}

/// The page.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Asked(which): Asked<Which>,
) -> Result<Response> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (action, reseller) = (some(which.action), some(which.reseller));
    let wanted = AuditWish {
        action: action.clone(),
        reseller: reseller.clone(),
    };
    let wish = PageWish {
        limit: None,
        cursor: which.cursor,
    };
    let rows = observe::audit(&control, &viewer.caller, &wish, wanted).await?;
    let row = |row: undine_api::public::AuditRow| Row {
        when: ago(row.at),
        actor: row.actor,
        ip: row.ip.unwrap_or_default(),
        action: row.action,
        data: if row.data.as_object().is_some_and(serde_json::Map::is_empty) {
            String::new()
        } else {
            row.data.to_string()
        },
        subject: row.subject,
        outcome: row.outcome,
    };
    written(&Audit {
        f: Frame::new(&control, &viewer, "Audit", "/audit", 30).await?,
        rows: rows.items.into_iter().map(row).collect(),
        action: action.unwrap_or_default(),
        reseller: reseller.unwrap_or_default(),
        provider: viewer.caller.is_provider(),
        next: rows.next.unwrap_or_default(),
    })
}
