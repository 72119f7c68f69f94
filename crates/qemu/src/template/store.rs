//! The folder of a host's templates: what counts as one, and how it gets its place.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Taking, Template, TemplateError, TemplateKey};
use crate::command::VmConfig;
use crate::files::{Owner, beside, sync_folder, write_atomically};
use crate::process::Program;

/// The layout of the note.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    key: TemplateKey,
    memory_bytes: u64,
    /// Where it was copied from; none for one that was taken here.
    #[serde(default)]
    origin: Option<String>,
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

    /// The template of this name, whatever its key; a name that no template has finds nothing.
    pub fn named(&self, name: &str) -> Option<Template> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        let note = fs::read(self.folder.join(format!("{name}.json"))).ok()?;
        let note: Note = serde_json::from_slice(&note).ok()?;
        let found = self.find(&note.key)?;
        (note.key.file_name() == name).then_some(found)
    }

    /// Where memory that comes from another host is gathered, until [`Self::arrived`].
    pub fn incoming(&self, key: &TemplateKey) -> PathBuf {
        beside(&self.memory(key), "incoming")
    }

    /// Makes what was gathered, and checked by the caller, the template of this key.
    pub fn arrived(&self, key: TemplateKey, origin: &str) -> io::Result<Template> {
        let incoming = self.incoming(&key);
        place(self, key, &incoming, Some(origin.to_owned()))
    }

    /// Removes a template, for one that failed to restore. Repeating is harmless.
    pub fn remove(&self, key: &TemplateKey) -> io::Result<()> {
        // The note first: without it the memory counts for nothing.
        for path in [
            self.note(key),
            self.memory(key),
            beside(&self.memory(key), "partial"),
            self.incoming(key),
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
        Taking::start(self.clone(), program, config, key).await
    }

    pub(super) fn memory(&self, key: &TemplateKey) -> PathBuf {
        self.folder.join(format!("{}.ram", key.file_name()))
    }

    pub(super) fn note(&self, key: &TemplateKey) -> PathBuf {
        self.folder.join(format!("{}.json", key.file_name()))
    }
}

/// Flushes the memory, gives it its name, and only then writes the note that makes it count.
pub(super) fn place(
    store: &TemplateStore,
    key: TemplateKey,
    partial: &Path,
    origin: Option<String>,
) -> io::Result<Template> {
    let (memory, note) = (store.memory(&key), store.note(&key));
    let file = fs::File::open(partial)?;
    // No secret is inside, and VMs of other users read it; nobody writes to it again.
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    if rustix::process::geteuid().is_root() {
        Owner { uid: 0, gid: 0 }.take(partial)?;
    }
    file.sync_all()?;
    let memory_bytes = file.metadata()?.len();
    match fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(partial, &memory)?;
    sync_folder(&store.folder)?;
    let text = serde_json::to_vec_pretty(&Note {
        format: FORMAT,
        key: key.clone(),
        memory_bytes,
        origin,
    })?;
    write_atomically(&note, &text, 0o644)?;
    Ok(Template { memory, key })
}
