//! What can go wrong with a replica.

use std::io;
use std::path::PathBuf;

use super::name::ExportNameError;
use crate::command::ConfigError;
use crate::process::Exit;
use crate::qmp::QmpError;
use crate::sidecar::SidecarError;

/// Why an image or its daemon could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The image's file is not there. It is never created by opening it.
    #[error("the replica is lost: {} does not exist", image.display())]
    Lost {
        /// The image.
        image: PathBuf,
    },
    /// Another process has the image open.
    #[error("{} is in use by another process", image.display())]
    Busy {
        /// The image.
        image: PathBuf,
    },
    /// An image is there already, of another size.
    #[error("{} exists with {have} bytes, not {want}", image.display())]
    OtherSize {
        /// The image.
        image: PathBuf,
        /// Its size.
        have: u64,
        /// The size that was asked for.
        want: u64,
    },
    /// A daemon runs in this folder; adopt it.
    #[error("a storage daemon already runs here as process {pid}")]
    AlreadyRuns {
        /// Its process.
        pid: u32,
    },
    /// A copy's target is of another size.
    #[error("the target has {have} bytes, the server's disk {want}")]
    TargetSize {
        /// The target's size.
        have: u64,
        /// The disk's.
        want: u64,
    },
    /// The NBD server's address is taken.
    #[error("the address for exports is already in use")]
    AddressInUse,
    /// The daemon ended before it was up.
    #[error("the storage daemon ended at once{}: {words}", exit.map(|s| format!(" ({s})")).unwrap_or_default())]
    Ended {
        /// Its status.
        exit: Exit,
        /// The end of its log.
        words: String,
    },
    /// An export is still there long after its deletion was asked for.
    #[error("the export {name} does not go away")]
    ExportStays {
        /// The export.
        name: String,
    },
    /// `qemu-img` failed.
    #[error("qemu-img could not {what}: {words}")]
    Image {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        words: String,
    },
    /// The daemon answered something that this program does not understand.
    #[error("the storage daemon answered something unexpected: {what}")]
    Unexpected {
        /// What it was.
        what: &'static str,
    },
    /// An export's name that we did not give.
    #[error(transparent)]
    Name(#[from] ExportNameError),
    /// The epoch is over, or its record unusable.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// A path that QEMU's options cannot carry.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The system refused something.
    #[error("the system refused a file or process operation")]
    Io(#[from] io::Error),
}
