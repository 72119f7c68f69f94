//! Reading requests: each extractor answers what is wrong as a problem that names the field.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use undine_api::public::{MAX_JSON, Scope};
use utoipa::IntoParams;

use crate::app::caller::{Caller, Expected};
use crate::app::paging::PageWish;
use crate::refusal::Refusal;

fn caller(parts: &Parts) -> Result<Caller, Refusal> {
    parts
        .extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(Refusal::unauthorized)
}

/// Whose requests are let in.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Anybody,
    Sellers,
    Provider,
}

fn allowed(caller: Caller, scope: Scope, of: Of) -> Result<Caller, Refusal> {
    if of == Of::Provider && !caller.is_provider() {
        return Err(Refusal::forbidden("Only the provider may do that."));
    }
    if of == Of::Sellers && !caller.sells() {
        return Err(Refusal::forbidden(
            "Only the provider and resellers may do that.",
        ));
    }
    if !caller.has(scope) {
        let word = crate::app::caller::scope_word(scope);
        return Err(Refusal::forbidden(format!(
            "This needs the scope `{word}`."
        )));
    }
    Ok(caller)
}

macro_rules! access {
    ($($(#[$doc:meta])* $name:ident: $scope:ident, $of:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Caller);
        impl<S: Sync> FromRequestParts<S> for $name {
            type Rejection = Refusal;
            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
                allowed(caller(parts)?, Scope::$scope, Of::$of).map(Self)
            }
        }
    )*};
}

access! {
    /// Anybody who may look; what is seen depends on the role.
    Reader: Read, Anybody;
    /// Anybody who may deploy, into what their role reaches.
    Deployer: Deploy, Anybody;
    /// Anybody who may make, change and delete, within what their role reaches.
    Manager: Manage, Anybody;
    /// The provider, looking.
    ProviderReader: Read, Provider;
    /// The provider, changing.
    Provider: Manage, Provider;
    /// The provider or a reseller, looking.
    SellerReader: Read, Sellers;
    /// The provider or a reseller, changing what it sells.
    Seller: Manage, Sellers;
}

/// A node's report may be larger than any public request, which the door has measured already.
const MOST_READ: usize = 8 << 20;

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
            return Err(Refusal::of(
                415,
                "not-json",
                "The body must be JSON",
                "The request's Content-Type is not application/json.",
            )
            .remedy("Send `Content-Type: application/json`."));
        }
        let bytes = axum::body::to_bytes(request.into_body(), MOST_READ)
            .await
            .map_err(|_| too_large())?;
        parse(&bytes).map(Self)
    }
}

/// The body is larger than any request of ours.
pub fn too_large() -> Refusal {
    Refusal::of(
        413,
        "too-large",
        "The body is too large",
        format!("A JSON body has at most {MAX_JSON} bytes."),
    )
    .remedy("Send less; archives go to a site's releases.")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let detail = crate::refusal::capital(&shorter(&inner.to_string()));
        if inner.is_data() {
            let refusal = Refusal::invalid(&path, detail);
            if path == "." {
                without_field(refusal)
            } else {
                refusal
            }
        } else {
            not_json(&inner)
        }
    })?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Refusal {
    Refusal::of(
        400,
        "malformed",
        "The body is not well-formed JSON",
        crate::refusal::capital(&shorter(&error.to_string())),
    )
    .remedy("Send well-formed JSON.")
}

fn without_field(mut refusal: Refusal) -> Refusal {
    refusal.0.field = None;
    refusal
}

fn shorter(text: &str) -> String {
    text.chars().take(400).collect()
}

/// The id in the path.
pub struct PathId<T>(pub T);

impl<T, S> FromRequestParts<S> for PathId<T>
where
    T: std::str::FromStr<Err: std::fmt::Display> + Send,
    S: Send + Sync,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let bad = |detail: String| {
            Refusal::of(422, "invalid", "A value cannot be used", detail).field("id")
        };
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, state)
                .await
                .map_err(|error| bad(crate::refusal::capital(&error.body_text())))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| bad(crate::refusal::capital(&shorter(&error.to_string()))))
    }
}

/// What follows the question mark.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(asked)| Self(asked))
            .map_err(|error| {
                let detail = crate::refusal::capital(&shorter(&error.body_text()));
                let field = detail
                    .split_once(": ")
                    .and_then(|(_, rest)| rest.split_once(": "));
                let field = field.map_or("query", |(field, _)| field).to_owned();
                Refusal::invalid(&field, detail)
            })
    }
}

/// Which page is wanted.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl From<PageQuery> for PageWish {
    fn from(query: PageQuery) -> Self {
        Self {
            limit: query.limit,
            cursor: query.cursor,
        }
    }
}

/// Which page is wanted, of things with this name.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NamedQuery {
    /// At most so many things, up to 500; 50 unless said otherwise.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// With this name only.
    #[param(value_type = Option<String>)]
    pub name: Option<undine_model::Slug>,
}

impl NamedQuery {
    /// Page and name.
    pub fn split(self) -> (PageWish, Option<undine_model::Slug>) {
        (
            PageWish {
                limit: self.limit,
                cursor: self.cursor,
            },
            self.name,
        )
    }
}

/// What `If-Match` says.
pub fn version_wanted(parts: &Parts) -> Result<&str, Refusal> {
    let Some(value) = parts.headers.get(header::IF_MATCH) else {
        return Err(Refusal::of(
            428,
            "precondition-required",
            "Say which version you mean",
            "A change names the version that it is about in If-Match.",
        )
        .remedy("Read the thing, send its ETag in If-Match; `*` means any version."));
    };
    Ok(value.to_str().unwrap_or_default().trim())
}

/// `If-Match`, without which nothing is changed.
pub struct IfMatch(pub Expected);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text = version_wanted(parts)?;
        if text == "*" {
            return Ok(Self(Expected::Any));
        }
        let version = text.trim_start_matches("W/").trim_matches('"').parse();
        version
            .map(|version| Self(Expected::Version(version)))
            .map_err(|_| {
                Refusal::of(
                    412,
                    "stale",
                    "It was changed meanwhile",
                    "If-Match names no version of this thing.",
                )
                .remedy("Read the thing and send its ETag in If-Match.")
            })
    }
}

/// Nothing to say.
pub struct Gone;

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}
