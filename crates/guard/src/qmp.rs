//! Just enough of QMP to stop and continue a VM: lines of JSON, one question at a time. A crate of
//! ours does more; the guard depends on as little as possible.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// No answer that is asked for here comes near this.
const LINE_LIMIT: u64 = 1 << 20;

/// How a VM stands, as far as the guard cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Running,
    /// It was stopped by command.
    Paused,
    /// Anything else, in QEMU's word: `io-error`, `inmigrate`, `prelaunch` …
    Other(String),
}

/// An open monitor. Closing it, at any moment, leaves the VM as it is.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
    process: i32,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    desc: String,
}

impl Monitor {
    /// Opens it. Sets no deadline: the caller does, for this and all that follows.
    ///
    /// # Errors
    /// Nobody listens, or it is no QEMU.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        // Whoever made the socket listen: QEMU itself.
        let process = stream.peer_cred()?.pid().unwrap_or(0);
        let mut monitor = Self {
            stream: BufReader::new(stream),
            process,
        };
        let first = monitor.line().await?;
        if first.greeting.is_none() {
            return Err(io::Error::other("the greeting is not QEMU's"));
        }
        monitor.ask("qmp_capabilities").await?;
        Ok(monitor)
    }

    /// The number of QEMU's process.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// How the VM stands.
    ///
    /// # Errors
    /// QEMU went away, or answered something odd.
    pub async fn state(&mut self) -> io::Result<RunState> {
        let answer = self.ask("query-status").await?;
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => Ok(RunState::Running),
            Some("paused") => Ok(RunState::Paused),
            Some(other) => Ok(RunState::Other(other.to_owned())),
            None => Err(io::Error::other("query-status told no status")),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// QEMU went away or said no.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.ask("stop").await.map(drop)
    }

    /// Continues it.
    ///
    /// # Errors
    /// QEMU went away or said no.
    pub async fn go_on(&mut self) -> io::Result<()> {
        self.ask("cont").await.map(drop)
    }

    async fn ask(&mut self, command: &str) -> io::Result<Value> {
        let line = format!("{{\"execute\":\"{command}\"}}\n");
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        loop {
            // Events come in between.
            let line = self.line().await?;
            if let Some(refused) = line.error {
                let said = refused.desc;
                return Err(io::Error::other(format!("{command} was refused: {said}")));
            }
            if let Some(value) = line.value {
                return Ok(value);
            }
        }
    }

    async fn line(&mut self) -> io::Result<Line> {
        let mut text = String::new();
        let mut limited = (&mut self.stream).take(LINE_LIMIT);
        limited.read_line(&mut text).await?;
        if !text.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}
