//! What lies in an instance's state directory: who it is, where the store is, the key of the
//! secrets, its credentials and its blobs.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use undine_model::{InstanceId, Slug};

use crate::secrets::Secrets;

/// A state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Who the instance is and where its store is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceFile {
    /// Its id, as in its certificate.
    pub instance: InstanceId,
    /// Its name.
    pub name: Slug,
    /// Where the others reach it.
    pub internal_address: SocketAddr,
    /// The store.
    pub store_url: String,
}

impl StateDir {
    /// The directory at this path, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where blobs lie, each under its hash.
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Where own programs that cut power lie; they come before Debian's.
    pub fn fence_agents(&self) -> PathBuf {
        self.path.join("fence-agents")
    }

    /// Where the first token of the provider lies.
    pub fn provider_token(&self) -> PathBuf {
        self.path.join("provider-token")
    }

    /// Does an instance live here already?
    pub fn is_taken(&self) -> bool {
        self.path.join("instance.json").exists()
    }

    /// Makes it, for its owner only.
    pub fn create(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .and_then(|()| std::fs::create_dir_all(self.blobs()))
            .with_context(|| format!("the state directory {} cannot be made", self.path.display()))
    }

    /// Writes who lives here; the last file of all, so that half a set-up is none.
    pub fn write_instance(&self, instance: &InstanceFile) -> Result<()> {
        self.write_private("instance.json", &serde_json::to_vec_pretty(instance)?)
    }

    /// Reads who lives here.
    pub fn instance(&self) -> Result<InstanceFile> {
        let path = self.path.join("instance.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "{} is not there; `undine-control init` or `join` makes it",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes the key of the secrets.
    pub fn write_secrets(&self, secrets: &Secrets) -> Result<()> {
        self.write_private("secrets.key", secrets.to_base64().as_bytes())
    }

    /// Reads the key of the secrets.
    pub fn secrets(&self) -> Result<Secrets> {
        let path = self.path.join("secrets.key");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Secrets::from_base64(&text)?)
    }

    /// Writes a file that only its owner may read, whole or not at all.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let partial = self.path.join(format!("{name}.partial"));
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&partial, self.path.join(name))?;
            std::fs::File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("{} cannot be written", self.path.join(name).display()))
    }
}
