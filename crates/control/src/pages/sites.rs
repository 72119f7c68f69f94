//! The sites that somebody may see, whatever server each is on; a new one in one short form.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use undine_api::Problem;
use undine_api::public::{CreateSite, Site};

use super::cluster::ALL;
use super::fields::Fields;
use super::frame::{Frame, page as written};
use super::operations::Which;
use super::words::site_state;
use crate::api::extract::Asked;
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::app::sites::SiteWish;
use crate::app::{accounts, catalogue, site_create, sites};
use crate::control::Control;
use crate::refusal::Result;

/// A site as a row.
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// The state's shape.
    pub class: &'static str,
    /// Its state.
    pub state: &'static str,
    /// Why it failed.
    pub error: String,
    /// What it runs.
    pub runtime: String,
    /// Where it answers.
    pub url: String,
    /// Whether somebody answers there.
    pub opens: bool,
}

impl From<Site> for Row {
    fn from(site: Site) -> Self {
        let (class, state) = site_state(site.state);
        Self {
            id: site.id.to_string(),
            domain: site.domain.to_string(),
            class,
            state,
            error: site.error.unwrap_or_default(),
            runtime: site.runtime.to_string(),
            url: site.url,
            opens: site.routed,
        }
    }
}

#[derive(Template)]
#[template(path = "sites.html")]
struct Sites {
    f: Frame,
    summary: String,
    sites: Vec<Row>,
    next: String,
}

/// The list.
pub async fn list(
    State(control): State<Control>,
    viewer: Viewer,
    Asked(which): Asked<Which>,
) -> Result<Response> {
    let wish = PageWish {
        limit: None,
        cursor: which.cursor,
    };
    let all = sites::all(&control, &viewer.caller, &wish, SiteWish::default()).await?;
    let summary = match viewer.caller.account() {
        Some(own) if viewer.caller.sites.is_none() && viewer.login.account == Some(own) => {
            let uses = accounts::get(&control, &viewer.caller, own).await?.uses;
            format!("{} sites, {} databases", uses.sites, uses.databases)
        }
        _ => String::new(),
    };
    written(&Sites {
        f: Frame::new(&control, &viewer, "Sites", "/sites", 15).await?,
        summary,
        sites: all.items.into_iter().map(Row::from).collect(),
        next: all.next.unwrap_or_default(),
    })
}

#[derive(Template)]
#[template(path = "site_new.html")]
struct New {
    f: Frame,
    problem: Option<Problem>,
    asks_account: bool,
    domain: String,
    account: String,
    runtime: String,
    runtimes: Vec<(String, String)>,
}

async fn new(control: &Control, viewer: &Viewer) -> Result<New> {
    let mut runtimes = BTreeMap::new();
    for profile in catalogue::profiles(control, &ALL).await?.items {
        runtimes.extend(profile.runtimes);
    }
    Ok(New {
        f: Frame::new(control, viewer, "Add a site", "/sites", 0).await?,
        problem: None,
        asks_account: viewer.caller.is_provider(),
        domain: String::new(),
        account: String::new(),
        runtime: String::new(),
        runtimes: runtimes.into_iter().collect(),
    })
}

/// The form.
pub async fn form(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    written(&new(&control, &viewer).await?)
}

/// Adds it: its page shows each step until it answers. What was typed stays when it is refused.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    match created(&control, &viewer, &fields).await {
        Ok(site) => Ok(Redirect::to(&format!("/sites/{}", site.id)).into_response()),
        Err(refusal) => {
            let mut page = new(&control, &viewer).await?;
            let text = |name| fields.text(name).to_owned();
            (page.domain, page.account, page.runtime) =
                (text("domain"), text("account"), text("runtime"));
            let status = refusal.status();
            page.problem = Some(*refusal.0);
            Ok((status, written(&page)?).into_response())
        }
    }
}

async fn created(control: &Control, viewer: &Viewer, fields: &Fields) -> Result<Site> {
    let wish = CreateSite {
        domain: fields.parse("domain")?,
        aliases: Vec::new(),
        account: fields.some("account"),
        server: None,
        runtime: fields.parse("runtime")?,
        settings: Default::default(),
    };
    Ok(site_create::create(control, &viewer.caller, wish)
        .await?
        .site)
}
