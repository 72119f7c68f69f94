//! RAM templates: a guest booted once, saved before it has an identity, restored many times.
//!
//! A template is two files: `<name>.ram`, the memory in QEMU's mapped form, and `<name>.json`, the
//! key it was taken for. The second is written last and names the first one's length, so a
//! template exists only when whole. Without the note the memory is ignored and replaced.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::command::{Begin, Shape, VmConfig};
use crate::files::{Owner, beside, sync_folder, write_atomically};
use crate::process::Program;
use crate::qmp::QmpError;
use crate::vm::{Vm, VmError};

const POLL: Duration = Duration::from_millis(10);
/// Hosts under load write 150 MiB in seconds; a minute means that something is wrong.
const SAVE_DEADLINE: Duration = Duration::from_secs(60);
const RESTORE_DEADLINE: Duration = Duration::from_secs(60);
/// The layout of the note.
const FORMAT: u32 = 1;

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

#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    key: TemplateKey,
    memory_bytes: u64,
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

/// The folder of a host's templates.
#[derive(Clone, Debug)]
pub struct TemplateStore {
    folder: PathBuf,
}

impl TemplateStore {
    /// Opens the folder, creating it when missing. VMs run as other users and must reach it.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        Ok(Self { folder })
    }

    /// Looks a template up; one that is not whole does not exist.
    pub fn find(&self, key: &TemplateKey) -> Option<Template> {
        let note: Note = serde_json::from_slice(&fs::read(self.note(key)).ok()?).ok()?;
        let memory = self.memory(key);
        let length = fs::metadata(&memory).ok()?.len();
        let whole = note.format == FORMAT && note.key == *key && note.memory_bytes == length;
        whole.then(|| Template {
            memory,
            key: key.clone(),
        })
    }

    /// Removes a template, for one that failed to restore. Repeating is harmless.
    pub fn remove(&self, key: &TemplateKey) -> io::Result<()> {
        // The note first: without it the memory counts for nothing.
        for path in [
            self.note(key),
            self.memory(key),
            beside(&self.memory(key), "partial"),
        ] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(&self.folder)
    }

    /// Removes every template and left-over whose key is not among `wanted`; tells how many
    /// files went.
    pub fn keep_only(&self, wanted: &[TemplateKey]) -> io::Result<usize> {
        let names: Vec<String> = wanted.iter().map(TemplateKey::file_name).collect();
        let mut gone = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if !names
                .iter()
                .any(|name| file.split('.').next() == Some(name))
            {
                fs::remove_file(entry.path())?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Boots a VM to take a template from: no data disk, no network card, and it dies with us.
    /// The caller talks to its guest until that is ready, then calls [`Taking::finish`].
    ///
    /// Dying anywhere before `finish` returns leaves at most `<name>.ram.partial` or memory
    /// without its note; the next taking replaces both.
    pub async fn start_taking(
        &self,
        program: &Program,
        config: &VmConfig,
        key: TemplateKey,
    ) -> Result<Taking, TemplateError> {
        if config.shape != key.shape {
            return Err(TemplateError::OtherShape);
        }
        let program = Program {
            dies_with_us: true,
            ..program.clone()
        };
        let vm = Vm::spawn(&program, config, Begin::Boot).await?;
        Ok(Taking {
            vm,
            store: self.clone(),
            key,
            owner: program.owner,
        })
    }

    fn memory(&self, key: &TemplateKey) -> PathBuf {
        self.folder.join(format!("{}.ram", key.file_name()))
    }

    fn note(&self, key: &TemplateKey) -> PathBuf {
        self.folder.join(format!("{}.json", key.file_name()))
    }
}

/// A template in the making. Dropping it kills its VM.
#[derive(Debug)]
pub struct Taking {
    vm: Vm,
    store: TemplateStore,
    key: TemplateKey,
    owner: Option<Owner>,
}

impl Taking {
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
        let placed = tokio::task::spawn_blocking(move || place(&store, key)).await;
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

/// Flushes the memory, gives it its name, and only then writes the note that makes it count.
fn place(store: &TemplateStore, key: TemplateKey) -> io::Result<Template> {
    let (memory, note) = (store.memory(&key), store.note(&key));
    let partial = beside(&memory, "partial");
    let file = fs::File::open(&partial)?;
    // No secret is inside, and VMs of other users read it; nobody writes to it again.
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    if rustix::process::geteuid().is_root() {
        Owner { uid: 0, gid: 0 }.take(&partial)?;
    }
    file.sync_all()?;
    let memory_bytes = file.metadata()?.len();
    match fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&partial, &memory)?;
    sync_folder(&store.folder)?;
    let text = serde_json::to_vec_pretty(&Note {
        format: FORMAT,
        key: key.clone(),
        memory_bytes,
    })?;
    write_atomically(&note, &text, 0o644)?;
    Ok(Template { memory, key })
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

#[cfg(test)]
mod tests;
