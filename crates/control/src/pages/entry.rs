//! The way in and out: log-in, one-time links, forgotten passwords, log-out; and the page of a
//! refusal.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use undine_api::Problem;
use undine_api::public::Scope;

use super::door;
use super::fields::Fields;
use super::frame::page;
use crate::app::brand::{self, Look};
use crate::app::passkeys::{self, Question};
use crate::app::sessions::{self, Entered, Place, Viewer};
use crate::app::welcome::{self, Welcome};
use crate::app::{mail, reset, second};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

#[derive(Template, Default)]
#[template(path = "entry.html")]
struct Entry {
    look: Look,
    title: String,
    lead: String,
    action: String,
    button: &'static str,
    problem: Option<Problem>,
    asks_email: bool,
    asks_name: bool,
    asks_code: bool,
    /// Asks for no password.
    bare: bool,
    /// Shows the way for whoever forgot theirs.
    forgot: bool,
    fresh: bool,
    passkey: Option<Question>,
    email: String,
    name: String,
}

/// A refusal as a page.
pub fn refused(problem: &Problem, look: Look) -> Html<String> {
    let entry = Entry {
        look,
        title: problem.title.clone(),
        problem: Some(problem.clone()),
        ..Entry::default()
    };
    Html(
        entry
            .render()
            .unwrap_or_else(|_| "The page could not be written.".to_owned()),
    )
}

/// To the first page of whoever comes.
pub async fn home(viewer: Option<axum::Extension<Viewer>>) -> Redirect {
    match viewer {
        Some(viewer) if viewer.caller.is_provider() => Redirect::to("/cluster"),
        Some(viewer) if viewer.caller.sells() => Redirect::to("/accounts"),
        Some(viewer) if !viewer.caller.has(Scope::Read) => Redirect::to("/plan"),
        Some(_) => Redirect::to("/sites"),
        None => Redirect::to("/login"),
    }
}

async fn login_page(
    control: &Control,
    place: &Place,
    email: String,
    problem: Option<Problem>,
) -> Result<Entry> {
    let look = brand::at_host(control, &place.host).await?;
    Ok(Entry {
        title: "Log in".to_owned(),
        lead: match look.name == Look::default().name {
            true => format!("The panel of {}.", control.cluster.domain),
            false => "Your hosting.".to_owned(),
        },
        look,
        action: "/login".to_owned(),
        button: "Log in",
        asks_email: true,
        forgot: true,
        passkey: Some(passkeys::to_log_in(control, place)?),
        email,
        problem,
        ..Entry::default()
    })
}

/// The form.
pub async fn login(State(control): State<Control>, place: Place) -> Result<Response> {
    page(&login_page(&control, &place, String::new(), None).await?)
}

/// The way in again, after a refusal.
pub(super) async fn login_again(
    control: &Control,
    place: &Place,
    refusal: &Refusal,
) -> Result<Response> {
    let problem = Some((*refusal.0).clone());
    with_status(
        refusal,
        &login_page(control, place, String::new(), problem).await?,
    )
}

fn with_status(refusal: &Refusal, entry: &Entry) -> Result<Response> {
    let status = refusal.status();
    Ok((status, page(entry)?).into_response())
}

pub(super) fn let_in(headers: &HeaderMap, entered: &Entered) -> Result<Response> {
    let (cookie, to) = match entered {
        Entered::In(secret) => (door::cookie(headers, secret)?, "/"),
        Entered::Half(note) => (door::half(headers, note)?, "/login/second"),
    };
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response())
}

async fn second_page(control: &Control, place: &Place, problem: Option<Problem>) -> Result<Entry> {
    Ok(Entry {
        look: brand::at_host(control, &place.host).await?,
        title: "One more step".to_owned(),
        lead: "The code that the app on your phone shows, or a recovery code.".to_owned(),
        action: "/login/second".to_owned(),
        button: "Log in",
        asks_code: true,
        problem,
        ..Entry::default()
    })
}

/// Asks for the code.
pub async fn second(State(control): State<Control>, place: Place) -> Result<Response> {
    page(&second_page(&control, &place, None).await?)
}

