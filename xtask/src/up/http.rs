//! A GET as a visitor's, over plain TCP: enough to see whether a page answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Status and body of an answer.
pub struct Page {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// One request.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<Page> {
    let patience = Duration::from_secs(30);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
        .with_context(|| format!("nobody listens at {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("{address} broke off"))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("no whole answer came")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Page {
        status: status.context("no status came")?,
        body: body.to_owned(),
    })
}

/// Asks again until the page answers 200 with this text, or the time is up.
pub fn wait_for(
    address: SocketAddr,
    host: &str,
    path: &str,
    expect: &str,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let trouble = match get(address, host, path) {
            Ok(page) if page.status == 200 && page.body.contains(expect) => return Ok(()),
            Ok(page) => format!("it answers {} without `{expect}`", page.status),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("http://{host}{path} at {address} does not answer as it should: {trouble}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
