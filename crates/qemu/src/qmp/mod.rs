//! A small QMP client: one unix socket, commands with a deadline each, events as a broadcast.
//!
//! One task reads, one writes, so that a caller who gives up in the middle of a command never
//! leaves half a line on the wire. Replies are matched by id; events may arrive between any two
//! lines. QEMU serves one client per monitor socket at a time: a second one waits for the first
//! to leave, which is why a VM has one monitor for the agent and one for the guard.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

mod error;
mod wire;

pub use error::QmpError;
pub use wire::{Event, Timestamp, Version};
use wire::{Greeting, Line};

/// How long a command may take when the caller names no deadline of its own.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// Events kept for a slow subscriber; one that falls further behind is told how many it missed.
const EVENT_BACKLOG: usize = 256;
/// No reply that we ask for comes near this; a peer that sends more is not QEMU.
const LINE_LIMIT_BYTES: u64 = 8 << 20;

type Reply = Result<Value, QmpError>;

/// A connection to one monitor. Cheap to clone; the socket closes with the last clone.
#[derive(Clone, Debug)]
pub struct Qmp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::UnboundedSender<String>,
    pending: Arc<Pending>,
    events: broadcast::Sender<Event>,
    closed: watch::Receiver<bool>,
    next_id: AtomicU64,
    version: Version,
    tasks: [AbortHandle; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Commands that wait for their reply, and whether the connection still lives.
#[derive(Debug, Default)]
struct Pending {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    closed: AtomicBool,
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Every waiting command learns that the connection is gone (their senders drop here).
    fn close(&self) {
        let mut waiting = self.lock();
        self.closed.store(true, Ordering::SeqCst);
        waiting.clear();
    }
}

/// Takes a command out of the waiting list however its caller leaves.
struct Slot<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}

impl Qmp {
    /// Connects, waiting up to `deadline` for the socket to exist and QEMU to greet.
    ///
    /// Dying here leaves nothing: the monitor is free again once our end closes.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<Self, QmpError> {
        let until = Instant::now() + deadline;
        let stream = loop {
            match timeout_at(until, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => break stream,
                Ok(Err(_)) if Instant::now() < until => sleep(Duration::from_millis(10)).await,
                Ok(Err(source)) => {
                    return Err(QmpError::Connect {
                        path: path.to_owned(),
                        source,
                    });
                }
                Err(_) => {
                    return Err(QmpError::NoGreeting {
                        path: path.to_owned(),
                    });
                }
            }
        };
        match timeout_at(until, Self::negotiate(stream)).await {
            Ok(result) => result,
            Err(_) => Err(QmpError::NoGreeting {
                path: path.to_owned(),
            }),
        }
    }

    /// Reads the greeting and leaves the negotiation mode.
    async fn negotiate(stream: UnixStream) -> Result<Self, QmpError> {
        let (read, write) = stream.into_split();
        let mut read = BufReader::new(read);
        let greeting = read_line(&mut read).await?.ok_or(QmpError::Closed)?;
        let greeting: Greeting =
            serde_json::from_str(&greeting).map_err(|_| QmpError::Protocol {
                what: "the greeting is not QMP's".into(),
            })?;
        let oob = greeting.qmp.capabilities.iter().any(|word| word == "oob");
        let wanted = if oob {
            json!({"enable": ["oob"]})
        } else {
            json!({})
        };
        let qmp = Self::start(read, write, greeting.qmp.version);
        qmp.execute("qmp_capabilities", wanted).await?;
        Ok(qmp)
    }

    fn start(read: BufReader<OwnedReadHalf>, write: OwnedWriteHalf, version: Version) -> Self {
        let (commands, queue) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let (closed_tx, closed) = watch::channel(false);
        let pending = Arc::new(Pending::default());
        let reader = Reader {
            pending: pending.clone(),
            events: events.clone(),
            closed: closed_tx,
        };
        let reading = tokio::spawn(reader.run(read)).abort_handle();
        let writing = tokio::spawn(write_all(write, queue)).abort_handle();
        let tasks = [reading, writing];
        let next_id = AtomicU64::new(1);
        Self {
            inner: Arc::new(Inner {
                commands,
                pending,
                events,
                closed,
                next_id,
                version,
                tasks,
            }),
        }
    }

    /// The version in QEMU's greeting.
    pub fn version(&self) -> &Version {
        &self.inner.version
    }

    /// Runs a command within [`DEFAULT_DEADLINE`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Reply {
        self.execute_within(command, arguments, DEFAULT_DEADLINE)
            .await
    }

    /// Runs a command; after `deadline` the answer no longer interests us, but QEMU may still
    /// carry the command out. Dropping the future has the same meaning.
    pub async fn execute_within(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Reply {
        self.run("execute", command, arguments, deadline).await
    }

    /// Runs a command past those that wait, even while QEMU's main loop hangs on a dead replica;
    /// few commands allow it, `yank` above all.
    pub async fn execute_out_of_band(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Reply {
        self.run("exec-oob", command, arguments, deadline).await
    }

    async fn run(&self, verb: &str, command: &str, arguments: Value, deadline: Duration) -> Reply {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.inner.pending.lock();
            if self.inner.pending.closed.load(Ordering::SeqCst) {
                return Err(QmpError::Closed);
            }
            waiting.insert(id, reply);
        }
        let _slot = Slot {
            pending: &self.inner.pending,
            id,
        };
        let line = wire::command(verb, id, command, &arguments);
        self.inner
            .commands
            .send(line)
            .map_err(|_| QmpError::Closed)?;
        match timeout(deadline, answer).await {
            Ok(Ok(Err(QmpError::Refused { class, desc, .. }))) => Err(QmpError::Refused {
                command: command.to_owned(),
                class,
                desc,
            }),
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(QmpError::Closed),
            Err(_) => Err(QmpError::TimedOut {
                command: command.to_owned(),
                after: deadline,
            }),
        }
    }

    /// Events from now on. Subscribe before asking for a state that the events change.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Whether QEMU's end is gone.
    pub fn is_closed(&self) -> bool {
        *self.inner.closed.borrow()
    }

    /// Resolves when QEMU's end is gone.
    pub async fn closed(&self) {
        // An error means that the reader ended: closed as well.
        let _ = self.inner.closed.clone().wait_for(|closed| *closed).await;
    }
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = queue.recv().await {
        if write.write_all(line.as_bytes()).await.is_err() {
            // The reader sees the same end and tells everyone who waits.
            return;
        }
    }
}

