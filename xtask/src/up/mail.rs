//! The mail of a cluster on this machine: a server on loopback that takes every mail and lays it
//! into a folder, where it can be read. It is this program itself, kept running as the others are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::layout;
use super::options::Options;
use super::supervise::{self, Process};
use super::undine::{text, undine};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 7025;
const NAME: &str = "mail-catcher";
/// No mail of ours is larger.
const LARGEST: u64 = 1 << 20;

/// Where the mails lie, one file each, in the order in which they came.
pub fn folder() -> PathBuf {
    layout::state("mail")
}

/// Keeps the catcher running and makes it the cluster's mail server, unless there is another one.
pub fn ensure(options: &Options) -> Result<()> {
    let program = Path::new(layout::RUNTIME).join("undine-supervisor");
    supervise::keep(&[Process {
        name: NAME.to_owned(),
        namespace: None,
        user: None,
        words: vec![program.display().to_string(), "catch-mail".to_owned()],
        environment: BTreeMap::new(),
        log: layout::target().join(format!("logs/{NAME}.log")),
    }])?;
    let known = undine(&["settings", "mail"])?;
    if !text(&known, "host").is_empty() {
        return Ok(());
    }
    let from = format!("Undine <panel@{}>", options.domain);
    let port = PORT.to_string();
    let words = [
        "settings",
        "mail",
        "--host",
        ADDRESS,
        "--port",
        &port,
        "--encryption",
        "none",
        "--from",
        &from,
    ];
    undine(&words).map(drop)
}

/// The catcher itself: `cargo xtask catch-mail`, started by the supervisor.
pub fn run(_: &[String]) -> Result<()> {
    fs::create_dir_all(folder())?;
    let listener = TcpListener::bind((ADDRESS, PORT))
        .with_context(|| format!("port {PORT} on {ADDRESS} cannot be had"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = talk(&stream, &folder()) {
                println!("a mail was not taken: {error:#}");
            }
        });
    }
    Ok(())
}

fn talk(stream: &TcpStream, folder: &Path) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut answers, mut lines) = (stream, BufReader::new(stream.take(LARGEST)));
    answers.write_all(b"220 mail-catcher ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let word = line.split_whitespace().next().unwrap_or_default();
        let answer = match word.to_uppercase().as_str() {
            "EHLO" => "250-mail-catcher\r\n250 8BITMIME",
            "DATA" => {
                answers.write_all(b"354 go on\r\n")?;
                keep(folder, &message(&mut lines)?)?;
                "250 kept"
            }
            "QUIT" => {
                answers.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            "STARTTLS" | "AUTH" => "502 not here",
            _ => "250 as you like",
        };
        answers.write_all(format!("{answer}\r\n").as_bytes())?;
    }
}

fn message(lines: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line)?;
        anyhow::ensure!(read > 0, "the mail ended before its end, or is too large");
        if line.trim_ascii_end() == b"." {
            return Ok(all);
        }
        all.extend(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// Writes a mail whole or not at all; only root reads it, for its link lets in.
fn keep(folder: &Path, mail: &[u8]) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let path = folder.join(format!("{}.eml", since.as_micros()));
    let partial = path.with_extension("partial");
    super::write_private(&partial, &String::from_utf8_lossy(mail))?;
    fs::rename(&partial, &path).with_context(|| format!("{} was not written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_kept_as_it_was_said() {
        let folder = std::env::temp_dir().join(format!("undine-mail-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = folder.clone();
        let server = thread::spawn(move || talk(&listener.accept().unwrap().0, &inside));
        let mut stream = TcpStream::connect(address).unwrap();
        let said = "EHLO panel\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
        stream.write_all(said.as_bytes()).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        server.join().unwrap().unwrap();
        assert!(heard.ends_with("250 kept\r\n221 bye\r\n"), "{heard}");
        let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
        let kept = fs::read_to_string(file.path()).unwrap();
        assert_eq!(kept, "Subject: x\r\n\r\n.dot\r\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
