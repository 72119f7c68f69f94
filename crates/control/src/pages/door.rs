//! What stands before every page: who asks, whether the form is ours, and the headers that keep
//! a page to itself. Refusals become pages.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use undine_api::public::Scope;
use uuid::Uuid;

use super::{Who, entry, squeeze};
use crate::api::{RequestId, VisitorAddress};
use crate::app::brand;
use crate::app::sessions::{self, Place, Viewer};
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// Nothing from elsewhere, no script and no style within the page, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Over TLS the name binds the cookie to this host; a loopback address knows no TLS.
pub fn cookie_name(headers: &HeaderMap) -> &'static str {
    match headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
        Some(b"https") => "__Host-undine",
        _ => "undine",
    }
}

/// `Set-Cookie` that begins a session; an empty secret ends it.
pub fn cookie(headers: &HeaderMap, secret: &str) -> Result<HeaderValue> {
    set(headers, cookie_name(headers), secret, 90 * 24 * 3_600)
}

/// `Set-Cookie` that says that the password was right; an empty note forgets it.
pub fn half(headers: &HeaderMap, note: &str) -> Result<HeaderValue> {
    set(headers, half_name(headers), note, 600)
}

/// What the browser says of its first step.
pub fn noted(headers: &HeaderMap) -> Option<String> {
    kept(headers, half_name(headers))
}

fn half_name(headers: &HeaderMap) -> &'static str {
    match cookie_name(headers) {
        "undine" => "undine-half",
        _ => "__Host-undine-half",
    }
}

fn set(headers: &HeaderMap, name: &str, value: &str, age_s: u32) -> Result<HeaderValue> {
    let secure = match cookie_name(headers) {
        "undine" => "",
        _ => "; Secure",
    };
    let age = if value.is_empty() { 0 } else { age_s };
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).map_err(|error| Refusal::internal(&error))
}

fn secret(headers: &HeaderMap) -> Option<String> {
    kept(headers, cookie_name(headers))
}

fn kept(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).into_iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Where a request comes from.
pub fn place(parts: &Parts) -> Place {
    let text = |name| {
        let value = parts.headers.get(name);
        let text = value.and_then(|value: &HeaderValue| value.to_str().ok());
        text.unwrap_or_default().to_owned()
    };
    let ip = parts.extensions.get::<VisitorAddress>();
    Place {
        ip: ip.map(|address| address.0.clone()),
        agent: text(header::USER_AGENT),
        host: text(header::HOST).to_lowercase(),
        secure: cookie_name(&parts.headers) != "undine",
        request_id: parts
            .extensions
            .get::<RequestId>()
            .map_or_else(Uuid::nil, |id| id.0),
    }
}

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(place(parts))
    }
}

impl<S: Sync> FromRequestParts<S> for Viewer {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(Refusal::unauthorized)
    }
}

/// Lets in who may.
pub async fn guard(
    State((control, who, scope)): State<(Control, Who, Scope)>,
    request: Request,
    next: Next,
) -> Response {
    match admitted(&control, who, scope, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn admitted(control: &Control, who: Who, scope: Scope, request: Request) -> Result<Request> {
    let (mut parts, body) = request.into_parts();
    if parts.method != Method::GET {
        from_here(&parts.headers)?;
    }
    let place = place(&parts);
    let viewer = match secret(&parts.headers) {
        Some(secret) => sessions::of(control, &secret, &place).await?,
        None => None,
    };
    if who != Who::Anybody {
        let viewer = viewer.as_ref().ok_or_else(Refusal::unauthorized)?;
        if who == Who::Provider && !viewer.caller.is_provider() {
            return Err(Refusal::forbidden("Only the provider sees this.").remedy(REMEDY));
        }
        if who == Who::Seller && !viewer.caller.sells() {
            return Err(Refusal::forbidden("Only whoever sells sees this.").remedy(REMEDY));
        }
        if !viewer.caller.has(scope) {
            return Err(Refusal::forbidden("Your role does not allow that.").remedy(REMEDY));
        }
        // What is only the person's own stays theirs: their password, their sessions.
        if !parts.method.is_safe() && scope != Scope::Billing {
            viewer.caller.may_change()?;
        }
    }
    // A form of the way in is nobody's yet, even in a browser where somebody is logged in.
    let belongs = who != Who::Anybody || parts.method == Method::GET;
    if let Some(viewer) = viewer.filter(|_| belongs) {
        parts.extensions.insert(viewer);
    }
    Ok(Request::from_parts(parts, body))
}

const REMEDY: &str = "An owner can give you another role.";

/// A form of another site is refused, whatever it carries: browsers say where it is from. The
/// form's own secret is checked where the form is read.
fn from_here(headers: &HeaderMap) -> Result<()> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let elsewhere = || {
        Refusal::of(
            403,
            "elsewhere",
            "The form is not ours",
            "It was sent from another site.",
        )
        .remedy("Open the panel and do it there.")
    };
    if matches!(
        text(HeaderName::from_static("sec-fetch-site")),
        Some("cross-site" | "same-site")
    ) {
        return Err(elsewhere());
    }
    let Some(origin) = text(header::ORIGIN) else {
        return Ok(());
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    if host.is_none() || host != text(header::HOST) {
        return Err(elsewhere());
    }
    Ok(())
}

/// Writes refusals as pages and adds the headers.
pub async fn outer(State(control): State<Control>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let host = host.to_lowercase();
    let get = request.method() == Method::GET;
    let refresh = request.headers().contains_key("x-panel");
    let squeeze = squeeze::taken(request.headers());
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        let status = refusal.status();
        response = if status == StatusCode::UNAUTHORIZED && (get || refresh) {
            Redirect::to("/login").into_response()
        } else {
            let look = brand::at_host(&control, &host).await.unwrap_or_default();
            (status, entry::refused(&refusal.0, look)).into_response()
        };
    }
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that, browsers say `Origin: null` of our own forms.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        // A file of somebody's own has a stricter policy already.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if squeeze {
        response = squeeze::squeezed(response).await;
    }
    response
}
