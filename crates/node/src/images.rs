//! Images by content: fetched from wherever they are, resumed by range, checked before they count.
//!
//! ```text
//! images/<image hash>/image.json    the description; written last, so its presence means all is here
//! images/<image hash>/<file hash>   the files
//! images/<image hash>/<file hash>.part
//! ```

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use undine_api::Problem;
use undine_api::node::{FetchImage, ImageFile, ImageManifest, ImageStatus};

use crate::files;

/// A body with the offset at which it starts.
pub type Body = (u64, BoxStream<'static, io::Result<Bytes>>);

/// Where files come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Opens `{source}/{sha256}` from `offset` on; a source that cannot resume starts at 0.
    async fn open(&self, source: &str, sha256: &str, offset: u64) -> Result<Body, String>;
}

/// The images of a node.
pub struct Images {
    folder: PathBuf,
    source: Arc<dyn Source>,
    under_way: Mutex<HashMap<String, Progress>>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    running: bool,
    have: u64,
    error: Option<String>,
}

/// The paths of an image that is here.
#[derive(Debug, Clone)]
pub struct LocalImage {
    /// Its description.
    pub manifest: ImageManifest,
    /// Read-only root.
    pub root: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// First RAM disk.
    pub initrd: PathBuf,
}

impl Images {
    /// The images in this folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: PathBuf, source: Arc<dyn Source>) -> Result<Self, files::FileError> {
        files::make_folder(&folder)?;
        Ok(Self {
            folder,
            source,
            under_way: Mutex::default(),
        })
    }

    /// The hashes of the images that are here, whole.
    pub fn present(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut hashes: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("image.json").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        hashes.sort();
        hashes
    }

    /// The image of this hash, if it is here.
    pub fn local(&self, hash: &str) -> Option<LocalImage> {
        let folder = self.image_folder(hash)?;
        let manifest: ImageManifest = files::read_json(&folder.join("image.json"))
            .ok()
            .flatten()?;
        let path = |file: &ImageFile| folder.join(&file.sha256);
        Some(LocalImage {
            root: path(&manifest.files.root),
            kernel: path(&manifest.files.kernel),
            initrd: path(&manifest.files.initrd),
            manifest,
        })
    }

    /// How far an image is.
    pub fn status(&self, manifest: &ImageManifest) -> ImageStatus {
        let total = parts(manifest).iter().map(|file| file.size).sum();
        let present = self.local(&manifest.hash).is_some();
        let progress = self.lock().get(&manifest.hash).cloned().unwrap_or_default();
        ImageStatus {
            hash: manifest.hash.clone(),
            present,
            have: if present { total } else { progress.have },
            total,
            error: progress.error.filter(|_| !present && !progress.running),
        }
    }

    /// Starts fetching an image unless it is here or on its way, and tells how far it is.
    ///
    /// # Errors
    /// The description is not usable.
    pub fn fetch(self: &Arc<Self>, wish: FetchImage) -> Result<ImageStatus, Problem> {
        check(&wish.manifest)?;
        let status = self.status(&wish.manifest);
        if status.present {
            return Ok(status);
        }
        {
            let mut under_way = self.lock();
            let progress = under_way.entry(wish.manifest.hash.clone()).or_default();
            if progress.running {
                return Ok(status);
            }
            *progress = Progress {
                running: true,
                ..Progress::default()
            };
        }
        let images = self.clone();
        tokio::spawn(async move {
            let hash = wish.manifest.hash.clone();
            let result = images.fetch_all(&wish).await;
            if let Err(error) = &result {
                tracing::warn!(image = hash, error, "an image could not be fetched");
            }
            let mut under_way = images.lock();
            let progress = under_way.entry(hash).or_default();
            progress.running = false;
            progress.error = result.err();
        });
        // A try that failed before is told until the next one ends.
        Ok(status)
    }

    async fn fetch_all(&self, wish: &FetchImage) -> Result<(), String> {
        let folder = self
            .image_folder(&wish.manifest.hash)
            .ok_or("the hash is no hash")?;
        files::make_folder(&folder).map_err(|error| with_source(&error))?;
        let _ = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755));
        let mut done = 0;
        for file in parts(&wish.manifest) {
            let path = folder.join(&file.sha256);
            if !path.exists() {
                self.fetch_file(wish, file, &path, done).await?;
            }
            done += file.size;
            self.progress(&wish.manifest.hash, done);
        }
        files::write_json(&folder.join("image.json"), &wish.manifest)
            .map_err(|error| with_source(&error))?;
        tracing::info!(
            image = wish.manifest.hash,
            name = wish.manifest.name,
            "image fetched"
        );
        Ok(())
    }

    async fn fetch_file(
        &self,
        wish: &FetchImage,
        file: &ImageFile,
        path: &Path,
        done: u64,
    ) -> Result<(), String> {
        let part = path.with_extension("part");
        let mut last = "no source was named".to_owned();
        let progress = |have| self.progress(&wish.manifest.hash, done + have);
        for source in &wish.sources {
            match self.download(source, file, &part, progress).await {
                Err(error) => last = format!("{}: {error}", file.file),
                Ok(()) => match keep(&part, path, file).await {
                    Ok(()) => return Ok(()),
                    // Another source may hold the right one.
                    Err(error) => last = error,
                },
            }
        }
        Err(last)
    }

    async fn download(
        &self,
        source: &str,
        file: &ImageFile,
        part: &Path,
        progress: impl Fn(u64),
    ) -> Result<(), String> {
        let here = tokio::fs::metadata(part).await.map_or(0, |meta| meta.len());
        let wanted = if here > file.size { 0 } else { here };
        if wanted == file.size && wanted > 0 {
            return Ok(());
        }
        let (offset, mut body) = self.source.open(source, &file.sha256, wanted).await?;
        let mut out = tokio::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(part)
            .await
            .map_err(|error| error.to_string())?;
        out.set_len(offset)
            .await
            .map_err(|error| error.to_string())?;
        let mut have = offset;
        progress(have);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            have += piece.len() as u64;
            if have > file.size {
                let _ = tokio::fs::remove_file(part).await;
                return Err(format!(
                    "{source} sent more than the {} bytes announced",
                    file.size
                ));
            }
            out.write_all(&piece)
                .await
                .map_err(|error| error.to_string())?;
            progress(have);
        }
        out.sync_all().await.map_err(|error| error.to_string())?;
        if have < file.size {
            return Err(format!(
                "{source} broke off after {have} of {} bytes",
                file.size
            ));
        }
        Ok(())
    }

    fn progress(&self, hash: &str, have: u64) {
        if let Some(progress) = self.lock().get_mut(hash) {
            progress.have = have;
        }
    }

    fn image_folder(&self, hash: &str) -> Option<PathBuf> {
        is_hash(hash).then(|| self.folder.join(hash))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Progress>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a downloaded file and gives it its name.
async fn keep(part: &Path, path: &Path, file: &ImageFile) -> Result<(), String> {
    let (from, to, wanted, name) = (
        part.to_owned(),
        path.to_owned(),
        file.sha256.clone(),
        file.file.clone(),
    );
    let kept = tokio::task::spawn_blocking(move || {
        let found = hash_of(&from).map_err(|error| error.to_string())?;
        if found != wanted {
            let _ = std::fs::remove_file(&from);
            return Err(format!(
                "{name} has the hash {found} where {wanted} was announced"
            ));
        }
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o444))
            .and_then(|()| std::fs::rename(&from, &to))
            .and_then(|()| files::sync_folder(&to))
            .map_err(|error| error.to_string())
    });
    kept.await
        .unwrap_or_else(|_| Err("checking a file was interrupted".to_owned()))
}

/// SHA-256 of a file.
pub(crate) fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn parts(manifest: &ImageManifest) -> [&ImageFile; 3] {
    // The large one last: trouble with the small ones shows at once.
    [
        &manifest.files.kernel,
        &manifest.files.initrd,
        &manifest.files.root,
    ]
}

fn is_hash(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// File names come from hashes only, so a description cannot lead anywhere else.
fn check(manifest: &ImageManifest) -> Result<(), Problem> {
    let hashes = parts(manifest).map(|file| file.sha256.as_str());
    if hashes
        .iter()
        .chain([&manifest.hash.as_str()])
        .all(|hash| is_hash(hash))
    {
        return Ok(());
    }
    Err(Problem::new(
        422,
        "image-invalid",
        "The image's description is not usable",
        "a hash in it is not 64 hexadecimal digits",
    )
    .field("manifest"))
}

fn with_source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;