/// The second step.
pub async fn pass(
    State(control): State<Control>,
    place: Place,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response> {
    let note = door::noted(&headers).unwrap_or_default();
    match second::pass(&control, &note, fields.text("code"), &place).await {
        Ok(secret) => {
            let mut response = let_in(&headers, &Entered::In(secret))?;
            let over = door::half(&headers, "")?;
            response.headers_mut().append(header::SET_COOKIE, over);
            Ok(response)
        }
        Err(refusal) => {
            let problem = Some((*refusal.0).clone());
            with_status(&refusal, &second_page(&control, &place, problem).await?)
        }
    }
}

/// Logs in. Whatever session the browser had before has nothing to do with the new one.
pub async fn log_in(
    State(control): State<Control>,
    place: Place,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response> {
    let email = fields.text("email");
    match sessions::log_in(&control, email, fields.text("password"), &place).await {
        Ok(entered) => let_in(&headers, &entered),
        Err(refusal) => {
            let problem = Some((*refusal.0).clone());
            let entry = login_page(&control, &place, email.to_owned(), problem).await?;
            with_status(&refusal, &entry)
        }
    }
}

/// Logs out.
pub async fn log_out(
    State(control): State<Control>,
    viewer: Viewer,
    headers: HeaderMap,
    _: Fields,
) -> Result<Response> {
    sessions::log_out(&control, &viewer).await?;
    Ok((
        [(header::SET_COOKIE, door::cookie(&headers, "")?)],
        Redirect::to("/login"),
    )
        .into_response())
}

fn forgotten_page(email: String, problem: Option<Problem>) -> Entry {
    Entry {
        title: "Forgotten?".to_owned(),
        lead: "We send you a link with which you choose a new password.".to_owned(),
        action: "/forgotten".to_owned(),
        button: "Send it",
        asks_email: true,
        bare: true,
        email,
        problem,
        ..Entry::default()
    }
}

/// Asks for the address of whoever forgot their password.
pub async fn forgotten(State(control): State<Control>) -> Result<Response> {
    if mail::is_on(&control).await? {
        return page(&forgotten_page(String::new(), None));
    }
    Err(reset::without_mail())
}

/// Sends the link, if the address is somebody's; the page is the same if it is nobody's.
pub async fn forgot(
    State(control): State<Control>,
    place: Place,
    fields: Fields,
) -> Result<Response> {
    let email = fields.text("email");
    match reset::ask(&control, email, &place).await {
        Ok(()) => page(&Entry {
            title: "Look at your mail".to_owned(),
            lead: reset::ANSWER.to_owned(),
            ..Entry::default()
        }),
        Err(refusal) => {
            let entry = forgotten_page(email.to_owned(), Some((*refusal.0).clone()));
            with_status(&refusal, &entry)
        }
    }
}

async fn welcome_page(control: &Control, secret: &str, place: &Place) -> Result<Entry> {
    let (link, known) = welcome::invited(control, secret).await?;
    Ok(Entry {
        look: brand::of_link(control, &link, &place.host).await?,
        title: match &known {
            Some(_) => "A new password".to_owned(),
            None => "Welcome".to_owned(),
        },
        lead: match &known {
            Some(person) => format!(
                "For {}. Wherever you are logged in, you are logged out.",
                person.email
            ),
            None => format!(
                "Choose how you log in to the panel of {}. This link works once.",
                control.cluster.domain
            ),
        },
        action: format!("/welcome/{secret}"),
        button: "Come in",
        asks_email: known.is_none(),
        asks_name: known.is_none(),
        fresh: true,
        ..Entry::default()
    })
}

/// What a one-time link opens.
pub async fn invited(
    State(control): State<Control>,
    place: Place,
    Path(secret): Path<String>,
) -> Result<Response> {
    page(&welcome_page(&control, &secret, &place).await?)
}

/// Uses the link up.
pub async fn welcome(
    State(control): State<Control>,
    place: Place,
    Path(secret): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response> {
    let mut entry = welcome_page(&control, &secret, &place).await?;
    let text = |name| fields.text(name).to_owned();
    let wish = Welcome {
        email: text("email"),
        name: text("name"),
        password: text("password"),
    };
    match welcome::welcome(&control, &secret, wish, &place).await {
        Ok(entered) => let_in(&headers, &entered),
        Err(refusal) => {
            entry.problem = Some((*refusal.0).clone());
            (entry.email, entry.name) = (text("email"), text("name"));
            with_status(&refusal, &entry)
        }
    }
}
