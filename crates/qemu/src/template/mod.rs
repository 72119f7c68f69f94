//! RAM templates: a guest booted once, saved before it has an identity, restored many times.
//!
//! A template is two files: `<name>.ram`, the memory in QEMU's mapped form, and `<name>.json`, the
//! key it was taken for. The second is written last and names the first one's length, so a
//! template exists only when whole. Without the note the memory is ignored and replaced.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::command::Shape;
use crate::qmp::QmpError;
use crate::vm::VmError;

mod moving;
mod store;

pub use moving::Taking;
pub use store::TemplateStore;

/// Everything that must be equal for saved memory to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateKey {
    /// The content hash of the image (kernel, initial RAM file system, root, command line).
    pub image_hash: String,
    /// The hardware.
    pub shape: Shape,
    /// QEMU's full version, from [`crate::version::qemu_version`].
    pub qemu_version: String,
}

impl TemplateKey {
    /// The template's file name without its ending; any difference in the key changes it.
    pub fn file_name(&self) -> String {
        let Shape {
            memory_mib,
            vcpus,
            machine,
            cpu,
            accel,
            tb_size_mib: _,
        } = &self.shape;
        let mut hash = Sha256::new();
        let numbers = [memory_mib.to_string(), vcpus.to_string(), accel.to_string()];
        let texts = [&self.image_hash, machine, cpu, &self.qemu_version];
        for part in numbers.iter().chain(texts) {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hex::encode(&hash.finalize()[..8]);
        format!("{memory_mib}m-{vcpus}c-{accel}-{hash}")
    }
}

/// A template that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    memory: PathBuf,
    key: TemplateKey,
}

impl Template {
    /// What it was taken for.
    pub fn key(&self) -> &TemplateKey {
        &self.key
    }

    /// The memory's file.
    pub fn memory(&self) -> &Path {
        &self.memory
    }
}

/// Why a template could not be taken or restored. After a failed restore no process is left, and
/// the caller boots cold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// QEMU could not move the memory.
    #[error("QEMU could not {what} the memory: {reason}")]
    Memory {
        /// `save` or `restore`.
        what: &'static str,
        /// QEMU's words.
        reason: String,
    },
    /// It took too long.
    #[error("QEMU did not {what} the memory within {after:?}")]
    TimedOut {
        /// `save` or `restore`.
        what: &'static str,
        /// The deadline that passed.
        after: Duration,
    },
    /// The template does not fit the VM.
    #[error("the template was taken for other hardware")]
    OtherShape,
    /// The VM failed.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The files could not be written or read.
    #[error("the template's files cannot be used")]
    Io(#[from] io::Error),
}

impl From<QmpError> for TemplateError {
    fn from(error: QmpError) -> Self {
        Self::Vm(error.into())
    }
}

#[cfg(test)]
mod tests;
