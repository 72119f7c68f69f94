//! Spares: VMs that came from a template and have rehearsed a start, ready to become a server.
//!
//! Under emulation a guest's code is translated when it first runs, and a restored VM begins with
//! none of it: its programs start several times slower than a minute later. A spare has run them
//! already ([`undine_api::guest::Ask::Rehearse`]), so that a server that comes here from a dead node answers
//! sooner. With KVM nothing is translated, and no spares are kept.
//!
//! ```text
//! restored ─► rehearsed ─► held still ──taken──► its folder, user and process become a server's
//!     └──────────┴────────────┴─► ended: nobody wishes it, memory is short, the agent ends
//! ```
//!
//! They live on what nobody uses: processor time at a low weight, memory that is free; and none is
//! begun while a server starts. A spare that an agent left behind is ended by the next one, for
//! only the memory of this process says what it has rehearsed.

mod keeping;
mod making;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use undine_api::node::TemplateWish;
use undine_manifest::Profile;
use undine_model::{Id, ServerId};
use undine_qemu::command::Boot;
use undine_qemu::files::RunDir;
use undine_qemu::template::TemplateKey;
use undine_qemu::vm::Vm;

use crate::cgroup::Cgroup;
use crate::problems::chain;
use crate::uids::Uids;

pub use keeping::keep;

/// The node's spares.
pub struct Spares {
    folder: PathBuf,
    uids: Arc<Uids>,
    cgroup: Cgroup,
    /// At most so many for each shape of server.
    most: usize,
    book: Mutex<Book>,
    news: Notify,
}

#[derive(Default)]
struct Book {
    /// By the template's name.
    wishes: BTreeMap<String, Wished>,
    ready: Vec<Spare>,
    last_start: Option<Instant>,
}

/// What control last said of a shape.
#[derive(Clone)]
struct Wished {
    kind: Kind,
    boot: Boot,
    count: usize,
    heard: Instant,
    /// The last try failed then.
    failed: Option<Instant>,
}

/// What a spare can become.
#[derive(Clone, PartialEq)]
struct Kind {
    key: TemplateKey,
    /// What it has rehearsed. Another profile's server would find files in it that are not its own.
    profile: Profile,
}

/// One that is ready, or in the making.
struct Spare {
    id: ServerId,
    kind: Kind,
    vm: Vm,
}

/// A spare that became a server's VM.
pub struct Taken {
    /// Its VM, in the server's folder.
    pub vm: Vm,
    /// What it was before.
    pub spare: ServerId,
}

impl Spares {
    /// None yet; ends what an earlier agent left.
    ///
    /// # Errors
    /// A left-over cannot be ended, or its user not be freed.
    pub async fn open(
        run_dir: &Path,
        uids: Arc<Uids>,
        cgroup: &Cgroup,
        most: usize,
    ) -> anyhow::Result<Self> {
        let spares = Self {
            folder: run_dir.join("spare"),
            uids,
            // Beside the node's own, so that no server anywhere on this machine waits for them.
            cgroup: cgroup.beside("spares"),
            most,
            book: Mutex::default(),
            news: Notify::new(),
        };
        spares.sweep().await?;
        Ok(spares)
    }

