//! Reading forms: the fields, once the form has shown that it is ours.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;
use undine_model::Id;

use crate::app::sessions::Viewer;
use crate::refusal::{Refusal, Result, capital};

const LARGEST: usize = 64 << 10;

/// The fields of a form.
#[derive(Debug)]
pub struct Fields(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let viewer = request.extensions().get::<Viewer>().cloned();
        let broken = |why: String| Refusal::of(400, "broken-form", "The form broke", capital(&why));
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| broken(error.to_string()))?;
        if bytes.len() > LARGEST {
            return Err(Refusal::of(
                413,
                "too-large",
                "The form is too large",
                "A form has 64 KiB at most.",
            ));
        }
        let uri = format!("/?{}", String::from_utf8_lossy(&bytes));
        let uri = uri
            .parse()
            .map_err(|_| broken("it is no form of ours".to_owned()))?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        let pairs = pairs.map_err(|error| broken(error.to_string()))?.0;
        let fields = Self(pairs.into_iter().collect());
        // Before anybody is logged in there is nothing to send back; `Origin` was checked.
        if viewer.is_some_and(|viewer| !viewer.wrote(fields.text("csrf"))) {
            return Err(not_ours());
        }
        Ok(fields)
    }
}

/// A small file, sent by a form that says that it is ours before the file begins.
#[derive(Debug)]
pub struct Upload {
    /// What is in it; empty when none was chosen.
    pub file: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let viewer = request.extensions().get::<Viewer>().cloned();
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("multipart/form-data") {
            Fields::from_request(request, state).await?;
            return Ok(Self { file: Bytes::new() });
        }
        let broken = |why: String| Refusal::of(400, "broken-form", "The form broke", capital(&why));
        let form = Multipart::from_request(request, state).await;
        let mut form = form.map_err(|error| broken(error.to_string()))?;
        let mut ours = viewer.is_none();
        while let Some(part) = form
            .next_field()
            .await
            .map_err(|error| broken(error.to_string()))?
        {
            let name = part.name().unwrap_or_default().to_owned();
            if !ours && name != "csrf" {
                break;
            }
            // The whole body is bounded by axum; a file is small by what is done with it.
            let bytes = part
                .bytes()
                .await
                .map_err(|error| broken(error.to_string()))?;
            match name.as_str() {
                "csrf" => {
                    let sent = String::from_utf8_lossy(&bytes).into_owned();
                    ours = viewer.as_ref().is_none_or(|viewer| viewer.wrote(&sent));
                }
                "file" => return Ok(Self { file: bytes }),
                _ => {}
            }
        }
        if !ours {
            return Err(not_ours());
        }
        Ok(Self { file: Bytes::new() })
    }
}

impl Fields {
    /// A field; empty when it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A field, unless it is empty.
    pub fn some(&self, name: &str) -> Option<String> {
        Some(self.text(name).trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A field of a type.
    pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T> {
        let parsed = self.text(name).trim().parse();
        parsed.map_err(|error: T::Err| Refusal::invalid(name, capital(&error.to_string())))
    }

    /// The names in a field, with commas or spaces between them.
    pub fn names(&self, name: &str) -> Vec<String> {
        let names = self.text(name).split([',', ' ', '\n', '\r']);
        names
            .filter(|it| !it.is_empty())
            .map(str::to_lowercase)
            .collect()
    }

    /// What was ticked in a list.
    pub fn picked(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|name| name.strip_prefix("pick:"))
    }

    /// Has the person written this, as the form asks before something is deleted?
    pub fn confirms(&self, name: &str) -> Result<()> {
        if self.text("confirm").trim() == name {
            return Ok(());
        }
        Err(Refusal::invalid(
            "confirm",
            format!("Nothing was deleted: that was not `{name}`."),
        ))
    }
}

/// The form does not carry the secret of the session that it is sent in.
pub fn not_ours() -> Refusal {
    Refusal::of(
        403,
        "form-too-old",
        "The form is not of this session",
        "The form was made before you logged in, or elsewhere.",
    )
    .remedy("Go back, load the page again and send it once more.")
}

/// An id within a path.
pub fn id<K>(text: &str) -> Result<Id<K>> {
    text.parse().map_err(|_| {
        Refusal::of(
            404,
            "not-found",
            "There is no such page",
            "The address has no id that we know.",
        )
    })
}
