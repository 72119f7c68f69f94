//! Writing answers: JSON with its status, and the version in an `ETag`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::refusal::Refusal;

/// What handlers answer.
pub type Answer<T> = Result<Reply<T>, Refusal>;

/// JSON with its status and, for what can be changed, its version.
pub struct Reply<T> {
    status: StatusCode,
    version: Option<i64>,
    body: T,
}

impl<T> Reply<T> {
    /// Here it is.
    pub fn ok(body: T) -> Self {
        Self {
            status: StatusCode::OK,
            version: None,
            body,
        }
    }

    /// Here it is, at this version.
    pub fn at(version: i64, body: T) -> Self {
        Self {
            status: StatusCode::OK,
            version: Some(version),
            body,
        }
    }

    /// It was made, at this version.
    pub fn made(version: i64, body: T) -> Self {
        Self {
            status: StatusCode::CREATED,
            version: Some(version),
            body,
        }
    }

    /// An operation now works on it.
    pub fn accepted(version: Option<i64>, body: T) -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            version,
            body,
        }
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(version) = self.version
            && let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\""))
        {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
