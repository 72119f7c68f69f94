//! Passkeys on the person's own page, and the way in with one.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{Redirect, Response};
use undine_api::Problem;

use super::fields::Fields;
use super::frame::{Frame, page as written};
use super::words::ago;
use super::{answer, door, entry};
use crate::app::passkeys::{self, Answered, Passkey, Question};
use crate::app::sessions::{Entered, Place, Viewer};
use crate::app::{passkey_login, webauthn};
use crate::control::Control;
use crate::refusal::Result;

struct Row {
    id: String,
    name: String,
    rp: String,
    used: String,
}

impl From<Passkey> for Row {
    fn from(key: Passkey) -> Self {
        Self {
            used: key.used_at.map_or_else(|| "never".to_owned(), ago),
            id: key.id,
            name: key.name,
            rp: key.rp,
        }
    }
}

#[derive(Template)]
#[template(path = "passkeys.html")]
struct Page {
    f: Frame,
    keys: Vec<Row>,
    q: Question,
    /// Who it will be for, as the device keeps it.
    user: String,
    email: String,
    name: String,
    problem: Option<Problem>,
}

async fn shown(
    control: &Control,
    viewer: &Viewer,
    place: &Place,
    problem: Option<Problem>,
) -> Result<Response> {
    written(&Page {
        f: Frame::new(control, viewer, "Passkeys", "/me", 0).await?,
        keys: passkeys::of(&viewer.person)
            .into_iter()
            .map(Row::from)
            .collect(),
        q: passkeys::to_make(control, viewer, place)?,
        user: webauthn::text(viewer.person.id.uuid().as_bytes()),
        email: viewer.person.email.clone(),
        name: viewer.person.name.clone(),
        problem,
    })
}

/// The list, and what makes a new one.
pub async fn page(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
) -> Result<Response> {
    shown(&control, &viewer, &place, None).await
}

fn answered(fields: &Fields) -> Answered {
    let text = |name| fields.text(name).to_owned();
    Answered {
        sealed: text("sealed"),
        id: text("id"),
        client: text("client"),
        authenticator: text("authenticator"),
        key: text("key"),
        algorithm: fields.parse("algorithm").unwrap_or_default(),
        signature: text("signature"),
        person: text("person"),
    }
}

/// Keeps one that the device has just made.
pub async fn add(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
    fields: Fields,
) -> Result<Response> {
    let (name, password) = (fields.text("name"), fields.text("password"));
    let sent = answered(&fields);
    let done = passkeys::add(&control, &viewer, name, password, &sent, &place).await;
    let page = |problem| shown(&control, &viewer, &place, Some(problem));
    answer::answered(done, |()| "/me/passkeys".to_owned(), page).await
}

/// Forgets one.
pub async fn remove(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect> {
    passkeys::remove(&control, &viewer, fields.text("id")).await?;
    Ok(Redirect::to("/me/passkeys"))
}

/// Logs in with one.
pub async fn log_in(
    State(control): State<Control>,
    place: Place,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response> {
    match passkey_login::log_in(&control, &answered(&fields), &place).await {
        Ok(secret) => {
            let mut response = entry::let_in(&headers, &Entered::In(secret))?;
            let over = door::half(&headers, "")?;
            response.headers_mut().append(header::SET_COOKIE, over);
            Ok(response)
        }
        Err(refusal) => entry::login_again(&control, &place, &refusal).await,
    }
}
