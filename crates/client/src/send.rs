//! How every operation is sent, and what becomes of its answer.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use undine_api::Problem;
use uuid::Uuid;

/// Small requests end within this; uploads and event streams have no end of their own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Control, as the bearer of a token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no address of control; it looks like https://panel.example.org")]
    Address(String),
    /// Nothing answers there.
    #[error("control does not answer at {address}; is it running, is the address right?")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Control refused, and says why.
    #[error("{}", words(.0))]
    Refused(Box<Problem>),
    /// Control refused without a word.
    #[error("control answered with status {0} and no explanation")]
    Status(u16),
    /// The answer ended too soon.
    #[error("the answer broke off")]
    BrokeOff(#[source] reqwest::Error),
    /// The answer is not what the description says.
    #[error("control answered something that this version does not understand")]
    Answer(#[source] serde_json::Error),
    /// The wish cannot be written down.
    #[error("the request cannot be written as JSON")]
    Request(#[source] serde_json::Error),
}

/// A problem as a person reads it.
fn words(problem: &Problem) -> String {
    let mut text = format!(
        "{} ({}, status {})",
        problem.detail, problem.kind, problem.status
    );
    let more = [
        ("field", &problem.field),
        ("what to do", &problem.remedy),
        ("request", &problem.request_id),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            text += &format!("\n  {name}: {value}");
        }
    }
    text
}

/// A fresh key for a create: the same key sent again gets the first one's answer.
pub fn new_key() -> String {
    Uuid::now_v7().to_string()
}

impl Client {
    /// For this address and token.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(base: &str, token: String) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(base.to_owned());
        let url = Url::parse(base).map_err(|_| bad())?;
        if url.cannot_be_a_base() || url.host().is_none() {
            return Err(bad());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(|_| bad())?;
        Ok(Self {
            http,
            base: url,
            token,
        })
    }

    /// A request for this path; each of its parts is one segment, whatever it holds.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).bearer_auth(&self.token)
    }

    /// Sends; a refusal is an error that says what to do.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|source| ClientError::Unreachable {
                address: self.base.to_string(),
                source,
            })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        Err(match serde_json::from_slice(&bytes) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_) => ClientError::Status(status.as_u16()),
        })
    }

    /// Sends something small and reads its JSON.
    pub(crate) async fn answer<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(request.timeout(PATIENCE)).await?;
        read(response).await
    }

    /// Sends something small whose answer is empty.
    pub(crate) async fn done(&self, request: RequestBuilder) -> Result<(), ClientError> {
        self.send(request.timeout(PATIENCE)).await.map(drop)
    }
}

/// Reads a JSON answer.
pub(crate) async fn read<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let bytes = response.bytes().await.map_err(ClientError::BrokeOff)?;
    serde_json::from_slice(&bytes).map_err(ClientError::Answer)
}

/// A value as a query says it: texts bare, everything else as JSON writes it.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