struct Reader {
    pending: Arc<Pending>,
    events: broadcast::Sender<Event>,
    closed: watch::Sender<bool>,
}

impl Reader {
    async fn run(self, mut read: BufReader<OwnedReadHalf>) {
        loop {
            match read_line(&mut read).await {
                Ok(Some(line)) => self.accept(&line),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the monitor connection ended badly");
                    break;
                }
            }
        }
        self.pending.close();
        self.closed.send_replace(true);
    }

    fn accept(&self, line: &str) {
        let (id, reply) = match wire::parse(line) {
            // Nobody listening is fine: events are also visible as states.
            Ok(Line::Event(event)) => return drop(self.events.send(event)),
            Ok(Line::Return { id, value }) => (id, Ok(value)),
            Ok(Line::Error { id, class, desc }) => (
                id,
                Err(QmpError::Refused {
                    command: String::new(),
                    class,
                    desc,
                }),
            ),
            Err(error) => return tracing::warn!(%error, "a line on the monitor made no sense"),
        };
        // No entry: its caller has given up.
        if let Some(waiting) = id.and_then(|id| self.pending.lock().remove(&id)) {
            let _ = waiting.send(reply);
        }
    }
}

/// One line, or `None` at the end of the stream. Not for use inside `select!`.
async fn read_line<R: AsyncRead + Unpin>(
    read: &mut BufReader<R>,
) -> Result<Option<String>, QmpError> {
    use tokio::io::AsyncReadExt;
    let mut line = Vec::new();
    let got = read
        .take(LINE_LIMIT_BYTES)
        .read_until(b'\n', &mut line)
        .await;
    match got {
        Ok(0) => Ok(None),
        Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_LIMIT_BYTES => {
            Err(QmpError::Protocol {
                what: "a line is longer than any that QEMU sends".into(),
            })
        }
        Ok(_) => String::from_utf8(line)
            .map(Some)
            .map_err(|_| QmpError::Protocol {
                what: "a line is not UTF-8".into(),
            }),
        // A reset is how a killed QEMU ends the conversation.
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
