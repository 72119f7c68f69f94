//! A small NBD client for local sockets: what copying between replicas needs and no more.
//!
//! One request is under way at a time. Every request has a deadline: a server that hangs is an
//! error, and the connection is of no use afterwards. Encryption is [`crate::relay`]'s matter.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::storage::NbdAddress;

mod handshake;
#[cfg(test)]
mod tests;

/// The largest piece read or written at once; every server takes it.
pub const PIECE_BYTES: u32 = 1 << 20;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;
/// The longest stretch that is asked about at once: a multiple of every block size.
const STATUS_BYTES: u64 = 1 << 30;
const MAGIC: &[u8; 8] = b"NBDMAGIC";

/// What a server can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    WriteZeroes = 6,
    BlockStatus = 7,
}

/// A stretch of a disk with one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// The context's flags: for a bitmap 1 is *written*, for allocation 2 is *reads as zeros*.
    pub flags: u32,
}

/// A connection to one export.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    size: u64,
    context: Option<u32>,
    cookie: u64,
    deadline: Duration,
}

impl Client {
    /// Connects to the export `name` at `socket`, and asks for the metadata context `context`.
    pub async fn connect(
        socket: &Path,
        name: &str,
        context: Option<&str>,
        deadline: Duration,
    ) -> io::Result<Self> {
        let connecting = async {
            let mut stream = UnixStream::connect(socket).await?;
            let agreed = handshake::negotiate(&mut stream, name, context).await?;
            Ok::<_, io::Error>((stream, agreed))
        };
        let (stream, agreed) = within(deadline, connecting).await?;
        if context.is_some() && agreed.context.is_none() {
            return Err(wrong("the export does not know the metadata asked for"));
        }
        Ok(Self {
            stream,
            size: agreed.size,
            context: agreed.context,
            cookie: 0,
            deadline,
        })
    }

