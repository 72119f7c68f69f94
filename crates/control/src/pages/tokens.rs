//! The API tokens of what the viewer sees: made with their secret shown once, ended at any time.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use undine_api::public::{CreateToken, Scope, Token, TokenRole};

use super::cluster::ALL;
use super::fields::{Fields, id};
use super::frame::{Frame, page as written};
use super::words::ago;
use crate::app::caller::Expected;
use crate::app::sessions::Viewer;
use crate::app::tokens;
use crate::clock::now_ms;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

struct Row {
    id: String,
    name: String,
    may: String,
    used: String,
    ends: String,
    over: bool,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Tokens {
    f: Frame,
    tokens: Vec<Row>,
    secret: String,
    provider: bool,
    in_account: bool,
}

const DAY_S: u32 = 24 * 3_600;

fn row(token: Token) -> Row {
    let now = now_ms();
    let may = match token.scopes.as_slice() {
        [] | [Scope::Manage] => "everything",
        [Scope::Deploy] => "look and deploy",
        _ => "look",
    };
    let whose = match (token.role, token.sites.map(|sites| sites.len())) {
        (TokenRole::AccountOwner, None) => ", in one account".to_owned(),
        (TokenRole::AccountOwner, Some(1)) => ", of one site".to_owned(),
        (TokenRole::AccountOwner, Some(many)) => format!(", of {many} sites"),
        (TokenRole::Reseller, _) => ", of a reseller".to_owned(),
        (TokenRole::Provider, _) => String::new(),
    };
    let ended = token.expires_at.is_some_and(|at| at <= now);
    Row {
        id: token.id.to_string(),
        name: token.name,
        may: format!("{may}{whose}"),
        used: token.last_used_at.map_or("never".to_owned(), ago),
        ends: match (token.revoked_at, token.expires_at) {
            (Some(_), _) => "ended".to_owned(),
            (None, Some(_)) if ended => "over".to_owned(),
            (None, Some(at)) => format!("in {} days", (at - now) / (i64::from(DAY_S) * 1_000) + 1),
            (None, None) => "never".to_owned(),
        },
        over: token.revoked_at.is_some() || ended,
    }
}

async fn shown(control: &Control, viewer: &Viewer, secret: String) -> Result<Response> {
    let all = tokens::all(control, &viewer.caller, &ALL).await?.items;
    written(&Tokens {
        f: Frame::new(control, viewer, "API tokens", "/me", 0).await?,
        tokens: all.into_iter().map(row).collect(),
        secret,
        provider: viewer.caller.is_provider(),
        in_account: !viewer.caller.sells(),
    })
}

/// The list.
pub async fn page(State(control): State<Control>, viewer: Viewer) -> Result<Response> {
    shown(&control, &viewer, String::new()).await
}

/// Makes one and shows its secret, once.
pub async fn create(
    State(control): State<Control>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Response> {
    let scopes = match fields.text("may") {
        "read" => vec![Scope::Read],
        "deploy" => vec![Scope::Deploy],
        "all" => Vec::new(),
        _ => return Err(Refusal::invalid("may", "Choose what it may do.")),
    };
    let days: u32 = fields.parse("days")?;
    if days > 3_650 {
        return Err(Refusal::invalid("days", "A token lasts at most ten years."));
    }
    let sites = fields.names("sites");
    let wish = CreateToken {
        sites: Some(sites).filter(|sites| !sites.is_empty()),
        name: fields.text("name").trim().to_owned(),
        role: match (viewer.caller.is_provider(), viewer.caller.sells()) {
            (true, _) => TokenRole::Provider,
            (false, true) => TokenRole::Reseller,
            (false, false) => TokenRole::AccountOwner,
        },
        account: None,
        reseller: None,
        scopes,
        ttl_s: (days > 0).then_some(days * DAY_S),
    };
    let made = tokens::create(&control, &viewer.caller, wish).await?;
    shown(&control, &viewer, made.secret).await
}

/// Ends one.
pub async fn end(
    State(control): State<Control>,
    viewer: Viewer,
    Path(which): Path<String>,
    _: Fields,
) -> Result<Redirect> {
    tokens::revoke(&control, &viewer.caller, id(&which)?, Expected::Any).await?;
    Ok(Redirect::to("/tokens"))
}
