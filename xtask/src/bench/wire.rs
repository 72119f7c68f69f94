//! HTTP/1.1 over plain TCP, one connection a request: what a bench measures is the other side.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// A request.
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// The host that it asks for.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// What it sends along.
    pub body: &'a [u8],
}

/// An answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Status line and headers, as they came.
    head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the first header of this name says, in any letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends a request and reads the whole answer.
pub fn ask(address: SocketAddr, request: &Request, patience: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
        .with_context(|| format!("nobody listens at {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut bytes = head(request).into_bytes();
    bytes.extend_from_slice(request.body);
    stream.write_all(&bytes)?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("{address} broke off"))?;
    answer(&bytes)
}

/// A visitor's GET.
pub fn get(address: SocketAddr, host: &str, path: &str, patience: Duration) -> Result<Answer> {
    let request = Request {
        method: "GET",
        host,
        path,
        headers: &[],
        body: &[],
    };
    ask(address, &request, patience)
}

fn head(request: &Request) -> String {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        request.method, request.path, request.host
    );
    for (name, value) in request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if request.method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    head
}

fn answer(bytes: &[u8]) -> Result<Answer> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no whole answer came")?;
    let said = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let head = said.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = &bytes[end + 4..];
    let chunked = head
        .lines()
        .any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    Ok(Answer {
        status: status.context("no status came")?,
        head: said,
        body: if chunked {
            joined(body).context("the answer broke off")?
        } else {
            body.to_vec()
        },
    })
}

/// The content of a chunked body.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_plain_and_chunked() {
        let plain = answer(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!((plain.status, plain.text().as_str()), (202, "hi"));
        assert_eq!(plain.header("content-length"), Some("2"));
        assert_eq!(plain.header("content"), None);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(answer(chunked).unwrap().text(), "abcde");
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        for half in [
            &b"HTTP/1.1 200 OK\r\nContent-"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        ] {
            assert!(answer(half).is_err());
        }
    }

    #[test]
    fn only_what_sends_something_tells_a_length() {
        let mut request = Request {
            method: "POST",
            host: "a",
            path: "/x",
            headers: &[("If-Match", "*")],
            body: b"{}",
        };
        assert!(head(&request).ends_with("If-Match: *\r\nContent-Length: 2\r\n\r\n"));
        request.method = "GET";
        assert!(!head(&request).contains("Length"));
    }
}
