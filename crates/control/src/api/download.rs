//! A file as an answer, whatever it is called and holds.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::app::files::Download;

/// A file as an answer: never shown as a page, whatever it holds.
pub fn sent(file: Download) -> Response {
    let mut headers = HeaderMap::new();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "application/octet-stream");
    set(header::CONTENT_LENGTH, &file.size.to_string());
    set(header::CONTENT_DISPOSITION, &disposition(&file.name));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CACHE_CONTROL, "no-store");
    set(header::ETAG, &format!("\"{}\"", file.mark));
    (headers, Body::from_stream(file.stream())).into_response()
}

/// A download's name (RFC 6266): a plain one for programs that know no better, and the real one in
/// percent signs, so that no letter of it can end the header or begin another one.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || "-_. ()".contains(c) => c,
            _ => '_',
        })
        .collect();
    let mut coded = String::new();
    for byte in name.bytes() {
        match byte {
            // The `attr-char` of RFC 8187.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => coded.push(char::from(byte)),
            b'!' | b'#' | b'$' | b'&' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                coded.push(char::from(byte));
            }
            other => coded.push_str(&format!("%{other:02X}")),
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_header() {
        for (name, wanted) in [
            (
                "a b.txt",
                "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt",
            ),
            (
                "\"; x=\"\r\nset-cookie: a=b",
                "attachment; filename=\"__ x____set-cookie_ a_b\"; filename*=UTF-8''%22%3B%20x%3D%22%0D%0Aset-cookie%3A%20a%3Db",
            ),
            (
                "Grüße.txt",
                "attachment; filename=\"Gr__e.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt",
            ),
            (
                "%00\\/",
                "attachment; filename=\"_00__\"; filename*=UTF-8''%2500%5C%2F",
            ),
        ] {
            assert_eq!(disposition(name), wanted);
            assert!(HeaderValue::from_str(&disposition(name)).is_ok());
        }
    }
}
