//! Calls to control's public API: one token, one way to send, one way to fail.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use undine_api::Problem;
use undine_api::public::{IDEMPOTENCY_KEY, List};
use uuid::Uuid;

/// Small requests end within this; uploads and event streams have no end of their own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Control, as the bearer of a token.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// What control refused, as a person reads it.
#[derive(Debug)]
struct Refused(Problem);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.0;
        write!(
            f,
            "{} ({}, status {})",
            problem.detail, problem.kind, problem.status
        )?;
        if let Some(field) = &problem.field {
            write!(f, "\n  field: {field}")?;
        }
        if let Some(remedy) = &problem.remedy {
            write!(f, "\n  what to do: {remedy}")?;
        }
        if let Some(id) = &problem.request_id {
            write!(f, "\n  request: {id}")?;
        }
        Ok(())
    }
}
impl std::error::Error for Refused {}

impl Client {
    /// For this address and token.
    pub fn new(base: &str, token: String) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .context("no HTTP client can be made here")?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// A request that the caller completes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    /// Sends a request; a refusal is an error that says what to do.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.with_context(|| {
            format!(
                "control does not answer at {}; is it running, is the address right?",
                self.base
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice(&bytes) {
            Ok(problem) => bail!(Refused(problem)),
            Err(_) => bail!("control answered with status {status} and no explanation"),
        }
    }

    /// Looks at something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self
            .send(self.request(Method::GET, path).timeout(PATIENCE))
            .await?;
        read(response).await
    }

    /// Every item of a list, page after page.
    pub async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let more = cursor.map(|it| format!("&cursor={it}")).unwrap_or_default();
            let page: List<T> = self.get(&format!("{path}{join}limit=200{more}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }

    /// Makes something or starts something; safe against being sent twice.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T> {
        let key = Uuid::now_v7().to_string();
        let request = self
            .request(Method::POST, path)
            .header(IDEMPOTENCY_KEY, key)
            .json(body);
        read(
            self.send(request.header("if-match", "*").timeout(PATIENCE))
                .await?,
        )
        .await
    }

    /// Changes something as it is now.
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T> {
        let mut request = self
            .request(method, path)
            .header("if-match", "*")
            .timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(body);
        }
        read(self.send(request).await?).await
    }
}

/// Reads a JSON answer; an empty one counts as `null`.
pub async fn read<T: DeserializeOwned>(response: Response) -> Result<T> {
    let bytes = response.bytes().await.context("the answer broke off")?;
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(text)
        .context("control answered something that this version does not understand")
}
