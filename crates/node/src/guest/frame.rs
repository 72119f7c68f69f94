//! Frames on the virtio-serial port: a big-endian length, one byte of kind, the payload.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use undine_api::guest::MAX_PAYLOAD;

/// Writes one frame.
///
/// # Errors
/// The channel is closed, or the payload too large for a frame.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    if payload.len() > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this does not fit into a frame",
        ));
    }
    let length = u32::try_from(payload.len() + 1).map_err(io::Error::other)?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    to.write_all(&head).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Reads one frame: its kind and payload.
///
/// # Errors
/// The channel is closed, or what arrives is no frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let length = from.read_u32().await? as usize;
    if length == 0 || length > MAX_PAYLOAD + 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the agent sent a frame of {length} bytes"),
        ));
    }
    let kind = from.read_u8().await?;
    let mut payload = vec![0; length - 1];
    from.read_exact(&mut payload).await?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_the_wire() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let sending = async { write(&mut near, 1, b"hello").await.unwrap() };
        let ((), read) = tokio::join!(sending, read(&mut far));
        assert_eq!(read.unwrap(), (1, b"hello".to_vec()));
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused_before_any_memory_is_taken() {
        for head in [[0, 0, 0, 0, 0], [255, 255, 255, 255, 0]] {
            let error = read(&mut &head[..]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let large = vec![0; MAX_PAYLOAD + 1];
        assert!(write(&mut Vec::new(), 0, &large).await.is_err());
    }
}
