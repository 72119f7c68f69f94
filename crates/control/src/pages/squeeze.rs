//! Pages and files go out compressed to browsers that take that. What a page holds of secrets is
//! written anew for every page, so that sizes tell nothing of it.

use std::io::Write;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::refusal::Refusal;

/// No page is larger.
const LARGEST: usize = 8 << 20;
/// Smaller ones fit into one packet as they are.
const SMALLEST: usize = 1_000;

/// Does the browser take gzip?
pub fn taken(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|one| one.trim().replace(' ', ""))
        .any(|one| one == "gzip" || (one.starts_with("gzip;q=") && !is_zero(&one[7..])))
}

fn is_zero(weight: &str) -> bool {
    weight.parse::<f32>().is_ok_and(|weight| weight == 0.0)
}

/// Is it a text that is whole, not a stream that goes on?
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    ["text/html", "text/css", "text/javascript", "image/svg+xml"]
        .iter()
        .any(|text| kind.starts_with(text))
}

/// The response, compressed where that helps.
pub async fn squeezed(response: Response) -> Response {
    if !is_text(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts
        .headers
        .append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let bytes = match to_bytes(body, LARGEST).await {
        Ok(bytes) => bytes,
        Err(error) => return Refusal::internal(&error).into_response(),
    };
    if bytes.len() < SMALLEST {
        return Response::from_parts(parts, Body::from(bytes));
    }
    match gzip(&bytes) {
        Ok(small) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts
                .headers
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(parts, Body::from(small))
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_that_takes_gzip_gets_it() {
        for (says, wanted) in [
            ("gzip, deflate, br", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0, br", false),
            ("gzip; q=0.0", false),
            ("identity", false),
            ("x-gzip-not", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(says));
            assert_eq!(taken(&headers), wanted, "{says}");
        }
        assert!(!taken(&HeaderMap::new()));
    }
}
