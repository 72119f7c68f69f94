//! A process between a copy and the replica that it writes to: it speaks TLS with the replica's
//! daemon and plain NBD on a local socket.
//!
//! A copy to a replica that hangs never touches the server's own disk: it is this process alone
//! that hangs, and killing it ends all of it. A scrub reads a replica through one that cannot write.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::command::{escaped, text};
use crate::files::RunDir;
use crate::nbd;
use crate::process::{Process, ProcessId, Program};
use crate::psk;
use crate::storage::{NbdAddress, StorageError};
use crate::vm::NbdChild;

/// The export's name on the local socket.
pub const EXPORT: &str = "replica";
const START_DEADLINE: Duration = Duration::from_secs(10);
const NODE: &str = "replica";

/// What whoever is on the local socket may do to the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it alone.
    Read,
    /// Write to it as well.
    Write,
}

/// A running relay; [`end`](Self::end) it, or find it again by [`Relay::end_left_over`].
#[derive(Debug)]
pub struct Relay {
    process: Process,
    run_dir: RunDir,
}

impl Relay {
    /// Starts the relay to one replica. What an earlier one left is ended first.
    ///
    /// Dying inside leaves at most a process that the next start ends.
    pub async fn start(
        program: &Program,
        run_dir: &RunDir,
        replica: &NbdChild,
        access: Access,
    ) -> Result<Self, StorageError> {
        Self::end_left_over(run_dir).await?;
        run_dir.prepare(program.owner)?;
        let credentials = match &replica.key {
            Some(key) => {
                let folder = run_dir.psk();
                psk::write(&folder, key, program.owner)?;
                Some(folder)
            }
            None => None,
        };
        match std::fs::remove_file(run_dir.nbd()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let args = arguments(run_dir, replica, access, credentials)?;
        let process = program.start(&args, &run_dir.log())?;
        let relay = Self {
            process,
            run_dir: run_dir.clone(),
        };
        match relay.ready().await {
            Ok(()) => Ok(relay),
            Err(error) => {
                relay.end().await?;
                Err(error)
            }
        }
    }

    async fn ready(&self) -> Result<(), StorageError> {
        let socket = NbdAddress::Unix(self.run_dir.nbd());
        let until = Instant::now() + START_DEADLINE;
        while nbd::greets(&socket, START_DEADLINE).await.is_err() {
            if self.process.exit().is_some() || Instant::now() > until {
                return Err(StorageError::Ended {
                    exit: self.process.exit().flatten(),
                    words: self.run_dir.last_words(),
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Where it serves.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.nbd()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it and waits until it is gone.
    pub async fn end(&self) -> Result<(), StorageError> {
        self.process.kill().await?;
        // The key has no reader any more.
        let _ = std::fs::remove_dir_all(self.run_dir.psk());
        Ok(())
    }

    /// Ends the relay that a predecessor of ours left in this folder, if any.
    pub async fn end_left_over(run_dir: &RunDir) -> Result<(), StorageError> {
        if let Some(left) = ProcessId::find("--pidfile", &run_dir.pid_file())? {
            left.kill()?;
            left.gone().await?;
        }
        Ok(())
    }
}

fn arguments(
    run_dir: &RunDir,
    replica: &NbdChild,
    access: Access,
    credentials: Option<PathBuf>,
) -> Result<Vec<String>, StorageError> {
    let mut args = vec![
        "--pidfile".to_owned(),
        text(&run_dir.pid_file(), "the run folder")?.to_owned(),
    ];
    let mut node = json!({"driver": "nbd", "node-name": NODE, "server": replica.server(),
        "export": replica.export.to_string(), "read-only": access == Access::Read});
    let writable = if access == Access::Write { "on" } else { "off" };
    if let Some(folder) = credentials {
        let folder = escaped(text(&folder, "the key's folder")?, "the key's folder")?;
        let user = psk::USER;
        args.push("--object".to_owned());
        args.push(format!(
            "tls-creds-psk,id=tls,endpoint=client,username={user},dir={folder}"
        ));
        node["tls-creds"] = "tls".into();
    }
    let socket = run_dir.nbd();
    let socket = escaped(text(&socket, "the run folder")?, "the run folder")?;
    args.extend([
        "--blockdev".to_owned(),
        node.to_string(),
        "--nbd-server".to_owned(),
        format!("addr.type=unix,addr.path={socket}"),
        "--export".to_owned(),
        format!("nbd,id=replica,node-name={NODE},name={EXPORT},writable={writable}"),
    ]);
    Ok(args)
}
