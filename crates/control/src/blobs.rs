//! Files known by their hash: images. Each instance keeps its own; what one lacks it fetches from
//! the others when it is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use undine_link::{Method, PeerClient};

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

/// Is it a SHA-256 in hexadecimal? Nothing else ever becomes a path.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Blobs {
    /// The blobs in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the blob lies, if it is here.
    pub fn find(&self, hash: &str) -> Option<PathBuf> {
        let path = self.folder.join(hash);
        (is_hash(hash) && path.is_file()).then_some(path)
    }

    /// Takes a file in, if it has the hash that it should have.
    pub async fn import(&self, file: &Path, hash: &str) -> anyhow::Result<()> {
        if self.find(hash).is_some() {
            return Ok(());
        }
        let mut source = tokio::fs::File::open(file)
            .await
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let mut sink = Sink::create(&self.folder, hash).await?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer).await? {
                0 => break,
                count => sink.write(&buffer[..count]).await?,
            }
        }
        sink.finish()
            .await
            .with_context(|| format!("{} was not taken", file.display()))
    }

    /// Fetches a blob from another instance.
    pub async fn fetch(&self, peer: &PeerClient, hash: &str) -> anyhow::Result<()> {
        let path = format!("/internal/v1/blobs/{hash}?local=true");
        let response = peer
            .checked(peer.request(Method::GET, &path).send().await)
            .await?;
        let mut sink = Sink::create(&self.folder, hash).await?;
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            sink.write(&piece?).await?;
        }
        sink.finish().await
    }
}

/// A blob on its way in: under its name only when its hash is right.
struct Sink {
    file: tokio::fs::File,
    partial: tempfile_path::Partial,
    target: PathBuf,
    digest: Sha256,
    wanted: String,
}

impl Sink {
    async fn create(folder: &Path, hash: &str) -> anyhow::Result<Self> {
        if !is_hash(hash) {
            bail!("`{hash}` is no SHA-256");
        }
        let partial = tempfile_path::Partial::new(
            folder.join(format!("{hash}.{:016x}.partial", rand::random::<u64>())),
        );
        let file = tokio::fs::File::create(partial.path()).await?;
        Ok(Self {
            file,
            partial,
            target: folder.join(hash),
            digest: Sha256::new(),
            wanted: hash.to_owned(),
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.digest.update(bytes);
        Ok(self.file.write_all(bytes).await?)
    }

    async fn finish(self) -> anyhow::Result<()> {
        let found = hex::encode(self.digest.finalize());
        if found != self.wanted {
            bail!(
                "the content has the SHA-256 {found}, not {} as it should",
                self.wanted
            );
        }
        self.file.sync_all().await?;
        tokio::fs::rename(self.partial.path(), &self.target).await?;
        Ok(())
    }
}

mod tempfile_path {
    //! A file that goes away unless it was renamed.

    use std::path::{Path, PathBuf};

    pub(super) struct Partial(PathBuf);

    impl Partial {
        pub(super) fn new(path: PathBuf) -> Self {
            Self(path)
        }
        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Partial {
        fn drop(&mut self) {
            // Gone already when it was renamed.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::sha256;

    #[tokio::test]
    async fn a_file_whose_hash_does_not_match_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.squashfs");
        std::fs::write(&file, b"content").unwrap();
        let blobs = Blobs::new(folder.path().to_owned());
        let wrong = sha256("other");
        let error = blobs.import(&file, &wrong).await.unwrap_err();
        assert!(
            format!("{error:#}").contains(&sha256("content")),
            "{error:#}"
        );
        assert!(blobs.find(&wrong).is_none());
        blobs.import(&file, &sha256("content")).await.unwrap();
        assert!(blobs.find(&sha256("content")).is_some());
        assert!(blobs.find("../root.squashfs").is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
