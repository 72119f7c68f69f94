//! Where image files come from: control and other nodes, under mutual TLS; or plain HTTP, as what
//! arrives is checked against its hash anyway.

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{CONTENT_RANGE, RANGE};
use undine_link::{ControlClient, Method};

use crate::images::{Body, Source};
use crate::problems::chain;

/// Fetches from control's instances, or from where a URL leads.
pub struct Blobs {
    control: ControlClient,
    plain: reqwest::Client,
}

impl Blobs {
    /// Fetches as this node.
    pub fn new(control: ControlClient) -> Self {
        Self {
            control,
            plain: reqwest::Client::new(),
        }
    }

    /// A source is a URL; of one at control only the path counts, so that any instance serves.
    fn request(&self, source: &str, sha256: &str) -> Result<reqwest::RequestBuilder, String> {
        let url = reqwest::Url::parse(source).map_err(|error| format!("{source}: {error}"))?;
        if url.scheme() == "http" {
            return Ok(self
                .plain
                .get(format!("{}/{sha256}", source.trim_end_matches('/'))));
        }
        let named = url.socket_addrs(|| None).unwrap_or_default();
        let (addresses, peers) = (self.control.addresses(), self.control.peers());
        let found = addresses.iter().position(|address| named.contains(address));
        // The instance that is named, or else the one that answered last.
        let peer = peers
            .get(found.unwrap_or(0))
            .ok_or("no instance of control is known")?;
        Ok(peer.request(
            Method::GET,
            &format!("{}/{sha256}", url.path().trim_end_matches('/')),
        ))
    }
}

#[async_trait]
impl Source for Blobs {
    async fn open(&self, source: &str, sha256: &str, offset: u64) -> Result<Body, String> {
        let request = self
            .request(source, sha256)?
            .header(RANGE, format!("bytes={offset}-"));
        let response = request.send().await.map_err(|error| chain(&error))?;
        let status = response.status();
        let start = match status.as_u16() {
            206 => {
                let range = response.headers().get(CONTENT_RANGE);
                range
                    .and_then(|value| first_byte(value.to_str().ok()?))
                    .ok_or_else(|| format!("{source} did not say which part of the file it sent"))?
            }
            200 => 0,
            _ => return Err(format!("{source} answered with status {status}")),
        };
        if start > offset {
            return Err(format!(
                "{source} sent another part of the file than was asked for"
            ));
        }
        Ok((
            start,
            response
                .bytes_stream()
                .map_err(std::io::Error::other)
                .boxed(),
        ))
    }
}

/// The first byte of `bytes 100-199/200`.
fn first_byte(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_was_sent_is_read() {
        assert_eq!(first_byte("bytes 100-199/200"), Some(100));
        assert_eq!(first_byte("items 1-2/3"), None);
        assert_eq!(first_byte("bytes */200"), None);
    }
}
