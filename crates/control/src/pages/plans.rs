//! Plans of the provider, or of a reseller: what accounts on them may have.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::Problem;
use undine_api::public::{CreatePlan, Plan, UpdatePlan};

use super::answer::{answered, reached};
use super::cluster::ALL;
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::limits::{Limits, sent};
use super::words::size;
use crate::app::caller::Expected;
use crate::app::plans;
use crate::app::sessions::Viewer;
use crate::control::Control;
use crate::refusal::Result;

/// A plan as a row.
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Sites.
    pub sites: u32,
    /// Databases.
    pub databases: u32,
    /// What a site gets.
    pub caps: String,
    /// Is it a reseller's?
    pub sold_on: bool,
}

impl From<Plan> for Row {
    fn from(plan: Plan) -> Self {
        let caps = plan.limits.site;
        Self {
            id: plan.id.to_string(),
            name: plan.name.to_string(),
            sites: plan.limits.sites,
            databases: plan.limits.databases,
            caps: format!(
                "{} memory, {} disk, {} processes",
                size(caps.memory),
                size(caps.disk),
                caps.processes
            ),
            sold_on: plan.reseller.is_some(),
        }
    }
}

#[derive(Template)]
#[template(path = "plans.html")]
struct Plans {
    f: Frame,
    plans: Vec<Row>,
    provider: bool,
    limits: Limits,
    problem: Option<Problem>,
    open: bool,
}

async fn shown(control: &Control, viewer: &Viewer, problem: Option<Problem>) -> Result<Response> {
    let plans = plans::all(control, &viewer.caller, &ALL).await?.items;
    written(&Plans {
        f: Frame::new(control, viewer, "Plans", "/plans", 0).await?,
        plans: plans.into_iter().map(Row::from).collect(),
        provider: viewer.caller.is_provider(),
        limits: Limits::usual(),
        open: problem.is_some(),
        problem,
    })
}

/// The list, and the form for a new one.
pub async fn list(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    shown(&control, &viewer, None).await
}

async fn made(control: &Control, viewer: &Viewer, fields: &Fields) -> Result<Plan> {
    let wish = CreatePlan {
        name: fields.parse("name")?,
        limits: sent(fields)?,
        reseller: fields.some("reseller"),
    };
    plans::create(control, &viewer.caller, wish).await
}

/// Makes one.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let made = made(&control, &viewer, &fields).await;
    let page = |problem| shown(&control, &viewer, Some(problem));
    answered(made, |_| "/plans".to_owned(), page).await
}

#[derive(Template)]
#[template(path = "plan.html")]
struct Page {
    f: Frame,
    id: String,
    name: String,
    version: i64,
    limits: Limits,
    problem: Option<Problem>,
}

async fn one(
    control: &Control,
    viewer: &Viewer,
    which: &str,
    problem: Option<Problem>,
) -> Result<Response> {
    let plan = plans::get(control, &viewer.caller, id(which)?).await?;
    written(&Page {
        f: Frame::new(control, viewer, plan.name.as_str(), "/plans", 0).await?,
        id: plan.id.to_string(),
        name: plan.name.to_string(),
        version: plan.version,
        limits: Limits::of(&plan.limits),
        problem,
    })
}

/// One plan.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    one(&control, &viewer, &which, None).await
}

async fn changed(control: &Control, viewer: &Viewer, which: &str, fields: &Fields) -> Result<()> {
    let expected = Expected::Version(fields.parse("version")?);
    let wish = UpdatePlan {
        limits: sent(fields)?,
    };
    plans::update(control, &viewer.caller, id(which)?, expected, wish).await?;
    Ok(())
}

/// Changes its limits.
pub async fn change(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Response> {
    let done = reached(changed(&control, &viewer, &which, &fields).await)?;
    let page = |problem| one(&control, &viewer, &which, Some(problem));
    answered(done, |()| "/plans".to_owned(), page).await
}

/// Deletes it, if nobody is on it.
pub async fn delete(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let plan = plans::get(&control, &viewer.caller, id(&which)?).await?;
    fields.confirms(plan.name.as_str())?;
    plans::delete(&control, &viewer.caller, plan.id, Expected::Any).await?;
    Ok(Redirect::to("/plans"))
}
