//! What can go wrong with a VM.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::command::ConfigError;
use crate::process::Exit;
use crate::qmp::QmpError;

/// Why a VM could not be started, found or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// A file to boot from is not there.
    #[error("the image is incomplete: {} does not exist", path.display())]
    ImageMissing {
        /// The file.
        path: PathBuf,
    },
    /// A VM runs in this folder; adopt it.
    #[error("a VM already runs here as process {pid}")]
    AlreadyRuns {
        /// Its process.
        pid: u32,
    },
    /// The VM that runs in this folder is not the one that was looked for.
    #[error("process {pid} is not the VM {wanted}")]
    OtherVm {
        /// Its process.
        pid: u32,
        /// The identity that was looked for.
        wanted: Uuid,
    },
    /// QEMU ended before its monitor answered.
    #[error("QEMU ended at once{}: {words}", exit.map(|s| format!(" ({s})")).unwrap_or_default())]
    Ended {
        /// Its status.
        exit: Exit,
        /// The end of its log.
        words: String,
    },
    /// A replica does not answer; asked before QEMU, which would hang on it.
    #[error("replica {slot} at {at} does not answer")]
    ReplicaSilent {
        /// Its place in the list of children.
        slot: usize,
        /// Where it should be.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// A data disk or network card is plugged already, and not the one that was asked for.
    #[error("another {what} is plugged in already")]
    OtherPlugged {
        /// `data disk` or `network card`.
        what: &'static str,
    },
    /// A data disk without replicas.
    #[error("a data disk needs at least one replica")]
    NoReplica,
    /// The configuration cannot become a command line.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The system refused something.
    #[error("the system refused a file or process operation")]
    Io(#[from] io::Error),
}
