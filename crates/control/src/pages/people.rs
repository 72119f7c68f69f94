//! The people of the provider, of a reseller, or of an account.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};

use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use crate::app::invitations::{self, Invitation};
use crate::app::sessions::Viewer;
use crate::app::{people, second};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    name: String,
    email: String,
    role: String,
    second: bool,
    own: bool,
}

#[derive(Template)]
#[template(path = "people.html")]
struct People {
    f: Frame,
    people: Vec<Row>,
    link: String,
    manages: bool,
    in_account: bool,
    roles: &'static [(&'static str, &'static str)],
}

const STAFF: &[(&str, &str)] = &[
    ("operator", "operator: everything but these people"),
    ("support", "support: looks, and acts for accounts"),
    ("owner", "owner: everything"),
];
const MEMBERS: &[(&str, &str)] = &[
    ("manager", "manager: everything but these people"),
    ("deployer", "deployer: looks and deploys"),
    ("reader", "reader: looks"),
    ("billing", "billing: sees the plan and its use"),
    ("owner", "owner: everything"),
];
const RESELLER: &[(&str, &str)] = &[("owner", "one of you: everything")];

async fn with_link(control: &Control, viewer: &Viewer, link: String) -> Result<Response> {
    let row = |one: people::Listed| Row {
        id: one.person.id.to_string(),
        second: second::is_on(&one.person),
        own: one.person.id == viewer.person.id,
        name: one.person.name,
        email: one.person.email,
        role: one.role,
    };
    written(&People {
        f: Frame::new(control, viewer, "People", "/people", 30).await?,
        people: people::all(control, viewer)
            .await?
            .into_iter()
            .map(row)
            .collect(),
        link,
        manages: viewer.manages_people(),
        roles: match (viewer.caller.is_provider(), viewer.caller.sells()) {
            (true, _) => STAFF,
            (false, true) => RESELLER,
            (false, false) => MEMBERS,
        },
        in_account: !viewer.caller.sells(),
    })
}

/// The list.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    with_link(&control, &viewer, String::new()).await
}

/// Makes a link and shows it, once.
pub async fn invite(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let wish = Invitation {
        role: fields.text("role").to_owned(),
        sites: fields.names("sites"),
        ..Invitation::default()
    };
    let path = invitations::invite(&control, &viewer, wish).await?;
    with_link(&control, &viewer, people::url(&control, &path).await?).await
}

/// Takes somebody's second step away, who has lost phone and codes.
pub async fn take_second_away(
    State(control): State<Control>,
    viewer: Viewer,
    Path(who): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    second::take_away(&control, &viewer, id(&who)?).await?;
    Ok(Redirect::to("/people"))
}

/// Takes somebody away.
pub async fn remove(
    State(control): State<Control>,
    viewer: Viewer,
    Path(who): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    people::remove(&control, &viewer, id(&who)?).await?;
    Ok(Redirect::to("/people"))
}