    /// Ends whatever runs in the spares' folder; the agent begins, or goes.
    ///
    /// # Errors
    /// One cannot be ended.
    pub async fn sweep(&self) -> anyhow::Result<()> {
        self.book().ready.clear();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten() {
            let entry = entry?;
            if let Some(left) = Vm::find_process(&RunDir::new(entry.path()))? {
                left.kill()?;
                // Its group can be removed only then.
                left.gone().await?;
            }
            std::fs::remove_dir_all(entry.path())?;
            let name = entry.file_name();
            self.cgroup
                .child(&format!("{HOLDER}{}", name.to_string_lossy()))
                .remove();
        }
        self.cgroup.remove();
        Ok(self.uids.give_back_all(HOLDER)?)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Control wishes a template that is here: its spares are kept from now on.
    pub fn wish(&self, wish: &TemplateWish, key: &TemplateKey, boot: &Boot) {
        let count = self.most.min(wish.elsewhere as usize);
        let Some(profile) = wish.rehearsal.as_deref().filter(|_| count > 0) else {
            self.book().wishes.remove(&key.file_name());
            return;
        };
        let mut book = self.book();
        // A profile that was mended is tried at once.
        let before = book.wishes.get(&key.file_name());
        let same = before.filter(|it| it.kind.profile == *profile);
        let failed = same.and_then(|it| it.failed);
        let wished = Wished {
            kind: Kind {
                key: key.clone(),
                profile: profile.clone(),
            },
            boot: boot.clone(),
            count,
            heard: Instant::now(),
            failed,
        };
        book.wishes.insert(key.file_name(), wished);
        drop(book);
        self.news.notify_one();
    }

    /// A server starts: nothing is made beside it.
    pub fn starting(&self) {
        self.book().last_start = Some(Instant::now());
    }

    /// Makes a spare of this template and profile the VM of a server that runs nowhere here: its folder and
    /// user are the server's from now on. None when no spare fits.
    ///
    /// Dying inside leaves a spare, which the next agent ends, or a VM in the server's folder,
    /// which it ends as the rest of a start that was broken off.
    ///
    /// # Errors
    /// In words: the caller starts another way.
    pub async fn take(
        &self,
        key: &TemplateKey,
        profile: &Profile,
        server: ServerId,
        folder: &Path,
    ) -> Result<Option<Taken>, String> {
        let Some(spare) = self.pick(key, profile) else {
            return Ok(None);
        };
        match self.hand_over(&spare, server, folder) {
            Ok(vm) => {
                tracing::info!(%server, spare = %spare.id, "a spare becomes the server");
                Ok(Some(Taken {
                    vm,
                    spare: spare.id,
                }))
            }
            Err(reason) => {
                self.end(&spare).await;
                Err(reason)
            }
        }
    }

    fn pick(&self, key: &TemplateKey, profile: &Profile) -> Option<Spare> {
        let mut book = self.book();
        let fits = |it: &Spare| it.kind.suits(key, profile) && it.vm.process().exit().is_none();
        let at = book.ready.iter().position(fits)?;
        Some(book.ready.remove(at))
    }

    fn hand_over(&self, spare: &Spare, server: ServerId, folder: &Path) -> Result<Vm, String> {
        let own = self.run_dir(spare.id);
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(chain(&error));
            }
            _ => {}
        }
        std::fs::rename(own.path(), folder).map_err(|error| chain(&error))?;
        let _ = std::fs::remove_file(folder.join(READY));
        let holder = crate::replicas::vm_holder(server);
        self.uids
            .hand_over(&holder_of(spare.id), &holder)
            .map_err(|error| chain(&error))?;
        Ok(spare.vm.moved_to(RunDir::new(folder)))
    }

    /// The group that a spare leaves when it becomes a server.
    fn group(&self, spare: ServerId) -> Cgroup {
        self.cgroup.child(&holder_of(spare))
    }

    fn run_dir(&self, spare: ServerId) -> RunDir {
        RunDir::new(self.folder.join(spare.uuid().simple().to_string()))
    }

    async fn end(&self, spare: &Spare) {
        if let Err(error) = spare.vm.kill().await {
            tracing::warn!(spare = %spare.id, error = chain(&error), "a spare does not end");
            return;
        }
        self.clean(spare.id);
    }

    /// Removes what is left of a spare whose process is gone.
    fn clean(&self, spare: ServerId) {
        let _ = std::fs::remove_dir_all(self.run_dir(spare).path());
        self.group(spare).remove();
        if let Err(error) = self.uids.give_back(&holder_of(spare)) {
            tracing::warn!(%spare, error = chain(&error), "a spare's user was not freed");
        }
    }
}

impl Kind {
    fn suits(&self, key: &TemplateKey, profile: &Profile) -> bool {
        self.key == *key && self.profile == *profile
    }
}

/// The file that tells whoever looks into a spare's folder that it is ready.
pub const READY: &str = "ready";
/// What every spare's name begins with in the book of users.
const HOLDER: &str = "spare-";

fn holder_of(spare: ServerId) -> String {
    format!("{HOLDER}{}", spare.uuid().simple())
}

fn fresh_id() -> ServerId {
    Id::from_parts(0, rand::random())
}

#[cfg(test)]
mod tests;
