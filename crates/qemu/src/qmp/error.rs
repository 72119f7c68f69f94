//! What can go wrong on a monitor connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a QMP connection or command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// Nothing listens at the socket.
    #[error("no monitor answers at {}", path.display())]
    Connect {
        /// The monitor's socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something accepted the connection but did not greet: QEMU hangs, or has another client.
    #[error("the monitor at {} did not greet in time", path.display())]
    NoGreeting {
        /// The monitor's socket.
        path: PathBuf,
    },
    /// The connection ended; the process behind it is gone or going.
    #[error("the monitor connection is closed")]
    Closed,
    /// No answer in time. QEMU may still carry the command out.
    #[error("no answer to {command} within {after:?}")]
    TimedOut {
        /// The command.
        command: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// QEMU refused the command.
    #[error("{command} was refused ({class}): {desc}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class, for example `GenericError` or `DeviceNotFound`.
        class: String,
        /// QEMU's own words.
        desc: String,
    },
    /// What arrived is not QMP.
    #[error("the monitor does not speak QMP: {what}")]
    Protocol {
        /// What was wrong with it.
        what: String,
    },
}
