//! Templates of other nodes: asked for by name, resumed by range, checked before they count.

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::RANGE;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use undine_api::internal::Role;
use undine_api::node::{TEMPLATE_SHA256, TEMPLATE_SIZE, TemplatePeer};
use undine_link::{Credentials, Method, PeerClient};

use crate::problems::chain;

/// A piece must come within this time, or the node is given up.
const PIECE: Duration = Duration::from_secs(20);

/// What a node sends of a template.
pub struct Sent {
    /// SHA-256 of the whole memory.
    pub sha256: String,
    /// Length of the whole memory.
    pub size: u64,
    /// The bytes from the offset on that was asked for.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// Where templates come from.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Opens the memory of a template at an offset; none when that node has no such template.
    async fn open(
        &self,
        peer: &TemplatePeer,
        name: &str,
        offset: u64,
    ) -> Result<Option<Sent>, String>;
}

/// The agents of other nodes, under mutual TLS.
pub struct Agents(pub Credentials);

#[async_trait]
impl Peers for Agents {
    async fn open(
        &self,
        peer: &TemplatePeer,
        name: &str,
        offset: u64,
    ) -> Result<Option<Sent>, String> {
        let id = peer.node.to_string();
        let client = PeerClient::new(&self.0, Role::Node, &id, peer.address)
            .map_err(|error| chain(&error))?;
        let request = client
            .request(Method::GET, &format!("/node/v1/templates/{name}"))
            .header(RANGE, format!("bytes={offset}-"));
        let response = request.send().await.map_err(|error| chain(&error))?;
        match response.status().as_u16() {
            206 => {}
            404 => return Ok(None),
            status => return Err(format!("it answered with status {status}")),
        }
        let header = |name| {
            response
                .headers()
                .get(name)?
                .to_str()
                .ok()
                .map(str::to_owned)
        };
        let sha256 = header(TEMPLATE_SHA256).ok_or("it did not say how the memory hashes")?;
        let size = header(TEMPLATE_SIZE).and_then(|text| text.parse().ok());
        Ok(Some(Sent {
            sha256,
            size: size.ok_or("it did not say how long the memory is")?,
            body: response.bytes_stream().map_err(io::Error::other).boxed(),
        }))
    }
}

/// Gathers a template's memory in `path`, going on where an earlier try broke off, and checks it.
/// Tells its progress as `(have, total)`; false when the node has no such template.
///
/// # Errors
/// In words. What came is kept for another try, unless it is wrong.
pub async fn gather(
    peers: &dyn Peers,
    peer: &TemplatePeer,
    name: &str,
    path: &Path,
    progress: impl Fn(u64, u64),
) -> Result<bool, String> {
    let offset = tokio::fs::metadata(path).await.map_or(0, |meta| meta.len());
    let Some(sent) = peers.open(peer, name, offset).await? else {
        return Ok(false);
    };
    if offset > sent.size {
        let _ = tokio::fs::remove_file(path).await;
        return Err("what an earlier try left is longer than the memory".to_owned());
    }
    progress(offset, sent.size);
    write(sent.body, offset, sent.size, path, progress)
        .await
        .map_err(|error| chain(&error))?;
    let (checked, wanted) = (path.to_owned(), sent.sha256);
    let found = tokio::task::spawn_blocking(move || crate::images::hash_of(&checked)).await;
    let found = found.map_err(|error| chain(&error))?;
    let found = found.map_err(|error| chain(&error))?;
    if found != wanted {
        let _ = tokio::fs::remove_file(path).await;
        return Err(format!("the memory hashes to {found}, not to {wanted}"));
    }
    Ok(true)
}

/// Memory is mostly zeros: those become holes, as they were where the template was taken.
async fn write(
    mut body: BoxStream<'static, io::Result<Bytes>>,
    offset: u64,
    size: u64,
    path: &Path,
    progress: impl Fn(u64, u64),
) -> io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .await?;
    let mut have = offset;
    file.seek(io::SeekFrom::Start(have)).await?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing more came");
    while let Some(piece) = tokio::time::timeout(PIECE, body.next())
        .await
        .map_err(late)?
    {
        let piece = piece?;
        have += piece.len() as u64;
        if have > size {
            return Err(io::Error::other("more came than was announced"));
        }
        if piece.iter().all(|byte| *byte == 0) {
            file.seek(io::SeekFrom::Current(piece.len().try_into().unwrap_or(0)))
                .await?;
        } else {
            file.write_all(&piece).await?;
        }
        progress(have, size);
    }
    file.flush().await?;
    if have < size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it broke off"));
    }
    file.set_len(size).await?;
    file.sync_all().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use sha2::{Digest as _, Sha256};
    use undine_model::NodeId;

    /// A node with one template, which may tell a wrong hash or break off.
    struct Other {
        memory: Vec<u8>,
        sha256: String,
        breaks_at: usize,
    }

    #[async_trait]
    impl Peers for Other {
        async fn open(
            &self,
            _: &TemplatePeer,
            name: &str,
            offset: u64,
        ) -> Result<Option<Sent>, String> {
            if name != "known" {
                return Ok(None);
            }
            let end = self.breaks_at.min(self.memory.len());
            let from = usize::try_from(offset).unwrap().min(end);
            let pieces: Vec<io::Result<Bytes>> = self.memory[from..end]
                .chunks(1000)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            Ok(Some(Sent {
                sha256: self.sha256.clone(),
                size: self.memory.len() as u64,
                body: stream::iter(pieces).boxed(),
            }))
        }
    }

    fn other() -> Other {
        let mut memory = vec![0; 50_000];
        memory[10_000..12_000].fill(7);
        memory[49_000] = 1;
        Other {
            sha256: hex::encode(Sha256::digest(&memory)),
            memory,
            breaks_at: usize::MAX,
        }
    }

    fn peer() -> TemplatePeer {
        TemplatePeer {
            node: NodeId::from_parts(1, [1; 10]),
            address: "127.0.0.1:1".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_copy_that_broke_off_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let mut other = other();
        other.breaks_at = 11_500;
        let broken = gather(&other, &peer(), "known", &path, |_, _| {}).await;
        assert!(broken.unwrap_err().contains("broke off"));
        let kept = std::fs::metadata(&path).unwrap().len();
        assert!(kept > 10_000 && kept <= 11_500, "{kept}");
        other.breaks_at = usize::MAX;
        let first = std::cell::Cell::new(u64::MAX);
        let tell = |have: u64, _| first.set(first.get().min(have));
        assert!(gather(&other, &peer(), "known", &path, tell).await.unwrap());
        assert_eq!(first.get(), kept);
        assert_eq!(std::fs::read(&path).unwrap(), other.memory);
    }

    #[tokio::test]
    async fn memory_with_another_hash_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let mut other = other();
        other.memory[20_000] = 9;
        let refused = gather(&other, &peer(), "known", &path, |_, _| {}).await;
        assert!(refused.unwrap_err().contains("hashes to"));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_node_without_it_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        assert!(
            !gather(&other(), &peer(), "unknown", &path, |_, _| {})
                .await
                .unwrap()
        );
        assert!(!path.exists());
    }
}
