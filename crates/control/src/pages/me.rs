//! The person's own page: sessions, password, which account is shown.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::Scope;

use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::words::ago;
use crate::app::sessions::{Place, Viewer};
use crate::app::{own_sessions, passkeys, people, second};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    agent: String,
    ip: String,
    when: String,
    here: bool,
}

#[derive(Template)]
#[template(path = "me.html")]
struct Me {
    f: Frame,
    name: String,
    email: String,
    accounts: Vec<(String, String, bool)>,
    sessions: Vec<Row>,
    second: bool,
    passkeys: usize,
    codes_left: usize,
    manages: bool,
}

/// The page.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    let row = |login: undine_store::Login| Row {
        here: login.id == viewer.login.id,
        id: login.id.to_string(),
        agent: login.agent,
        ip: login.ip,
        when: ago(login.last_used_at),
    };
    let sessions = own_sessions::all(&control, &viewer)
        .await?
        .into_iter()
        .map(row)
        .collect();
    let mut accounts = Vec::new();
    for (account, _) in &viewer.accounts {
        if let Some(name) = own_sessions::account_name(&control, *account).await? {
            let here = viewer.login.account == Some(*account);
            accounts.push((account.to_string(), name, here));
        }
    }
    let f = Frame::new(&control, &viewer, "You", "/me", 30).await?;
    let (name, email) = (viewer.person.name.clone(), viewer.person.email.clone());
    written(&Me {
        f,
        name,
        email,
        accounts,
        sessions,
        second: second::is_on(&viewer.person),
        passkeys: passkeys::of(&viewer.person).len(),
        manages: viewer.caller.has(Scope::Manage),
        codes_left: second::codes_left(&viewer.person),
    })
}

/// Changes the password.
pub async fn password(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
    fields: Fields,
) -> Result<Redirect> {
    people::change_password(
        &control,
        &viewer,
        fields.text("old"),
        fields.text("password"),
        &place,
    )
    .await?;
    Ok(Redirect::to("/me"))
}

/// Ends another session.
pub async fn end(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    own_sessions::revoke(&control, &viewer, id(&which)?).await?;
    Ok(Redirect::to("/me"))
}

/// Shows another account, or ends to act for one.
pub async fn act(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect> {
    let to = match fields.some("account") {
        Some(text) => Some(id(&text)?),
        None => None,
    };
    own_sessions::switch(&control, &viewer, to).await?;
    Ok(Redirect::to("/"))
}
