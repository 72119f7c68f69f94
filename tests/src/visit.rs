//! A visitor: asks an edge for a page by the site's name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A visitor who knows one edge.
pub struct Visitor {
    client: reqwest::Client,
    edge: SocketAddr,
}

/// What a visitor got.
#[derive(Debug, Clone)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// The cookies that it sets, as they are sent back.
    pub cookies: String,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: String,
}

impl Visitor {
    /// Someone who comes in by this edge.
    pub fn at(edge: &str) -> Result<Self> {
        // A second call finds it installed: that is what was wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self {
            client,
            edge: edge.parse().context("an edge's address")?,
        })
    }

    /// A page of a site.
    pub async fn get(&self, host: &str, path: &str) -> Result<Page> {
        self.get_with(host, path, "").await
    }

    /// A page of a site, with cookies.
    pub async fn get_with(&self, host: &str, path: &str, cookies: &str) -> Result<Page> {
        self.get_by(host, path, "cookie", cookies).await
    }

    /// A page of a site, with one more header unless its value is empty.
    pub async fn get_by(&self, host: &str, path: &str, name: &str, value: &str) -> Result<Page> {
        let mut request = self
            .client
            .get(format!("http://{}{path}", self.edge))
            .header("host", host);
        if !value.is_empty() {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        let cookies = answer
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .collect::<Vec<_>>()
            .join("; ");
        Ok(Page {
            status: answer.status().as_u16(),
            cookies,
            headers: answer.headers().clone(),
            body: answer.text().await?,
        })
    }
}

/// Tries again until it works or the time is up.
pub async fn eventually<T, F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => bail!("not within {patience:?}: {error:#}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}
