//! The brand of whoever sells: name, colour and logo of the panel as its customers see it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use undine_api::Problem;

use super::answer::answered;
use super::fields::{Fields, Upload};
use super::frame::{Frame, page as written};
use crate::app::brand::{self, Brand};
use crate::app::brand_change;
use crate::app::sessions::Viewer;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

#[derive(Template)]
#[template(path = "brand.html")]
struct Page {
    f: Frame,
    name: String,
    colour: String,
    host: String,
    suspended: String,
    has_logo: bool,
    reseller: bool,
    problem: Option<Problem>,
}

async fn shown(
    control: &Control,
    viewer: &Viewer,
    wish: Option<Brand>,
    problem: Option<Problem>,
) -> Result<Response> {
    let (_, own) = brand_change::own(control, &viewer.caller).await?;
    let has_logo = own.logo.is_some();
    let brand = wish.unwrap_or(own);
    written(&Page {
        f: Frame::new(control, viewer, "Brand", "/brand", 0).await?,
        name: brand.name.unwrap_or_default(),
        colour: brand.colour.unwrap_or_default(),
        host: brand.host.unwrap_or_default(),
        suspended: brand.suspended.unwrap_or_default(),
        has_logo,
        reseller: viewer.caller.reseller().is_some(),
        problem,
    })
}

/// The page.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    shown(&control, &viewer, None, None).await
}

async fn answer(
    control: &Control,
    viewer: &Viewer,
    wish: Option<Brand>,
    done: Result<()>,
) -> Result<Response> {
    let page = |problem| shown(control, viewer, wish, Some(problem));
    answered(done, |()| "/brand".to_owned(), page).await
}

/// Changes name, colour and host name.
pub async fn change(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let wish = Brand {
        name: fields.some("name"),
        colour: fields.some("colour").map(|text| text.to_lowercase()),
        host: fields.some("host").map(|text| text.to_lowercase()),
        logo: None,
        suspended: fields.some("suspended"),
    };
    let done = brand_change::change(&control, &viewer.caller, wish.clone()).await;
    answer(&control, &viewer, Some(wish), done).await
}

/// Puts a logo in place.
pub async fn logo(
    State(control): State<Control>,
    viewer: Viewer,
    upload: Upload,
) -> Result<Response> {
    let done = brand_change::set_logo(&control, &viewer.caller, Some(&upload.file)).await;
    answer(&control, &viewer, None, done).await
}

/// Takes it away.
pub async fn no_logo(
    State(control): State<Control>,
    viewer: Viewer,
    _: Fields,
) -> Result<Response> {
    let done = brand_change::set_logo(&control, &viewer.caller, None).await;
    answer(&control, &viewer, None, done).await
}

/// A file of a brand. Whatever it is, it may do nothing.
pub async fn file(State(control): State<Control>, Path(name): Path<String>) -> Result<Response> {
    let (kind, bytes) = brand::file(&control, &name).await?;
    let length = bytes.len();
    if length > crate::app::picture::LARGEST {
        return Err(Refusal::not_found("file", "of this name"));
    }
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox; frame-ancestors 'none'",
        ),
    ];
    Ok((headers, bytes).into_response())
}
