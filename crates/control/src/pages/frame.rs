//! What is around every page, and the files that pages need.

use std::fmt::Write;
use std::sync::LazyLock;

use askama::Template;
use axum::extract::Path;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use undine_api::public::Scope;

use crate::app::accounts;
use crate::app::brand::{self, Look};
use crate::app::caller::Caller;
use crate::app::own_sessions;
use crate::app::sessions::Viewer;
use crate::clock::sha256;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// A link of the menu.
pub struct Link {
    /// Where to.
    pub href: &'static str,
    /// Its word.
    pub label: &'static str,
    /// Is this the page?
    pub here: bool,
}

/// What is around a page.
#[derive(Default)]
pub struct Frame {
    /// The page's title.
    pub title: String,
    /// The menu.
    pub nav: Vec<Link>,
    /// How the panel looks to them.
    pub look: Look,
    /// Who looks.
    pub person: String,
    /// What forms send back.
    pub csrf: String,
    /// For whom staff acts.
    pub acting: Option<String>,
    /// The reseller that they are of, while it is suspended.
    pub stopped: Option<String>,
    /// Which instance answers.
    pub instance: String,
    /// Seconds after which a page is read again though nothing is told; measurements need it.
    pub live: u32,
    /// Changes with the files, so that a browser may keep them.
    pub assets: &'static str,
}

const PROVIDER: &[(&str, &str)] = &[
    ("/cluster", "Cluster"),
    ("/servers", "Servers"),
    ("/accounts", "Accounts"),
    ("/plans", "Plans"),
    ("/resellers", "Resellers"),
    ("/sites", "Sites"),
    ("/operations", "Operations"),
    ("/audit", "Audit"),
    ("/people", "People"),
    ("/settings", "Settings"),
    ("/brand", "Brand"),
    ("/me", "You"),
];
const RESELLER: &[(&str, &str)] = &[
    ("/accounts", "Accounts"),
    ("/plans", "Plans"),
    ("/audit", "Audit"),
    ("/people", "People"),
    ("/brand", "Brand"),
    ("/me", "You"),
];
/// Whoever sees only the plan.
const BILLING: &[(&str, &str)] = &[("/plan", "Plan"), ("/me", "You")];
/// Whoever reaches single sites of an account.
const PART: &[(&str, &str)] = &[
    ("/sites", "Sites"),
    ("/operations", "Operations"),
    ("/me", "You"),
];
const CUSTOMER: &[(&str, &str)] = &[
    ("/sites", "Sites"),
    ("/operations", "Operations"),
    ("/audit", "Audit"),
    ("/people", "People"),
    ("/plan", "Plan"),
    ("/me", "You"),
];

fn menu(caller: &Caller) -> &'static [(&'static str, &'static str)] {
    if caller.is_provider() {
        PROVIDER
    } else if caller.sells() {
        RESELLER
    } else if caller.sites.is_some() {
        PART
    } else if !caller.has(Scope::Read) {
        BILLING
    } else {
        CUSTOMER
    }
}

impl Frame {
    /// The frame of a page that belongs to this entry of the menu.
    pub async fn new(
        control: &Control,
        viewer: &Viewer,
        title: &str,
        at: &str,
        live: u32,
    ) -> Result<Self> {
        let acting = match viewer.acts_for() {
            Some(id) => own_sessions::account_name(control, id).await?,
            None => None,
        };
        let own = match viewer.caller.account() {
            Some(id) if acting.is_none() => accounts::get(control, &viewer.caller, id).await.ok(),
            _ => None,
        };
        let sold_by = own.as_ref().and_then(|own| own.reseller);
        let look = brand::to(control, viewer, sold_by).await?;
        Ok(Self {
            look,
            title: title.to_owned(),
            nav: menu(&viewer.caller)
                .iter()
                .map(|(href, label)| Link {
                    href,
                    label,
                    here: *href == at,
                })
                .collect(),
            person: own.map_or_else(
                || viewer.person.name.clone(),
                |own| format!("{}, {}", viewer.person.name, own.name),
            ),
            csrf: viewer.csrf.clone(),
            acting,
            stopped: viewer.caller.stopped.as_ref().map(ToString::to_string),
            instance: control.name.to_string(),
            live,
            assets: &VERSION,
        })
    }
}

/// A page, written out.
pub fn page(template: &impl Template) -> Result<Response> {
    let text = template
        .render()
        .map_err(|error| Refusal::internal(&error))?;
    Ok(Html(text).into_response())
}

const SCRIPT: &str = include_str!("../../../../web/panel.js");
const PASSKEY: &str = include_str!("../../../../web/passkey.js");
const FILES: &str = include_str!("../../../../web/files.js");
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0b6678"/><path d="M3 7q2.5-3 5 0t5 0M3 11q2.5-3 5 0t5 0" fill="none" stroke="#fff" stroke-width="1.6"/></svg>"##;

/// Heights and heats are classes: the policy allows no style within a page.
static STYLE: LazyLock<String> = LazyLock::new(|| {
    let mut css = include_str!("../../../../web/panel.css").to_owned();
    for n in 0..=100 {
        let _ = writeln!(css, ".h{n}{{height:{n}%}}");
    }
    for n in 0..=10 {
        let share = 24 + n * 6;
        let _ = writeln!(
            css,
            ".heat{n}{{background:color-mix(in oklab,var(--accent) {share}%,var(--surface))}}"
        );
    }
    css
});
static VERSION: LazyLock<String> = LazyLock::new(|| {
    sha256(format!("{}{SCRIPT}{PASSKEY}{FILES}", *STYLE))
        .chars()
        .take(12)
        .collect()
});

/// A file of the panel's own.
pub async fn asset(Path(name): Path<String>) -> Result<Response> {
    let (kind, text) = match name.as_str() {
        "panel.css" => ("text/css; charset=utf-8", STYLE.as_str()),
        "panel.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "passkey.js" => ("text/javascript; charset=utf-8", PASSKEY),
        "files.js" => ("text/javascript; charset=utf-8", FILES),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Err(Refusal::not_found("file", "of this name")),
    };
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "public, max-age=86400"),
        ],
        text,
    )
        .into_response())
}
