//! Memory on its way: out of a template's VM into a file, and back into a server.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::store::place;
use super::{Template, TemplateError, TemplateKey, TemplateStore};
use crate::command::{Begin, VmConfig};
use crate::files::{Owner, beside};
use crate::process::Program;
use crate::qmp::QmpError;
use crate::vm::{Vm, VmError};

const POLL: Duration = Duration::from_millis(10);
/// Hosts under load write 150 MiB in seconds; a minute means that something is wrong.
const SAVE_DEADLINE: Duration = Duration::from_secs(60);
const RESTORE_DEADLINE: Duration = Duration::from_secs(60);

/// A template in the making. Dropping it kills its VM.
#[derive(Debug)]
pub struct Taking {
    vm: Vm,
    store: TemplateStore,
    key: TemplateKey,
    owner: Option<Owner>,
}

impl Taking {
    pub(super) async fn start(
        store: TemplateStore,
        program: &Program,
        config: &VmConfig,
        key: TemplateKey,
    ) -> Result<Self, TemplateError> {
        let program = Program {
            dies_with_us: true,
            ..program.clone()
        };
        let vm = Vm::spawn(&program, config, Begin::Boot).await?;
        Ok(Self {
            vm,
            store,
            key,
            owner: program.owner,
        })
    }

    /// The VM that boots; its guest agent's socket is what the caller is after.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Holds the guest, writes its memory, ends the VM and puts the template in its place.
    pub async fn finish(self) -> Result<Template, TemplateError> {
        let saved = self.save().await;
        if let Err(error) = self.vm.quit().await {
            tracing::warn!(%error, "a template's VM did not end well");
        }
        saved?;
        let Self { store, key, .. } = self;
        let placed = tokio::task::spawn_blocking(move || {
            let partial = beside(&store.memory(&key), "partial");
            place(&store, key, &partial, None)
        })
        .await;
        Ok(placed.map_err(io::Error::other)??)
    }

    async fn save(&self) -> Result<(), TemplateError> {
        self.vm.stop().await?;
        let partial = beside(&self.store.memory(&self.key), "partial");
        // QEMU's user could not create a file in this folder; it may write to its own.
        fs::File::create(&partial)?;
        if let Some(owner) = self.owner {
            owner.take(&partial)?;
        }
        prepare_migration(&self.vm).await?;
        self.vm
            .qmp()
            .execute("migrate", json!({"uri": file_uri(&partial)?}))
            .await?;
        finished(&self.vm, "save", SAVE_DEADLINE).await
    }
}

impl Template {
    /// Starts a VM from this memory and lets it run; its clock, random numbers and identity are
    /// the template's until the guest agent is told better.
    ///
    /// On failure the process is gone and the run folder free for a cold start. Dying inside
    /// leaves a VM that [`Vm::adopt`] finds in the state [`crate::vm::RunState::InMigrate`] or
    /// `Paused`: kill that one and start again.
    pub async fn restore(&self, program: &Program, config: &VmConfig) -> Result<Vm, TemplateError> {
        if config.shape != self.key.shape {
            return Err(TemplateError::OtherShape);
        }
        let vm = Vm::spawn(program, config, Begin::Incoming).await?;
        match self.receive(&vm).await {
            Ok(()) => Ok(vm),
            Err(error) => {
                vm.kill().await?;
                Err(error)
            }
        }
    }

    async fn receive(&self, vm: &Vm) -> Result<(), TemplateError> {
        let lost = |error| match error {
            // QEMU ends itself over memory that it cannot take; its log says why.
            TemplateError::Vm(VmError::Qmp(QmpError::Closed)) => TemplateError::Memory {
                what: "restore",
                reason: vm.run_dir().last_words(),
            },
            other => other,
        };
        let received = async {
            prepare_migration(vm).await?;
            let source = json!({"uri": file_uri(&self.memory)?, "exit-on-error": false});
            vm.qmp().execute("migrate-incoming", source).await?;
            finished(vm, "restore", RESTORE_DEADLINE).await?;
            Ok(vm.cont().await?)
        };
        received.await.map_err(lost)
    }
}

async fn prepare_migration(vm: &Vm) -> Result<(), TemplateError> {
    let mapped = json!({"capabilities": [{"capability": "mapped-ram", "state": true}]});
    vm.qmp().execute("migrate-set-capabilities", mapped).await?;
    // The default limit would stretch a save to seconds.
    vm.qmp()
        .execute("migrate-set-parameters", json!({"max-bandwidth": 0}))
        .await?;
    Ok(())
}

fn file_uri(path: &Path) -> io::Result<String> {
    let path = path.to_str().filter(|path| !path.contains(','));
    let plain = path.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(format!("file:{plain}"))
}

/// Waits until the memory has been moved.
async fn finished(vm: &Vm, what: &'static str, within: Duration) -> Result<(), TemplateError> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        let answer = vm.qmp().execute("query-migrate", json!({})).await?;
        match answer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let reason = answer["error-desc"]
                    .as_str()
                    .unwrap_or("it does not say why");
                return Err(TemplateError::Memory {
                    what,
                    reason: reason.to_owned(),
                });
            }
            _ => sleep(POLL).await,
        }
    }
    Err(TemplateError::TimedOut {
        what,
        after: within,
    })
}
