//! A mail server on loopback: speaks SMTP, in the clear or over TLS, takes whatever it is given,
//! and keeps it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Caught {
    /// To whom, as the envelope says.
    pub to: Vec<String>,
    /// The whole message.
    pub text: String,
}

#[derive(Default)]
struct Kept {
    mails: Vec<Caught>,
    words: Vec<String>,
    clear: Vec<String>,
    refusal: Option<String>,
}

/// A name's certificate, signed by itself, and a server's side of TLS with it.
pub struct Certificate {
    /// What is to be trusted, in PEM.
    pub pem: String,
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// For a server of this name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let key = key.map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        Ok(Self {
            pem: made.cert.pem(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}

/// How its conversations are encrypted.
#[derive(Clone)]
enum Tls {
    Never,
    /// From `STARTTLS` on.
    Asked(TlsAcceptor),
    /// From the first byte.
    Always(TlsAcceptor),
}

/// The server; dropped, it ends.
pub struct Catcher {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
}

impl Drop for Catcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Catcher {
    /// Listens at a port of its own, in the clear.
    pub async fn start() -> std::io::Result<Self> {
        Self::with(Tls::Never).await
    }

    /// The same with TLS from `STARTTLS` on.
    pub async fn with_starttls(certificate: &Certificate) -> std::io::Result<Self> {
        Self::with(Tls::Asked(certificate.acceptor.clone())).await
    }

    /// The same with TLS from the first byte.
    pub async fn with_tls(certificate: &Certificate) -> std::io::Result<Self> {
        Self::with(Tls::Always(certificate.acceptor.clone())).await
    }

    async fn with(tls: Tls) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = kept.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    let _ = converse(stream, tls, &shared).await;
                });
            }
        });
        Ok(Self {
            address,
            kept,
            task,
        })
    }

    /// What it was given so far.
    pub fn mails(&self) -> Vec<Caught> {
        lock(&self.kept).mails.clone()
    }

    /// Every command that it heard.
    pub fn words(&self) -> Vec<String> {
        lock(&self.kept).words.clone()
    }

    /// Those that anybody on the network could hear.
    pub fn in_the_clear(&self) -> Vec<String> {
        lock(&self.kept).clear.clone()
    }

    /// From now on it answers every recipient with this line; none: it takes them.
    pub fn refuse(&self, line: Option<&str>) {
        lock(&self.kept).refusal = line.map(str::to_owned);
    }

    /// Waits until it has so many mails.
    ///
    /// # Panics
    /// After ten seconds.
    pub async fn wait_for(&self, count: usize) -> Vec<Caught> {
        let begun = Instant::now();
        loop {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{count} mails should have come: {mails:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(stream: TcpStream, tls: Tls, kept: &Mutex<Kept>) -> std::io::Result<()> {
    const GREETING: &[u8] = b"220 catcher ESMTP\r\n";
    match tls {
        Tls::Never | Tls::Asked(_) => {
            let mut stream = BufReader::new(stream);
            stream.write_all(GREETING).await?;
            let offers = matches!(tls, Tls::Asked(_));
            let asked = talk(&mut stream, Line::Clear { offers }, kept).await?;
            if let (Tls::Asked(acceptor), true) = (tls, asked) {
                // What somebody slipped in before the handshake is not part of it.
                let stream = acceptor.accept(stream.into_inner()).await?;
                talk(&mut BufReader::new(stream), Line::Secret, kept).await?;
            }
        }
        Tls::Always(acceptor) => {
            let mut stream = BufReader::new(acceptor.accept(stream).await?);
            stream.write_all(GREETING).await?;
            stream.flush().await?;
            talk(&mut stream, Line::Secret, kept).await?;
        }
    }
    Ok(())
}

/// Who can hear what is said.
#[derive(Clone, Copy)]
enum Line {
    /// Everybody; it may offer to go on over TLS.
    Clear { offers: bool },
    /// The two of us.
    Secret,
}

/// Until the other one leaves; true when they ask to go on over TLS.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    on: Line,
    kept: &Mutex<Kept>,
) -> std::io::Result<bool> {
    let offers = matches!(on, Line::Clear { offers: true });
    let mut to = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(false);
        }
        let line = line.trim_end().to_owned();
        let word = line.split(' ').next().unwrap_or_default().to_uppercase();
        note(&line, on, kept);
        let answer = match word.as_str() {
            "EHLO" if offers => "250-catcher\r\n250-8BITMIME\r\n250 STARTTLS".to_owned(),
            "EHLO" => "250-catcher\r\n250-8BITMIME\r\n250 AUTH PLAIN".to_owned(),
            "AUTH" => "235 welcome".to_owned(),
            "RCPT" => {
                let refusal = lock(kept).refusal.clone();
                to.push(between(&line));
                refusal.unwrap_or_else(|| "250 taken".to_owned())
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                stream.flush().await?;
                let text = message(stream).await?;
                let to = std::mem::take(&mut to);
                lock(kept).mails.push(Caught { to, text });
                "250 kept".to_owned()
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                stream.flush().await?;
                return Ok(false);
            }
            "STARTTLS" if offers => {
                stream.write_all(b"220 go on\r\n").await?;
                return Ok(true);
            }
            "STARTTLS" => "454 not here".to_owned(),
            _ => "250 as you like".to_owned(),
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        stream.flush().await?;
    }
}

fn note(line: &str, on: Line, kept: &Mutex<Kept>) {
    let mut kept = lock(kept);
    kept.words.push(line.to_owned());
    if matches!(on, Line::Clear { .. }) {
        kept.clear.push(line.to_owned());
    }
}

fn between(line: &str) -> String {
    let address = line.split('<').nth(1).unwrap_or_default();
    address.split('>').next().unwrap_or_default().to_owned()
}

async fn message<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "." => return Ok(text),
            _ => text.push_str(line.strip_prefix('.').unwrap_or(&line)),
        }
    }
}
