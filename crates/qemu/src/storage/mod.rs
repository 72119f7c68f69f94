//! One replica of a server's data disk: its image file and the daemon that owns and exports it.
//!
//! One `qemu-storage-daemon` runs per replica and outlives us. Its command line carries image and
//! NBD server, so it is either up with both or gone; exports come and go by command. An export's
//! name holds epoch and incarnation, and [`StorageDaemon::open_epoch`] is the one way to open a
//! higher epoch: record flushed, older exports dead and gone, new export added, in that order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::files::RunDir;
use crate::process::{Process, Program};
use crate::qmp::{Qmp, QmpError};
use crate::sidecar::{ReplicaState, SidecarFile};

mod bitmaps;
mod error;
mod image;
mod launch;
mod name;

pub use bitmaps::{Base, LOOK_BYTES, SourceName};
pub use error::StorageError;
pub use image::{Created, create_image, virtual_size};
use launch::{arguments, ensure_bitmap, failed, find, open_to_group, query_nodes};
pub use name::{ExportName, ExportNameError};

/// The block node of the replica inside its daemon.
pub const IMAGE_NODE: &str = "image";
/// The dirty bitmap that every replica always carries.
pub const ALWAYS_BITMAP: &str = "always";
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const DELETE_DEADLINE: Duration = Duration::from_secs(10);

/// Where a daemon's NBD server listens; also how a VM reaches it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NbdAddress {
    /// On the same host; a daemon's is [`RunDir::nbd`], open to the daemon's group.
    Unix(PathBuf),
    /// For other hosts.
    Inet(SocketAddr),
}

impl NbdAddress {
    fn qapi(&self) -> serde_json::Value {
        match self {
            Self::Unix(path) => json!({"type": "unix", "data": {"path": path}}),
            Self::Inet(address) => json!({"type": "inet", "data":
                {"host": address.ip().to_string(), "port": address.port().to_string()}}),
        }
    }
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// `qemu-storage-daemon`, its user and its control group.
    pub program: Program,
    /// Sockets and logs, one folder a daemon.
    pub run_dir: RunDir,
    /// The replica's qcow2 image.
    pub image: PathBuf,
    /// Where its exports are served.
    pub listen: NbdAddress,
    /// The folder of [`crate::psk::write`]; its exports are open to whoever has that key, encrypted.
    pub psk: Option<PathBuf>,
}

/// What became of the persistent bitmap when the image was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitmap {
    /// It is whole and recording: it has every write since it was made or last cleared.
    Kept,
    /// It is new, or was damaged by a crash: earlier writes are not in it.
    Fresh,
}

/// A running storage daemon.
#[derive(Clone, Debug)]
pub struct StorageDaemon {
    process: Process,
    qmp: Qmp,
    run_dir: RunDir,
    bitmap: Bitmap,
}

impl StorageDaemon {
    /// Starts the daemon of one replica. It opens the image or fails: a missing file is
    /// [`StorageError::Lost`], one in use elsewhere [`StorageError::Busy`].
    ///
    /// Dying inside leaves either nothing or a daemon without exports, which
    /// [`adopt`](Self::adopt) finds.
    pub async fn start(config: &DaemonConfig) -> Result<Self, StorageError> {
        let DaemonConfig {
            program,
            run_dir,
            image,
            listen,
            psk,
        } = config;
        if let Some(id) = find(run_dir)? {
            return Err(StorageError::AlreadyRuns { pid: id.pid });
        }
        if !tokio::fs::try_exists(image).await? {
            return Err(StorageError::Lost {
                image: image.clone(),
            });
        }
        run_dir.prepare(program.owner)?;
        let process = program.start(
            &arguments(run_dir, image, listen, psk.as_deref())?,
            &run_dir.log(),
        )?;
        let monitor = run_dir.qmp();
        let connected = tokio::select! {
            connected = Qmp::connect(&monitor, START_DEADLINE) => connected,
            exit = process.wait() => return Err(failed(exit, run_dir, image)),
        };
        let opened = match connected {
            Ok(qmp) => Self::with_bitmap(process.clone(), qmp, run_dir).await,
            // Its socket is there before the image is open: it may have failed at that.
            Err(QmpError::Closed) if process.wait_within(STOP_DEADLINE).await => {
                Err(failed(process.wait().await, run_dir, image))
            }
            Err(error) => Err(error.into()),
        };
        if opened.is_err() {
            process.kill().await?;
        }
        opened
    }

    /// Finds the daemon that runs in `run_dir`, started by us or by a predecessor, and changes
    /// nothing about it. `None`: no such process.
    pub async fn adopt(run_dir: &RunDir) -> Result<Option<Self>, StorageError> {
        let Some(id) = find(run_dir)? else {
            return Ok(None);
        };
        let qmp = Qmp::connect(&run_dir.qmp(), STOP_DEADLINE).await?;
        let process = Process::adopt(id);
        Self::with_bitmap(process, qmp, run_dir).await.map(Some)
    }

    async fn with_bitmap(
        process: Process,
        qmp: Qmp,
        run_dir: &RunDir,
    ) -> Result<Self, StorageError> {
        open_to_group(&run_dir.nbd())?;
        let bitmap = ensure_bitmap(&qmp).await?;
        Ok(Self {
            process,
            qmp,
            run_dir: run_dir.clone(),
            bitmap,
        })
    }

