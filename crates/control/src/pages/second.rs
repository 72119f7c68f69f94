//! Setting up the second step of one's own log-in.

use std::fmt::Write;

use askama::Template;
use axum::extract::State;
use axum::response::{Redirect, Response};
use qrcodegen::{QrCode, QrCodeEcc};
use undine_api::Problem;

use super::fields::Fields;
use super::frame::{Frame, page as written};
use crate::app::second::{self, Offer};
use crate::app::sessions::{Place, Viewer};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

#[derive(Template, Default)]
#[template(path = "second.html")]
struct Second {
    f: Frame,
    email: String,
    /// The secret in groups of four.
    secret: String,
    sealed: String,
    /// The side of the picture, modules, its edge included.
    side: i32,
    /// Its dark modules, as an SVG path.
    dark: String,
    problem: Option<Problem>,
    codes: Vec<String>,
}

/// Modules that stay white around a code, as its standard asks for.
const EDGE: i32 = 4;

async fn shown(
    control: &Control,
    viewer: &Viewer,
    offer: &Offer,
    problem: Option<Problem>,
) -> Result<Response> {
    let (side, dark) = picture(&offer.url)?;
    written(&Second {
        f: Frame::new(control, viewer, "Two steps to log in", "/me", 0).await?,
        email: viewer.person.email.clone(),
        secret: groups(&offer.secret),
        sealed: offer.sealed.clone(),
        side,
        dark,
        problem,
        codes: Vec::new(),
    })
}

fn groups(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let groups = letters.chunks(4).map(|group| group.iter().collect());
    groups.collect::<Vec<String>>().join(" ")
}

fn picture(url: &str) -> Result<(i32, String)> {
    let code = QrCode::encode_text(url, QrCodeEcc::Medium);
    let code = code.map_err(|error| Refusal::internal(&error))?;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{} {}h1v1h-1z", x + EDGE, y + EDGE);
        }
    }
    Ok((code.size() + 2 * EDGE, path))
}

/// The offer: a picture to scan, and a form for the first code.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    let offer = second::offer(&control, &viewer.person)?;
    shown(&control, &viewer, &offer, None).await
}

async fn with_codes(control: &Control, viewer: &Viewer, codes: Vec<String>) -> Result<Response> {
    written(&Second {
        f: Frame::new(control, viewer, "Two steps to log in", "/me", 0).await?,
        codes,
        ..Second::default()
    })
}

/// Switches it on.
pub async fn switch_on(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
    fields: Fields,
) -> Result<Response> {
    let text = |name| fields.text(name);
    let (sealed, password, code) = (text("sealed"), text("password"), text("code"));
    match second::switch_on(&control, &viewer, sealed, password, code, &place).await {
        Ok(codes) => with_codes(&control, &viewer, codes).await,
        Err(refusal) => {
            // The phone has the secret already: the same one is shown again.
            let offer = second::offered(&control, &viewer.person, sealed)?;
            let mut response = shown(&control, &viewer, &offer, Some((*refusal.0).clone())).await?;
            *response.status_mut() = refusal.status();
            Ok(response)
        }
    }
}

/// Switches it off.
pub async fn switch_off(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
    fields: Fields,
) -> Result<Redirect> {
    second::switch_off(&control, &viewer, fields.text("password"), &place).await?;
    Ok(Redirect::to("/me"))
}

/// New recovery codes.
pub async fn renew_codes(
    State(control): State<Control>,
    viewer: Viewer,
    place: Place,
    fields: Fields,
) -> Result<Response> {
    let password = fields.text("password");
    let codes = second::renew_codes(&control, &viewer, password, &place).await?;
    with_codes(&control, &viewer, codes).await
}