    /// The export's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset` on.
    pub async fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        within(self.deadline, async {
            let length = length_of(buffer)?;
            self.ask(Command::Read, offset, length, &[]).await?;
            let mut got = 0;
            while let Some(chunk) = self.chunk(offset, Some(&mut *buffer)).await? {
                got += chunk.bytes;
                if chunk.last {
                    break;
                }
            }
            if got == u64::from(length) {
                Ok(())
            } else {
                Err(wrong("an answer is shorter than what was read"))
            }
        })
        .await
    }

    /// Writes `data` at `offset`.
    pub async fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let length = length_of(data)?;
        self.order(Command::Write, offset, length, data).await
    }

    /// Makes a stretch read as zeros.
    pub async fn zero(&mut self, offset: u64, length: u32) -> io::Result<()> {
        self.order(Command::WriteZeroes, offset, length, &[]).await
    }

    /// On return everything written before is on stable storage behind the export.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.order(Command::Flush, 0, 0, &[]).await
    }

    /// The same with time of its own: much may have been written before.
    pub async fn flush_within(&mut self, deadline: Duration) -> io::Result<()> {
        let usual = std::mem::replace(&mut self.deadline, deadline);
        let flushed = self.flush().await;
        self.deadline = usual;
        flushed
    }

    /// The context's extents over the whole disk, in order; neighbours of one status are one.
    pub async fn extents(&mut self) -> io::Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = 0;
        while at < self.size {
            let length = (self.size - at).min(STATUS_BYTES);
            let length = u32::try_from(length).map_err(io::Error::other)?;
            let found = within(self.deadline, self.status(at, length)).await?;
            for (bytes, flags) in found {
                let bytes = bytes.min(self.size - at);
                match extents.last_mut() {
                    Some(last) if last.flags == flags => last.length += bytes,
                    _ => extents.push(Extent {
                        offset: at,
                        length: bytes,
                        flags,
                    }),
                }
                at += bytes;
            }
        }
        Ok(extents)
    }

    async fn status(&mut self, offset: u64, length: u32) -> io::Result<Vec<(u64, u32)>> {
        self.ask(Command::BlockStatus, offset, length, &[]).await?;
        let mut found = Vec::new();
        while let Some(chunk) = self.chunk(offset, None).await? {
            found.extend(chunk.extents);
            if chunk.last {
                break;
            }
        }
        let total: u64 = found.iter().map(|(bytes, _)| bytes).sum();
        if total == 0 {
            return Err(wrong("no status was told"));
        }
        Ok(found)
    }

    async fn order(
        &mut self,
        command: Command,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> io::Result<()> {
        within(self.deadline, async {
            self.ask(command, offset, length, data).await?;
            while let Some(chunk) = self.chunk(offset, None).await? {
                if chunk.last {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    async fn ask(
        &mut self,
        command: Command,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> io::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request).await
    }

    /// One piece of an answer; `None` at the end of an answer without pieces.
    async fn chunk(&mut self, offset: u64, buffer: Option<&mut [u8]>) -> io::Result<Option<Chunk>> {
        let magic = self.stream.read_u32().await?;
        if magic == SIMPLE_REPLY {
            let error = self.stream.read_u32().await?;
            self.own_answer().await?;
            return if error == 0 && buffer.is_none() {
                Ok(None)
            } else {
                Err(refused(error))
            };
        }
        if magic != STRUCTURED_REPLY {
            return Err(wrong("an answer makes no sense"));
        }
        let flags = self.stream.read_u16().await?;
        let kind = self.stream.read_u16().await?;
        self.own_answer().await?;
        let length = self.stream.read_u32().await?;
        let mut chunk = Chunk {
            last: flags & FLAG_DONE != 0,
            bytes: 0,
            extents: Vec::new(),
        };
        match (kind, buffer) {
            (CHUNK_NONE, _) if length == 0 => {}
            (CHUNK_DATA, Some(buffer)) if length > 8 => {
                chunk.bytes = self.data(offset, u64::from(length) - 8, buffer).await?;
            }
            (CHUNK_HOLE, Some(buffer)) if length == 12 => {
                let at = self.stream.read_u64().await?;
                let bytes = u64::from(self.stream.read_u32().await?);
                part(buffer, offset, at, bytes)?.fill(0);
                chunk.bytes = bytes;
            }
            (CHUNK_STATUS, _) if length >= 12 => chunk.extents = self.told(length).await?,
            (kind, _) if kind & CHUNK_ERROR != 0 && (6..4096).contains(&length) => {
                let error = self.stream.read_u32().await?;
                let mut words = vec![0; length as usize - 4];
                self.stream.read_exact(&mut words).await?;
                return Err(refused(error));
            }
            _ => return Err(wrong("an answer holds something unexpected")),
        }
        Ok(Some(chunk))
    }

    async fn own_answer(&mut self) -> io::Result<()> {
        if self.stream.read_u64().await? == self.cookie {
            return Ok(());
        }
        Err(wrong("an answer is to another request"))
    }

    async fn data(&mut self, offset: u64, bytes: u64, buffer: &mut [u8]) -> io::Result<u64> {
        let at = self.stream.read_u64().await?;
        let place = part(buffer, offset, at, bytes)?;
        self.stream.read_exact(place).await?;
        Ok(bytes)
    }

    async fn told(&mut self, length: u32) -> io::Result<Vec<(u64, u32)>> {
        if length > 16 << 20 || length % 8 != 4 {
            return Err(wrong("a status has an odd length"));
        }
        let context = self.stream.read_u32().await?;
        let mut raw = vec![0; length as usize - 4];
        self.stream.read_exact(&mut raw).await?;
        if Some(context) != self.context {
            return Ok(Vec::new());
        }
        let number = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let pairs = raw.chunks_exact(8);
        Ok(pairs
            .map(|pair| (u64::from(number(&pair[..4])), number(&pair[4..])))
            .collect())
    }
}

struct Chunk {
    last: bool,
    bytes: u64,
    extents: Vec<(u64, u32)>,
}

/// The place of `bytes` at the disk's offset `at` inside a buffer that begins at `offset`.
fn part(buffer: &mut [u8], offset: u64, at: u64, bytes: u64) -> io::Result<&mut [u8]> {
    let outside = || wrong("an answer lies outside of what was asked");
    let from = at.checked_sub(offset).ok_or_else(outside)?;
    let to = from.checked_add(bytes).ok_or_else(outside)?;
    let (from, to) = (usize::try_from(from), usize::try_from(to));
    let (Ok(from), Ok(to)) = (from, to) else {
        return Err(outside());
    };
    buffer.get_mut(from..to).ok_or_else(outside)
}

fn length_of(buffer: &[u8]) -> io::Result<u32> {
    let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    if length > PIECE_BYTES {
        return Err(wrong("a piece is too large"));
    }
    Ok(length)
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// NBD's error numbers are the system's.
fn refused(error: u32) -> io::Error {
    i32::try_from(error).map_or_else(io::Error::other, io::Error::from_raw_os_error)
}

async fn within<T>(deadline: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Sees that an NBD server greets at this address: a daemon that is frozen, or a host that is
/// gone, does not.
pub async fn greets(address: &NbdAddress, deadline: Duration) -> io::Result<()> {
    within(deadline, async {
        match address {
            NbdAddress::Unix(path) => greeting(UnixStream::connect(path).await?).await,
            NbdAddress::Inet(address) => greeting(TcpStream::connect(address).await?).await,
        }
    })
    .await
}

async fn greeting(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if &magic == MAGIC {
        return Ok(());
    }
    Err(wrong("it does not speak NBD"))
}