    /// The daemon's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its monitor, for block jobs that this crate does not wrap.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Whether the persistent bitmap survived; [`Bitmap::Fresh`] also for a new image.
    pub fn bitmap(&self) -> Bitmap {
        self.bitmap
    }

    /// The names of what is exported now, in no order.
    pub async fn exports(&self) -> Result<Vec<ExportName>, StorageError> {
        let exports = self.listed().await?;
        exports
            .iter()
            // Others are copies being made: read-only, and ended by who made them.
            .filter(|export| ExportName::is_id(&export.id))
            .map(|export| ExportName::from_id(&export.id).map_err(Into::into))
            .collect()
    }

    /// The virtual disk's size in bytes.
    pub async fn size_bytes(&self) -> Result<u64, StorageError> {
        let nodes = query_nodes(&self.qmp).await?;
        let node = nodes.iter().find(|node| node["node-name"] == IMAGE_NODE);
        node.and_then(|node| node["image"]["virtual-size"].as_u64())
            .ok_or(StorageError::Unexpected {
                what: "the image's node has no size",
            })
    }

    /// Opens an epoch: flushes it into the sidecar, deletes every other export the hard way, waits
    /// until each is really gone, then exports under `name`.
    ///
    /// A lower epoch than the sidecar's is refused with nothing touched. Dying inside leaves the
    /// epoch recorded and perhaps nothing exported; repeating the call ends the work.
    pub async fn open_epoch(
        &self,
        sidecar: &SidecarFile,
        name: &ExportName,
        state: ReplicaState,
    ) -> Result<(), StorageError> {
        sidecar.advance(name.epoch(), state).await?;
        for other in self.exports().await?.iter().filter(|other| *other != name) {
            self.delete_export(other).await?;
        }
        self.add_export(name).await
    }

    /// Moves the daemon's NBD server to another address or key. Every export ends with the old
    /// server; the caller opens an epoch next.
    ///
    /// Dying inside leaves the daemon without exports, or without a server: repeat it.
    pub async fn listen_elsewhere(
        &self,
        listen: &NbdAddress,
        psk: Option<&Path>,
    ) -> Result<(), StorageError> {
        self.close_all().await?;
        match self.qmp.execute("nbd-server-stop", json!({})).await {
            // Stopped by a predecessor.
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.qmp.execute("object-del", json!({"id": "tls"})).await {
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut server = json!({"addr": listen.qapi()});
        if let Some(folder) = psk {
            let object = json!({"qom-type": "tls-creds-psk", "id": "tls", "endpoint": "server",
                "dir": folder});
            self.qmp.execute("object-add", object).await?;
            server["tls-creds"] = "tls".into();
        }
        self.qmp.execute("nbd-server-start", server).await?;
        open_to_group(&self.run_dir.nbd())
    }

    /// Ends every export; a VM that still writes gets errors and stops. Repeating is harmless.
    pub async fn close_all(&self) -> Result<(), StorageError> {
        for name in self.exports().await? {
            self.delete_export(&name).await?;
        }
        Ok(())
    }

    async fn add_export(&self, name: &ExportName) -> Result<(), StorageError> {
        if self.exports().await?.contains(name) {
            return Ok(());
        }
        let arguments = json!({"type": "nbd", "id": name.id(), "node-name": IMAGE_NODE,
            "name": name.to_string(), "writable": true});
        self.qmp.execute("block-export-add", arguments).await?;
        Ok(())
    }

    /// `block-export-del` returns before the export is gone; gone means no longer listed.
    async fn delete_export(&self, name: &ExportName) -> Result<(), StorageError> {
        self.delete_export_id(&name.id()).await
    }

    async fn delete_export_id(&self, id: &str) -> Result<(), StorageError> {
        let mut events = self.qmp.events();
        let arguments = json!({"id": id, "mode": "hard"});
        match self.qmp.execute("block-export-del", arguments).await {
            // Refused when it is gone already or on its way; the list below tells which.
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let until = Instant::now() + DELETE_DEADLINE;
        loop {
            if !self.listed().await?.iter().any(|export| export.id == id) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(StorageError::ExportStays {
                    name: id.to_owned(),
                });
            }
            // Woken by BLOCK_EXPORT_DELETED; the time-out covers an event that was missed.
            let _ = timeout(Duration::from_millis(50), events.recv()).await;
        }
    }

    async fn listed(&self) -> Result<Vec<Listed>, StorageError> {
        let exports = self.qmp.execute("query-block-exports", json!({})).await?;
        serde_json::from_value(exports).map_err(|_| StorageError::Unexpected {
            what: "the list of exports is unreadable",
        })
    }

    /// Ends the daemon in order, so that its bitmaps are kept; by force when it does not obey.
    /// On return its process is gone. Dying inside leaves it running or ending.
    pub async fn stop(&self) -> Result<(), StorageError> {
        self.close_all().await.or_else(|error| match error {
            StorageError::Qmp(QmpError::Closed) => Ok(()),
            other => Err(other),
        })?;
        // Closed: it is ending already.
        let asked = self
            .qmp
            .execute_within("quit", json!({}), STOP_DEADLINE)
            .await;
        if asked.is_err() || !self.process.wait_within(STOP_DEADLINE).await {
            self.kill().await?;
        }
        Ok(())
    }

    /// Kills the daemon and waits until it is gone: no write of it can land any more.
    pub async fn kill(&self) -> Result<(), StorageError> {
        Ok(self.process.kill().await?)
    }

    /// The folder of its sockets and logs.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

#[cfg(test)]
mod tests;
