//! A conversation with the agent inside a server, over the unix socket of its virtio-serial port.
//!
//! One question at a time, each with a deadline. After a deadline or a broken frame nobody knows
//! what is still on its way: the connection is closed (the guest sees that) and the next question
//! opens a new one with `hello`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use undine_api::guest::{
    Answer, Ask, DATA, Failure, HelloAnswer, JSON, MAX_PAYLOAD, Reply, Request, Upload,
};

use super::frame;

/// How long one `hello` may wait before the connection is made anew.
const HELLO: Duration = Duration::from_secs(3);

/// The tail of an older session ends after a few tries; what makes no sense for longer is an agent
/// of another version.
const NONSENSE: u32 = 20;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It said no, and why.
    #[error("{0}")]
    Refused(Failure),
    /// It did not answer in time.
    #[error("the agent inside the server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The channel broke.
    #[error("the channel to the agent inside the server broke")]
    Channel(#[from] io::Error),
    /// It answered something that the protocol does not know.
    #[error(
        "the agent inside the server answered something that this node does not understand; is its image of another version?"
    )]
    Unexpected,
    /// The question does not fit into a frame.
    #[error("the question has {0} bytes; at most {most} fit", most = MAX_PAYLOAD)]
    TooLarge(usize),
    /// What was uploaded broke off or was longer than announced.
    #[error("the upload broke off: {0}")]
    Body(String),
}

/// The agent of one server.
#[derive(Debug)]
pub struct Guest {
    socket: PathBuf,
    /// Absent while an exchange is under way: a caller that goes away in the middle of one leaves
    /// the channel closed, not out of step.
    channel: Option<Channel>,
    next: u64,
}

#[derive(Debug)]
struct Channel(UnixStream);

impl Channel {
    /// Reads until the reply to this question; replies to older ones are dropped.
    async fn reply(&mut self, id: u64) -> Result<Answer, GuestError> {
        loop {
            let (kind, payload) = frame::read(&mut self.0).await?;
            if kind != JSON {
                return Err(GuestError::Unexpected);
            }
            let reply: Reply =
                serde_json::from_slice(&payload).map_err(|_| GuestError::Unexpected)?;
            if reply.id == id {
                return reply.result.map_err(GuestError::Refused);
            }
            tracing::debug!(id = reply.id, "a late reply was dropped");
        }
    }

    async fn stream<E: std::fmt::Display>(
        &mut self,
        size: u64,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), GuestError> {
        let mut sent = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| GuestError::Body(error.to_string()))?;
            sent += piece.len() as u64;
            if sent > size {
                return Err(GuestError::Body(format!(
                    "longer than the {size} bytes announced"
                )));
            }
            for part in piece.chunks(MAX_PAYLOAD) {
                frame::write(&mut self.0, DATA, part).await?;
            }
        }
        if sent < size {
            return Err(GuestError::Body(format!(
                "it ended after {sent} of {size} bytes"
            )));
        }
        Ok(frame::write(&mut self.0, DATA, &[]).await?)
    }
}

impl Guest {
    /// The agent behind this socket; nothing is opened yet.
    pub fn new(socket: PathBuf) -> Self {
        // Numbers differ from session to session, so that a late reply to an earlier one is not
        // taken for an answer.
        Self {
            socket,
            channel: None,
            next: rand::random::<u32>().into(),
        }
    }

    /// Says hello until the agent answers.
    ///
    /// # Errors
    /// It did not answer within the deadline.
    pub async fn hello(&mut self, deadline: Duration) -> Result<HelloAnswer, GuestError> {
        let until = Instant::now() + deadline;
        let mut nonsense = 0;
        loop {
            match timeout_at(until, timeout(HELLO, self.open())).await {
                Err(_) => return Err(GuestError::Silent(deadline)),
                Ok(Ok(Err(GuestError::Unexpected))) if nonsense == NONSENSE => {
                    return Err(GuestError::Unexpected);
                }
                Ok(Ok(Ok((channel, answer)))) => {
                    self.channel = Some(channel);
                    return Ok(answer);
                }
                Ok(Ok(Err(GuestError::Refused(failure)))) => {
                    return Err(GuestError::Refused(failure));
                }
                // No socket yet, or the tail of an older session: try again until the deadline.
                Ok(Ok(Err(error))) => {
                    nonsense += u32::from(matches!(error, GuestError::Unexpected));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(Err(_)) => {}
            }
        }
    }

    /// Closes the channel; the next question opens it again.
    pub fn close(&mut self) {
        self.channel = None;
    }

    /// Asks one question.
    ///
    /// # Errors
    /// The agent said no, or nothing, or the channel broke.
    pub async fn ask(&mut self, ask: Ask, deadline: Duration) -> Result<Answer, GuestError> {
        let (id, payload) = self.request(ask)?;
        self.within(deadline, async |channel: &mut Channel| {
            frame::write(&mut channel.0, JSON, &payload).await?;
            channel.reply(id).await
        })
        .await
    }

    /// Sends an archive after its description. The guest's reading speed is the body's speed.
    ///
    /// # Errors
    /// The agent said no, or nothing, the channel broke, or the body did.
    pub async fn upload<E: std::fmt::Display>(
        &mut self,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        deadline: Duration,
    ) -> Result<Answer, GuestError> {
        let size = upload.size;
        let (id, payload) = self.request(Ask::Upload(upload))?;
        self.within(deadline, async |channel: &mut Channel| {
            frame::write(&mut channel.0, JSON, &payload).await?;
            channel.stream(size, body).await?;
            channel.reply(id).await
        })
        .await
    }

    fn request(&mut self, ask: Ask) -> Result<(u64, Vec<u8>), GuestError> {
        self.next += 1;
        let payload = serde_json::to_vec(&Request { id: self.next, ask })
            .map_err(|error| GuestError::Channel(error.into()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(GuestError::TooLarge(payload.len()));
        }
        Ok((self.next, payload))
    }

    /// Runs one exchange; any end but an answer or a refusal leaves the channel closed.
    async fn within(
        &mut self,
        deadline: Duration,
        exchange: impl AsyncFnOnce(&mut Channel) -> Result<Answer, GuestError>,
    ) -> Result<Answer, GuestError> {
        let run = async {
            let mut channel = match self.channel.take() {
                Some(channel) => channel,
                None => self.open().await?.0,
            };
            let result = exchange(&mut channel).await;
            if matches!(result, Ok(_) | Err(GuestError::Refused(_))) {
                self.channel = Some(channel);
            }
            result
        };
        timeout(deadline, run)
            .await
            .unwrap_or(Err(GuestError::Silent(deadline)))
    }

    async fn open(&mut self) -> Result<(Channel, HelloAnswer), GuestError> {
        self.channel = None;
        let mut channel = Channel(UnixStream::connect(&self.socket).await?);
        let (id, payload) = self.request(Ask::Hello)?;
        frame::write(&mut channel.0, JSON, &payload).await?;
        match channel.reply(id).await? {
            Answer::Hello(answer) => Ok((channel, answer)),
            _ => Err(GuestError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests;
