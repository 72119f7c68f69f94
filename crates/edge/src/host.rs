//! Which host name a request is for.

use http::header::HOST;
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};

/// The longest name that DNS allows, as text.
const LONGEST: usize = 253;

/// The host name that a request names: HTTP/2's `:authority`, an absolute target, or `Host`, in
/// lower case and without its port. None when it names none, or none that could be a host.
///
/// That the three agree where several are given was checked when the request was read.
pub fn host(request: &RequestHeader) -> Option<String> {
    host_of(std::str::from_utf8(authority(request)?).ok()?)
}

/// The same with its port, as the visitor sent it.
pub fn authority(request: &RequestHeader) -> Option<&[u8]> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.as_str().as_bytes());
    }
    raw_target_authority(request.raw_path())
        .authority()
        .or_else(|| request.headers.get(HOST).map(http::HeaderValue::as_bytes))
}

/// The path and query of a request, whatever form its target has.
pub fn path_and_query(request: &RequestHeader) -> &[u8] {
    let path = match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { path_and_query, .. } => path_and_query,
        _ => request.raw_path(),
    };
    if path.is_empty() { b"/" } else { path }
}

fn host_of(authority: &str) -> Option<String> {
    if authority.starts_with('[') {
        return address(authority);
    }
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = !name.is_empty()
        && name.len() <= LONGEST
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    (fits && is_port(port)).then(|| name.to_ascii_lowercase())
}

/// An IPv6 address in brackets: no site has such a name, but it is a proper host.
fn address(authority: &str) -> Option<String> {
    let (inner, port) = authority.strip_prefix('[')?.split_once(']')?;
    let address: std::net::Ipv6Addr = inner.parse().ok()?;
    let port = if port.is_empty() {
        port
    } else {
        port.strip_prefix(':')?
    };
    is_port(port).then(|| format!("[{address}]"))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_its_case_and_its_last_dot() {
        for text in [
            "example.org",
            "Example.ORG",
            "example.org:8080",
            "example.org.:80",
        ] {
            assert_eq!(host_of(text).as_deref(), Some("example.org"), "{text}");
        }
        assert_eq!(host_of("[::1]:80").as_deref(), Some("[::1]"));
    }

    #[test]
    fn what_cannot_be_a_host_is_none() {
        let long = "a".repeat(254);
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a/b",
            "exämple.org",
            "a:b",
            "a:1:2",
            "[::1",
            "[x]",
            "[::1]x",
            "a:123456",
            "%41",
            long.as_str(),
        ] {
            assert_eq!(host_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_absolute_target_says_host_and_path() {
        let request = RequestHeader::build("GET", b"http://A.example:80/x?y=1", None).unwrap();
        assert_eq!(host(&request).as_deref(), Some("a.example"));
        assert_eq!(path_and_query(&request), b"/x?y=1");
        let bare = RequestHeader::build("GET", b"http://a.example", None).unwrap();
        assert_eq!(path_and_query(&bare), b"/");
    }
}
