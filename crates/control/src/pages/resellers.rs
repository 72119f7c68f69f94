//! The provider's resellers: their limits beside what they have, and their people.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::Problem;
use undine_api::public::{
    CreateReseller, PlanLimits, Reseller, ResellerLimits, ResellerState, UpdateReseller,
};
use undine_store::ResellerState as Kept;

use super::answer::{answered, reached};
use super::cluster::ALL;
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::limits::{Limits, sent};
use super::usage::{Bar, bar};
use crate::app::caller::Expected;
use crate::app::invitations::{self, Invitation};
use crate::app::sessions::Viewer;
use crate::app::{people, reseller_suspend, resellers};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    name: String,
    state: &'static str,
    suspended: bool,
    bars: Vec<Bar>,
}

impl From<&Reseller> for Row {
    fn from(reseller: &Reseller) -> Self {
        let (uses, most) = (&reseller.uses, &reseller.limits);
        Self {
            id: reseller.id.to_string(),
            name: reseller.name.to_string(),
            state: match reseller.state {
                ResellerState::Active => "",
                ResellerState::Suspended => "suspended",
                ResellerState::SuspendedWithCustomers => "suspended with its customers",
            },
            suspended: reseller.state != ResellerState::Active,
            bars: vec![
                bar(
                    "Accounts",
                    u64::from(uses.accounts),
                    u64::from(most.accounts),
                ),
                bar("Sites", u64::from(uses.sites), u64::from(most.sites)),
                bar(
                    "Databases",
                    u64::from(uses.databases),
                    u64::from(most.databases),
                ),
            ],
        }
    }
}

fn limits(fields: &Fields) -> Result<ResellerLimits> {
    let plan = sent(fields)?;
    Ok(ResellerLimits {
        accounts: fields.parse("accounts")?,
        sites: plan.sites,
        databases: plan.databases,
        site: plan.site,
    })
}

#[derive(Template)]
#[template(path = "resellers.html")]
struct Resellers {
    f: Frame,
    resellers: Vec<Row>,
    limits: Limits,
    problem: Option<Problem>,
    open: bool,
}

async fn shown(control: &Control, viewer: &Viewer, problem: Option<Problem>) -> Result<Response> {
    let all = resellers::all(control, &viewer.caller, &ALL, None).await?;
    let mut limits = Limits::usual();
    (limits.sites, limits.databases) = ("100".to_owned(), "100".to_owned());
    written(&Resellers {
        f: Frame::new(control, viewer, "Resellers", "/resellers", 0).await?,
        resellers: all.items.iter().map(Row::from).collect(),
        limits,
        open: problem.is_some(),
        problem,
    })
}

/// The list, and the form for a new one.
pub async fn list(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    shown(&control, &viewer, None).await
}

fn page_of(reseller: &Reseller) -> String {
    format!("/resellers/{}", reseller.id)
}

async fn made(control: &Control, viewer: &Viewer, fields: &Fields) -> Result<Reseller> {
    let wish = CreateReseller {
        name: fields.parse("name")?,
        limits: limits(fields)?,
    };
    resellers::create(control, &viewer.caller, wish).await
}

/// Makes one.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let made = made(&control, &viewer, &fields).await;
    let page = |problem| shown(&control, &viewer, Some(problem));
    answered(made, |it| page_of(&it), page).await
}

#[derive(Template)]
#[template(path = "reseller.html")]
struct Page {
    f: Frame,
    r: Row,
    version: i64,
    accounts: u32,
    limits: Limits,
    people: Vec<(String, String)>,
    link: String,
    problem: Option<Problem>,
}

async fn one(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    link: String,
    problem: Option<Problem>,
) -> Result<Response> {
    let reseller = resellers::get(control, &viewer.caller, id(which)?).await?;
    let all = people::of_reseller(control, reseller.id).await?;
    let people = all
        .into_iter()
        .map(|one| (one.person.name, one.person.email));
    let most = &reseller.limits;
    written(&Page {
        f: Frame::new(control, viewer, reseller.name.as_str(), "/resellers", 0).await?,
        r: Row::from(&reseller),
        version: reseller.version,
        accounts: most.accounts,
        limits: Limits::of(&PlanLimits {
            sites: most.sites,
            databases: most.databases,
            site: most.site.clone(),
        }),
        people: people.collect(),
        link,
        problem,
    })
}

/// One reseller.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    one(&control, &viewer, &which, String::new(), None).await
}

async fn changed(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    fields: &Fields,
) -> Result<Reseller> {
    let expected = Expected::Version(fields.parse("version")?);
    let wish = UpdateReseller {
        limits: limits(fields)?,
    };
    resellers::update(control, &viewer.caller, id(which)?, expected, wish).await
}

/// Changes its limits.
pub async fn change(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Response> {
    let done = reached(changed(&control, &viewer, &which, &fields).await)?;
    let page = |problem| one(&control, &viewer, &which, String::new(), Some(problem));
    answered(done, |it| page_of(&it), page).await
}

/// Makes the link that lets somebody of it in, and shows it, once.
pub async fn invite(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Response> {
    let wish = Invitation {
        reseller: Some(id(&which)?),
        ..Invitation::default()
    };
    let path = invitations::invite(&control, &viewer, wish).await?;
    let link = people::url(&control, &path).await?;
    one(&control, &viewer, &which, link, None).await
}

async fn set(control: &Control, viewer: &Viewer, which: &str, state: Kept) -> Result<Redirect> {
    let (caller, id) = (&viewer.caller, id(which)?);
    let reseller = reseller_suspend::set(control, caller, id, Expected::Any, state).await?;
    Ok(Redirect::to(&page_of(&reseller)))
}

/// Suspends it, with its customers when that is ticked.
pub async fn suspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let state = match fields.some("with_customers") {
        Some(_) => Kept::SuspendedWithCustomers,
        None => Kept::Suspended,
    };
    set(&control, &viewer, &which, state).await
}

/// Ends that.
pub async fn unsuspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    set(&control, &viewer, &which, Kept::Active).await
}

/// Deletes it, if it has nothing any more.
pub async fn delete(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let reseller = resellers::get(&control, &viewer.caller, id(&which)?).await?;
    fields.confirms(reseller.name.as_str())?;
    resellers::delete(&control, &viewer.caller, reseller.id, Expected::Any).await?;
    Ok(Redirect::to("/resellers"))
}
