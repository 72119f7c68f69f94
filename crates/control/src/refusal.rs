//! Why control did not do what it was asked: a problem with its kind, its field and its remedy.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use undine_api::Problem;
use undine_link::CallError;
use undine_store::{StoreError, TokenRefusal};

/// A problem on its way out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub Box<Problem>);

/// The result of use cases.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(status, kind, title, detail)))
    }

    /// A field is wrong.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(422, "invalid", "A value cannot be used", detail).field(field)
    }

    /// There is no such thing, or none that the caller may know of.
    pub fn not_found(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        Self::new(
            404,
            "not-found",
            "There is no such thing",
            format!("There is no {what} {id}."),
        )
        .remedy("Check the id, or list what is there.")
    }

    /// What is there does not allow it now.
    pub fn conflict(kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(409, kind, title, detail)
    }

    /// Not with this token.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", "This token may not do that", detail)
            .remedy("Use a token with the role and scope that this needs.")
    }

    /// No token, or none that is known.
    pub fn unauthorized() -> Self {
        Self::new(
            401,
            "unauthorized",
            "A valid token is needed",
            "The request carries no token that is known, in force and not revoked.",
        )
        .remedy("Send `Authorization: Bearer …` with a token of this cluster.")
    }

    /// Something in the cluster does not answer now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(
            503,
            "unavailable",
            "A part of the cluster does not answer now",
            detail,
        )
        .remedy("Try again in a moment.")
    }

    /// A problem of this status and kind.
    pub fn of(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(status, kind, title, detail)
    }

    /// An error of our own; the log has the reason.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a request failed");
        Self::new(
            500,
            "internal",
            "Control failed",
            "Something failed in control; its log says what.",
        )
        .remedy("Try again; if it stays, send a support bundle with the request id.")
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The same, naming the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// The same, saying what to do next.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }
}

/// An error with all its reasons, for the log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let detail = capital(&error.to_string());
        match &error {
            StoreError::Taken { field, .. } => Self::new(409, "taken", "The name is taken", detail)
                .field(public_field(field))
                .remedy("Choose another one."),
            StoreError::Stale { .. } => Self::new(412, "stale", "It was changed meanwhile", detail)
                .remedy("Read it again and send the new ETag in If-Match."),
            StoreError::NotFound { .. } => {
                Self::new(404, "not-found", "There is no such thing", detail)
                    .remedy("Check the id, or list what is there.")
            }
            StoreError::InUse { .. } => Self::new(409, "in-use", "It is still in use", detail)
                .remedy("Remove what uses it first."),
            StoreError::MissingReference { .. } => Self::new(
                422,
                "missing-reference",
                "It names something that is not there",
                detail,
            ),
            StoreError::Token(refusal) => join_token(*refusal),
            StoreError::Conflict(_) => Self::new(503, "busy", "Others were quicker", detail)
                .remedy("Send the same request again."),
            StoreError::Unavailable(_) | StoreError::Unknown(_) => {
                tracing::warn!(error = %chain(&error), "the store");
                Self::unavailable(detail)
            }
            StoreError::Refused(_) => Self::new(409, "refused", "The store refused", detail),
            _ => Self::internal(&error),
        }
    }
}

/// The store's columns are the API's fields, but for these.
fn public_field(column: &str) -> &str {
    match column {
        "username" => "name",
        other => other,
    }
}

fn join_token(refusal: TokenRefusal) -> Refusal {
    let kind = match refusal {
        TokenRefusal::Unknown => "join-token-unknown",
        TokenRefusal::Expired => "join-token-expired",
        TokenRefusal::Used => "join-token-used",
    };
    Refusal::new(
        403,
        kind,
        "The join token is not accepted",
        format!("The join token is {refusal}."),
    )
    .remedy("Make a new one with `undine-control token` or `undine join-token create`.")
}

/// Sentences begin with a capital letter and end with a full stop. A name at the beginning stays
/// as it is written: `mail.example.org`, `web-1`, `10.0.0.1`, `/srv`.
pub fn capital(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or_default();
    let bare = first.trim_end_matches([',', '.', ':', ';', '!', '?']);
    let is_word = bare.chars().all(|c| c.is_alphabetic() || "'-".contains(c));
    let mut letters = text.chars();
    let mut sentence = String::new();
    match letters.next() {
        Some(letter) if is_word => sentence.extend(letter.to_uppercase()),
        Some(letter) => sentence.push(letter),
        None => {}
    }
    sentence.push_str(letters.as_str());
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => Self::from(problem),
            other => {
                tracing::warn!(error = %chain(&other), "a call failed");
                Self::unavailable(capital(&other.to_string()))
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        // The outermost layer writes the body, when it knows the request's id.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_begins_with_a_capital_letter_and_a_name_stays_as_it_is() {
        for (text, sentence) in [
            ("connection refused", "Connection refused."),
            ("no, that is wrong!", "No, that is wrong!"),
            ("read-only file system", "Read-only file system."),
            ("error: it broke.", "Error: it broke."),
            ("élan", "Élan."),
            (
                "mail.example.org at 587: connection refused",
                "mail.example.org at 587: connection refused.",
            ),
            ("web-1 is full", "web-1 is full."),
            ("io_uring is missing", "io_uring is missing."),
            ("ann@example.com has left", "ann@example.com has left."),
            (
                "2a01:db8::1 does not answer",
                "2a01:db8::1 does not answer.",
            ),
            ("`site` is missing", "`site` is missing."),
            ("", "."),
        ] {
            assert_eq!(capital(text), sentence);
        }
    }
}
