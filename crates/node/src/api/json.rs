//! JSON in, JSON out, and a problem for what cannot be read.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use undine_api::Problem;
use undine_model::id::InvalidId;
use undine_model::{ReplicaId, ServerId};

use super::Refusal;

/// A request's body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal(unreadable(&rejection))),
        }
    }
}

fn unreadable(rejection: &JsonRejection) -> Problem {
    let status = rejection.status().as_u16();
    let (kind, title) = match status {
        413 => ("too-large", "The request is too large"),
        _ => ("unreadable", "The request cannot be read"),
    };
    Problem::new(status, kind, title, rejection.body_text())
}

/// The server in a path.
pub struct Server(pub ServerId);

impl<S: Send + Sync> FromRequestParts<S> for Server {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let found = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let invalid = |detail: String| {
            Refusal(Problem::new(
                404,
                "no-server",
                "There is no such server",
                detail,
            ))
        };
        let axum::extract::Path(text) = found.map_err(|error| invalid(error.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error: InvalidId| invalid(error.to_string()))
    }
}

/// The server and the replica in a path.
pub struct ServerReplica(pub ServerId, pub ReplicaId);

impl<S: Send + Sync> FromRequestParts<S> for ServerReplica {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let found = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let invalid = |kind, title, detail: String| Refusal(Problem::new(404, kind, title, detail));
        let axum::extract::Path((server, replica)) = found
            .map_err(|error| invalid("no-server", "There is no such server", error.body_text()))?;
        let server = server.parse().map_err(|error: InvalidId| {
            invalid("no-server", "There is no such server", error.to_string())
        })?;
        let replica = replica.parse().map_err(|error: InvalidId| {
            invalid("no-replica", "There is no such replica", error.to_string())
        })?;
        Ok(Self(server, replica))
    }
}

/// The epoch in a query.
#[derive(Debug, Deserialize)]
pub struct Epoch {
    /// The owner's.
    pub epoch: u64,
}

impl Epoch {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(parts: Option<&str>) -> Result<u64, Refusal> {
        let missing = || {
            Refusal(
                Problem::new(
                    422,
                    "no-epoch",
                    "The epoch is missing",
                    "this request needs ?epoch=N",
                )
                .field("epoch"),
            )
        };
        parts
            .unwrap_or_default()
            .split('&')
            .find_map(|pair| pair.strip_prefix("epoch="))
            .and_then(|text| text.parse().ok())
            .ok_or_else(missing)
    }
}
