//! The first words between client and server: which export, and what is told about its blocks.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{MAGIC, wrong};

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const REPLY_MAGIC: u64 = 0x3_e889_0455_65a9;
/// Fixed newstyle, and no zeros after the old-style answer.
const CLIENT_FLAGS: u32 = 3;
const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED: u32 = 8;
const OPTION_CONTEXT: u32 = 10;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_CONTEXT: u32 = 4;
const REPLY_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
/// No reply to an option comes near this.
const REPLY_LIMIT_BYTES: u32 = 64 << 10;

/// What both sides agreed on.
pub(super) struct Agreed {
    pub size: u64,
    pub context: Option<u32>,
}

pub(super) async fn negotiate(
    stream: &mut UnixStream,
    name: &str,
    context: Option<&str>,
) -> io::Result<Agreed> {
    let mut magic = [0; 8];
    stream.read_exact(&mut magic).await?;
    if &magic != MAGIC || stream.read_u64().await? != OPTION_MAGIC {
        return Err(wrong("it does not speak NBD"));
    }
    let _flags = stream.read_u16().await?;
    stream.write_u32(CLIENT_FLAGS).await?;
    option(stream, OPTION_STRUCTURED, &[]).await?;
    finish(stream, OPTION_STRUCTURED, |_, _| {}).await?;
    let mut id = None;
    if let Some(context) = context {
        let mut data = text(name);
        data.extend(1_u32.to_be_bytes());
        data.extend(text(context));
        option(stream, OPTION_CONTEXT, &data).await?;
        finish(stream, OPTION_CONTEXT, |kind, data| {
            if kind == REPLY_CONTEXT && data.get(4..) == Some(context.as_bytes()) {
                id = number(data);
            }
        })
        .await?;
    }
    let mut data = text(name);
    data.extend(0_u16.to_be_bytes());
    option(stream, OPTION_GO, &data).await?;
    let mut size = None;
    finish(stream, OPTION_GO, |kind, data| {
        if kind == REPLY_INFO && data.len() >= 10 && data[..2] == INFO_EXPORT.to_be_bytes() {
            size = data[2..10].try_into().ok().map(u64::from_be_bytes);
        }
    })
    .await?;
    let size = size.ok_or_else(|| wrong("the export has no size"))?;
    Ok(Agreed { size, context: id })
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or_default();
    let mut data = length.to_be_bytes().to_vec();
    data.extend(text.as_bytes());
    data
}

fn number(data: &[u8]) -> Option<u32> {
    data.get(..4)?.try_into().ok().map(u32::from_be_bytes)
}

async fn option(stream: &mut UnixStream, option: u32, data: &[u8]) -> io::Result<()> {
    let mut line = OPTION_MAGIC.to_be_bytes().to_vec();
    line.extend(option.to_be_bytes());
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    line.extend(length.to_be_bytes());
    line.extend(data);
    stream.write_all(&line).await
}

/// Hears replies until the option is done.
async fn finish(
    stream: &mut UnixStream,
    option: u32,
    mut hear: impl FnMut(u32, &[u8]),
) -> io::Result<()> {
    loop {
        if stream.read_u64().await? != REPLY_MAGIC || stream.read_u32().await? != option {
            return Err(wrong("a reply to an option makes no sense"));
        }
        let kind = stream.read_u32().await?;
        let length = stream.read_u32().await?;
        if length > REPLY_LIMIT_BYTES {
            return Err(wrong("a reply to an option is too long"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        match kind {
            REPLY_ACK => return Ok(()),
            kind if kind & REPLY_ERROR != 0 => {
                let words = String::from_utf8_lossy(&data).into_owned();
                return Err(io::Error::other(format!(
                    "the server refuses the export: {words}"
                )));
            }
            kind => hear(kind, &data),
        }
    }
}
