//! What a request says when it is passed on: who asked and how, in words that only we say.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::host;

/// What is told about a visitor.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// Its address, as the connection shows it.
    pub client: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The request's id.
    pub request_id: &'a str,
}

/// Takes out whatever a visitor could pretend, and says what is true instead.
pub fn prepare(request: &mut RequestHeader, visitor: Visitor<'_>) -> Result<()> {
    let pretended: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| is_ours(name.as_str()))
        .cloned()
        .collect();
    for name in &pretended {
        request.remove_header(name);
    }
    let asked = host::authority(request).and_then(|text| HeaderValue::from_bytes(text).ok());
    to_origin_form(request)?;
    if let Some(asked) = asked {
        // Told by the name that it was routed by, whatever else the head says.
        request.insert_header(HOST, asked.clone())?;
        request.insert_header("X-Forwarded-Host", asked)?;
    }
    if let Some(client) = visitor.client {
        request.insert_header("X-Forwarded-For", client.to_string())?;
    }
    let scheme = if visitor.secure { "https" } else { "http" };
    request.insert_header("X-Forwarded-Proto", scheme)?;
    request.insert_header("X-Request-Id", visitor.request_id)?;
    Ok(())
}

/// Takes out what is meant for us alone: the fields of one hop, and those that `Connection` names
/// (RFC 9110 §7.6.1).
pub fn strip_hops(request: &mut RequestHeader) {
    let named: Vec<HeaderName> = request
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in &named {
        request.remove_header(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ] {
        request.remove_header(name);
    }
}

/// Names that only an edge may say. An underscore counts as a dash: CGI cannot tell them apart.
fn is_ours(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-")
        || name.starts_with("x-undine-")
        || matches!(
            name.as_str(),
            // `Proxy` becomes HTTP_PROXY in CGI, which programs take for their own setting.
            "forwarded" | "x-real-ip" | "x-client-ip" | "true-client-ip" | "x-request-id" | "proxy"
        )
}

/// `GET http://host/path` becomes `GET /path`: servers behind us expect no other form.
fn to_origin_form(request: &mut RequestHeader) -> Result<()> {
    let path = host::path_and_query(request);
    if request.uri.authority().is_none() && path != request.raw_path() {
        let path = path.to_vec();
        request.set_raw_path(&path)?;
    }
    Ok(())
}

/// Does this path mean the part of control that only programs of the cluster may call? Our
/// certificate would open it to any visitor of the panel, so such requests end at the edge.
pub fn is_internal(path_and_query: &[u8]) -> bool {
    let end = path_and_query.iter().position(|byte| *byte == b'?');
    let mut path = path_and_query[..end.unwrap_or(path_and_query.len())].to_vec();
    // Decoded until nothing changes: nobody down the line may see more in it than we do.
    loop {
        let decoded = decode(&path);
        if decoded == path {
            break;
        }
        path = decoded;
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
        .first()
        .is_some_and(|name| name.eq_ignore_ascii_case(b"internal"))
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let byte = match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                u8::try_from(high * 16 + low).unwrap_or(b'%')
            }
            (byte, _, _) => byte,
        };
        decoded.push(byte);
        at += 1;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISITOR: Visitor<'_> = Visitor {
        client: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
        secure: true,
        request_id: "r-1",
    };

    fn prepared(path: &[u8], headers: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", path, None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        prepare(&mut request, VISITOR).unwrap();
        request
    }

    fn all<'a>(request: &'a RequestHeader, name: &str) -> Vec<&'a str> {
        let values = request.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn only_our_word_about_the_visitor_is_passed_on() {
        let request = prepared(
            b"/",
            &[
                ("Host", "a.test:8443"),
                ("X-Forwarded-For", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("X_Forwarded_For", "9.9.9.9"),
                ("X-Forwarded-Proto", "http"),
                ("X-Forwarded-Port", "1"),
                ("Forwarded", "for=1.2.3.4"),
                ("X-Real-IP", "1.2.3.4"),
                ("X-Undine-Role", "control"),
                ("Proxy", "http://evil.test"),
                ("X-Request-Id", "mine"),
                ("X-Custom", "stays"),
            ],
        );
        assert_eq!(all(&request, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&request, "x-forwarded-host"), ["a.test:8443"]);
        assert_eq!(all(&request, "x-request-id"), ["r-1"]);
        assert_eq!(all(&request, "host"), ["a.test:8443"]);
        assert_eq!(all(&request, "x-custom"), ["stays"]);
        assert_eq!(request.headers.len(), 6, "{:?}", request.headers);
    }

    #[test]
    fn what_one_hop_says_to_the_next_goes_no_further() {
        let mut request = RequestHeader::build("GET", b"http://a.test/", None).unwrap();
        for (name, value) in [
            ("Host", "b.test"),
            ("Connection", "close, X-Secret"),
            ("Connection", "Cookie2 , host"),
            ("X-Secret", "1"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Proxy-Authorization", "Basic Zm9v"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABk"),
            ("Authorization", "Bearer x"),
        ] {
            request.append_header(name, value).unwrap();
        }
        strip_hops(&mut request);
        prepare(&mut request, VISITOR).unwrap();
        assert_eq!(
            all(&request, "host"),
            ["a.test"],
            "the one it was routed by"
        );
        assert_eq!(all(&request, "authorization"), ["Bearer x"]);
        for gone in ["connection", "x-secret", "keep-alive", "te", "upgrade"] {
            assert!(all(&request, gone).is_empty(), "{gone}");
        }
        assert!(all(&request, "proxy-authorization").is_empty());
        assert!(all(&request, "http2-settings").is_empty());
    }

    #[test]
    fn an_absolute_target_becomes_a_path() {
        let request = prepared(b"http://a.test/x?y", &[]);
        assert_eq!(request.raw_path(), b"/x?y");
        assert_eq!(all(&request, "host"), ["a.test"]);
    }

    #[test]
    fn the_internal_part_is_seen_through_every_disguise() {
        for path in [
            "/internal",
            "/internal/v1/routes?after=0",
            "//internal/v1",
            "/./internal",
            "/x/../internal/v1",
            "/INTERNAL/v1",
            "/%69nternal/v1",
            "/%2569nternal/v1",
            "/\\internal",
            "/%2finternal/v1",
            "/..%2finternal",
        ] {
            assert!(is_internal(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "/v1/sites",
            "/internals",
            "/v1/internal",
            "/?internal",
            "/%",
        ] {
            assert!(!is_internal(path.as_bytes()), "{path}");
        }
    }
}
