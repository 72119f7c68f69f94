//! A mail server on loopback: speaks SMTP, takes whatever it is given, and keeps it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

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
    refusal: Option<String>,
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
    /// Listens at a port of its own.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = kept.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = talk(stream, &shared).await;
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

async fn talk(stream: TcpStream, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 catcher ESMTP\r\n").await?;
    let mut to = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        let word = line.split(' ').next().unwrap_or_default().to_uppercase();
        lock(kept).words.push(line.clone());
        let answer = match word.as_str() {
            "EHLO" => "250-catcher\r\n250-8BITMIME\r\n250 AUTH PLAIN".to_owned(),
            "AUTH" => "235 welcome".to_owned(),
            "RCPT" => {
                let refusal = lock(kept).refusal.clone();
                to.push(between(&line));
                refusal.unwrap_or_else(|| "250 taken".to_owned())
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let text = message(&mut stream).await?;
                let to = std::mem::take(&mut to);
                lock(kept).mails.push(Caught { to, text });
                "250 kept".to_owned()
            }
            "QUIT" => {
                return stream.write_all(b"221 bye\r\n").await;
            }
            "STARTTLS" => "454 not here".to_owned(),
            _ => "250 as you like".to_owned(),
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

fn between(line: &str) -> String {
    let address = line.split('<').nth(1).unwrap_or_default();
    address.split('>').next().unwrap_or_default().to_owned()
}

async fn message(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
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
