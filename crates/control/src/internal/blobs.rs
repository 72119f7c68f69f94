//! Blobs by hash, in ranges, so that a broken download goes on where it ended. What this instance
//! lacks, it first fetches from another one.

use std::io::SeekFrom;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use undine_api::internal::Role;
use undine_link::PeerClient;
use undine_store::{Db, InstanceFilter};

use crate::blobs::is_hash;
use crate::control::Control;
use crate::refusal::{Refusal, Result};

/// How far to look.
#[derive(Deserialize)]
pub(super) struct BlobQuery {
    /// Only here: another instance asks.
    #[serde(default)]
    local: bool,
}

pub(super) async fn blob(
    State(control): State<Control>,
    Path(hash): Path<String>,
    Query(asked): Query<BlobQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    if !is_hash(&hash) {
        return Err(Refusal::not_found("blob", &hash));
    }
    if control.blobs.find(&hash).is_none() && !asked.local {
        fetch(&control, &hash).await?;
    }
    let path = control
        .blobs
        .find(&hash)
        .ok_or_else(|| Refusal::not_found("blob", &hash))?;
    let broken = |error: std::io::Error| Refusal::internal(&error);
    let mut file = tokio::fs::File::open(path).await.map_err(broken)?;
    let size = file.metadata().await.map_err(broken)?.len();
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let Some((from, to)) = range.map_or(Some((0, size)), |text| parse(text, size)) else {
        let headers = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
        return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
    };
    file.seek(SeekFrom::Start(from)).await.map_err(broken)?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(to - from), 256 << 10));
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_LENGTH, (to - from).to_string()),
        (header::ETAG, format!("\"{hash}\"")),
    ];
    if range.is_none() {
        return Ok((common, body).into_response());
    }
    let part = [(
        header::CONTENT_RANGE,
        format!("bytes {from}-{}/{size}", to.saturating_sub(1)),
    )];
    Ok((StatusCode::PARTIAL_CONTENT, common, part, body).into_response())
}

/// `bytes=from-` or `bytes=from-to`, as from (included) and to (excluded).
fn parse(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = match to {
        "" => size,
        to => to.parse::<u64>().ok()?.checked_add(1)?.min(size),
    };
    (from < to).then_some((from, to))
}

async fn fetch(control: &Control, hash: &str) -> Result<()> {
    for instance in control
        .store
        .instances()
        .all(&InstanceFilter::default())
        .await?
    {
        let Ok(address) = instance.internal_url.parse() else {
            continue;
        };
        if instance.id == control.id {
            continue;
        }
        let id = instance.id.to_string();
        let Ok(peer) = PeerClient::new(&control.credentials, Role::Control, &id, address) else {
            continue;
        };
        match control.blobs.fetch(&peer, hash).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::info!(hash, instance = %instance.name, error = format!("{error:#}"), "not there");
            }
        }
    }
    Err(Refusal::not_found("blob", hash))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_range_is_what_is_left_of_the_file() {
        assert_eq!(parse("bytes=3-", 10), Some((3, 10)));
        assert_eq!(parse("bytes=3-5", 10), Some((3, 6)));
        assert_eq!(parse("bytes=3-500", 10), Some((3, 10)));
        for bad in [
            "bytes=10-",
            "bytes=5-3",
            "bytes=-5",
            "3-5",
            "bytes=x-",
            "bytes=0-18446744073709551615",
        ] {
            assert_ne!(parse(bad, 10), Some((3, 10)), "{bad}");
        }
        assert_eq!(parse("bytes=10-", 10), None);
    }
}
