//! The customers of whoever sells: the provider's, or a reseller's.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::{Account, AccountState, CreateAccount, UpdateAccount};

use super::cluster::ALL;
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::operations::Which;
use super::plans::Row as PlanRow;
use super::sites::Row as SiteRow;
use super::usage::{self, Use};
use crate::api::extract::Asked;
use crate::app::caller::Expected;
use crate::app::invitations::{self, Invitation};
use crate::app::paging::PageWish;
use crate::app::sessions::Viewer;
use crate::app::sites::SiteWish;
use crate::app::{account_change, accounts, people, plans, sites};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    name: String,
    state: &'static str,
    class: &'static str,
    sites: u32,
    databases: u32,
    suspended: bool,
    sold_on: bool,
}

fn row(account: &Account) -> Row {
    let (state, class) = match account.state {
        AccountState::Active => ("active", ""),
        AccountState::Suspended => ("suspended", "off"),
        AccountState::SuspendedWithReseller => ("suspended with its reseller", "off"),
        AccountState::Deleting => ("being deleted", "busy"),
    };
    Row {
        id: account.id.to_string(),
        name: account.name.to_string(),
        state,
        class,
        sites: account.uses.sites,
        databases: account.uses.databases,
        suspended: account.state == AccountState::Suspended,
        sold_on: account.reseller.is_some(),
    }
}

#[derive(Template)]
#[template(path = "accounts.html")]
struct Accounts {
    f: Frame,
    accounts: Vec<Row>,
    plans: Vec<PlanRow>,
    next: String,
    provider: bool,
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
    let all = accounts::all(&control, &viewer.caller, &wish, None).await?;
    let plans = plans::all(&control, &viewer.caller, &ALL).await?.items;
    written(&Accounts {
        f: Frame::new(&control, &viewer, "Accounts", "/accounts", 15).await?,
        accounts: all.items.iter().map(row).collect(),
        plans: plans.into_iter().map(PlanRow::from).collect(),
        next: all.next.unwrap_or_default(),
        provider: viewer.caller.is_provider(),
    })
}

/// Makes one.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect> {
    let wish = CreateAccount {
        name: fields.parse("name")?,
        plan: fields.text("plan").to_owned(),
    };
    let made = accounts::create(&control, &viewer.caller, wish).await?;
    Ok(Redirect::to(&format!("/accounts/{}", made.id)))
}

#[derive(Template)]
#[template(path = "account.html")]
struct Page {
    f: Frame,
    a: Row,
    sites: Vec<SiteRow>,
    u: Use,
    plans: Vec<PlanRow>,
    provider: bool,
    link: String,
}

async fn one(control: &Control, viewer: &Viewer, which: &str, link: String) -> Result<Response> {
    let account = accounts::get(control, &viewer.caller, id(which)?).await?;
    let wish = SiteWish {
        account: Some(account.id),
        ..SiteWish::default()
    };
    let own = sites::all(control, &viewer.caller, &ALL, wish).await?.items;
    let plans = plans::all(control, &viewer.caller, &ALL).await?.items;
    written(&Page {
        u: usage::of(control, viewer, account.id).await?,
        plans: plans.into_iter().map(PlanRow::from).collect(),
        provider: viewer.caller.is_provider(),
        f: Frame::new(control, viewer, account.name.as_str(), "/accounts", 15).await?,
        a: row(&account),
        sites: own.into_iter().map(SiteRow::from).collect(),
        link,
    })
}

/// One account.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
) -> Result<Response> {
    one(&control, &viewer, &which, String::new()).await
}

/// Makes the link that lets its owner in, and shows it, once.
pub async fn invite(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Response> {
    let wish = Invitation {
        account: Some(id(&which)?),
        ..Invitation::default()
    };
    let path = invitations::invite(&control, &viewer, wish).await?;
    one(
        &control,
        &viewer,
        &which,
        people::url(&control, &path).await?,
    )
    .await
}

/// Puts it on another plan, and so to whoever has that plan.
pub async fn move_it(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    fields: Fields,
) -> Result<Redirect> {
    let wish = UpdateAccount {
        plan: Some(fields.text("plan").to_owned()),
    };
    let account = id(&which)?;
    account_change::update(&control, &viewer.caller, account, Expected::Any, wish).await?;
    Ok(Redirect::to(&format!("/accounts/{account}")))
}

async fn set(control: &Control, viewer: &Viewer, which: &str, suspended: bool) -> Result<Redirect> {
    let account = account_change::set_suspended(
        control,
        &viewer.caller,
        id(which)?,
        Expected::Any,
        suspended,
    )
    .await?;
    Ok(Redirect::to(&format!("/accounts/{}", account.id)))
}

/// Suspends it: its visitors see the page for that.
pub async fn suspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    set(&control, &viewer, &which, true).await
}

/// Ends that.
pub async fn unsuspend(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    set(&control, &viewer, &which, false).await
}
