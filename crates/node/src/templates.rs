//! RAM templates of this node: fetched or taken once for each image and shape, when control asks
//! for it ([`prepare`]) or before the first start that wants one. One is taken at a time; whoever needs it meanwhile waits for it.

pub mod peers;
pub mod prepare;
pub mod shape;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use undine_model::MilliCpu;
use undine_qemu::command::{Boot, VmConfig};
use undine_qemu::files::{Owner, RunDir};
use undine_qemu::process::Program;
use undine_qemu::template::{Template, TemplateKey, TemplateStore};
use undine_qemu::vm::Vm;

use crate::cgroup::{Cgroup, Limits};
use crate::guest::Guest;
use crate::host::QEMU;
use crate::problems::chain;
use crate::uids::Uids;

/// A cold boot takes a quarter of a minute under emulation, several times that under load.
const BOOT: Duration = Duration::from_secs(240);
/// How long the guest may go on being busy after its agent answered.
const SETTLE: Duration = Duration::from_secs(40);
/// After a failed try nobody waits for another one for this long.
const PAUSE: Duration = Duration::from_secs(600);

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// A server waits for it.
    Start,
    /// Nobody waits: servers that run come first.
    Background,
}

/// The control group of a template's VM.
const GROUP: &str = "template";

/// The templates of a node.
pub struct Templates {
    store: TemplateStore,
    run_dir: PathBuf,
    uids: Arc<Uids>,
    cgroup: Cgroup,
    taking: Mutex<()>,
    failed: std::sync::Mutex<HashMap<String, (Instant, String)>>,
    peers: Option<Arc<dyn peers::Peers>>,
    under_way: prepare::UnderWay,
    hashes: std::sync::Mutex<HashMap<String, (std::time::SystemTime, String)>>,
}

impl Templates {
    /// The templates in this folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(
        folder: PathBuf,
        run_dir: PathBuf,
        uids: Arc<Uids>,
        cgroup: Cgroup,
    ) -> std::io::Result<Self> {
        if let Ok(Some(left)) = Vm::find_process(&RunDir::new(run_dir.join("template"))) {
            // Its agent was killed while it took one.
            left.kill()?;
        }
        Ok(Self {
            store: TemplateStore::open(folder)?,
            run_dir,
            uids,
            cgroup,
            taking: Mutex::new(()),
            failed: std::sync::Mutex::default(),
            peers: None,
            under_way: std::sync::Mutex::default(),
            hashes: std::sync::Mutex::default(),
        })
    }

    /// The template for this key, if it is here.
    pub fn at_hand(&self, key: &TemplateKey) -> Option<Template> {
        self.store.find(key)
    }

    /// With other nodes to fetch from.
    #[must_use]
    pub fn with_peers(self, peers: Arc<dyn peers::Peers>) -> Self {
        Self {
            peers: Some(peers),
            ..self
        }
    }

    /// A template of this name with the SHA-256 of its memory, for another node.
    ///
    /// # Errors
    /// Its memory cannot be read.
    pub async fn served(&self, name: &str) -> std::io::Result<Option<(Template, String)>> {
        let Some(template) = self.store.named(name) else {
            return Ok(None);
        };
        let when = std::fs::metadata(template.memory())?.modified()?;
        let known = self.hashes().get(name).cloned();
        if let Some((_, hash)) = known.filter(|(at, _)| *at == when) {
            return Ok(Some((template, hash)));
        }
        let path = template.memory().to_owned();
        let hash = tokio::task::spawn_blocking(move || crate::images::hash_of(&path))
            .await
            .map_err(std::io::Error::other)??;
        self.hashes().insert(name.to_owned(), (when, hash.clone()));
        Ok(Some((template, hash)))
    }

    fn hashes(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, (std::time::SystemTime, String)>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The template for this key, taken first when there is none; or why there is none.
    ///
    /// # Errors
    /// In words, for the server's start report: the caller boots cold.
    pub async fn get(&self, key: &TemplateKey, boot: &Boot) -> Result<Template, String> {
        if let Some(template) = self.store.find(key) {
            return Ok(template);
        }
        if self.taking.try_lock().is_err() {
            // Whatever is being taken in the background, a server waits behind it now.
            let _ = self.cgroup.child(GROUP).make(limits(Pace::Start));
        }
        let _one_at_a_time = self.taking.lock().await;
        self.take_once(key, boot, Pace::Start).await
    }

    /// Takes it unless it is here by now or failed lately; the caller holds `taking`.
    async fn take_once(
        &self,
        key: &TemplateKey,
        boot: &Boot,
        pace: Pace,
    ) -> Result<Template, String> {
        if let Some(template) = self.store.find(key) {
            return Ok(template);
        }
        if let Some(reason) = self.failed_lately(key) {
            return Err(reason);
        }
        let taken = self.take(key, boot, pace).await;
        if let Err(reason) = &taken {
            tracing::warn!(
                reason,
                template = key.file_name(),
                "no template could be taken"
            );
            self.failures()
                .insert(key.file_name(), (Instant::now(), reason.clone()));
        }
        taken
    }

    /// Forgets a template that did not work, and does not take it again for a while.
    pub fn discard(&self, key: &TemplateKey, reason: &str) {
        let _ = self.store.remove(key);
        self.failures()
            .insert(key.file_name(), (Instant::now(), reason.to_owned()));
    }

    async fn take(&self, key: &TemplateKey, boot: &Boot, pace: Pace) -> Result<Template, String> {
        let begin = Instant::now();
        let uid = self.uids.take("template").map_err(|error| chain(&error))?;
        let owner = Owner { uid, gid: uid };
        let run_dir = RunDir::new(self.run_dir.join("template"));
        // Logs and sockets of an earlier one, perhaps under another user.
        let _ = std::fs::remove_dir_all(run_dir.path());
        let config = VmConfig {
            name: "template".to_owned(),
            // Nobody's: a restored VM is told its own.
            uuid: undine_model::ServerId::from_parts(0, [0; 10]).uuid(),
            shape: key.shape.clone(),
            boot: boot.clone(),
            run_dir,
        };
        let group = self.cgroup.child(GROUP);
        group.make(limits(pace)).map_err(|e| chain(&e))?;
        let program = Program {
            owner: Some(owner),
            ..Program::new(QEMU)
        };
        let taking = self
            .store
            .start_taking(&program, &config, key.clone())
            .await
            .map_err(|error| chain(&error))?;
        group
            .add(taking.vm().process().id().pid)
            .map_err(|error| chain(&error))?;
        let mut guest = Guest::new(taking.vm().run_dir().agent());
        tokio::select! {
            answered = guest.hello(BOOT) => answered.map_err(|error| chain(&error))?,
            _ = taking.vm().wait() => {
                return Err("the template's VM ended while it booted".to_owned());
            }
        };
        guest.close();
        let booted_s = begin.elapsed().as_secs_f64();
        settled(&group).await;
        let settled_s = begin.elapsed().as_secs_f64();
        let template = taking.finish().await.map_err(|error| chain(&error))?;
        group.remove();
        let seconds = begin.elapsed().as_secs_f64();
        let template_name = key.file_name();
        tracing::info!(
            template_name,
            booted_s,
            settled_s,
            seconds,
            "template taken"
        );
        Ok(template)
    }

    fn failed_lately(&self, key: &TemplateKey) -> Option<String> {
        let failures = self.failures();
        let (when, reason) = failures.get(&key.file_name())?;
        (when.elapsed() < PAUSE).then(|| reason.clone())
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(pace: Pace) -> Limits {
    Limits {
        cpu: None,
        // Less than any server's, or as much as a whole one.
        reserved: Some(match pace {
            Pace::Start => MilliCpu(1000),
            Pace::Background => MilliCpu(20),
        }),
        memory: None,
        tasks: 256,
    }
}

/// Waits until the guest has finished booting: until its VM rests for a second.
async fn settled(group: &Cgroup) {
    const STEP: Duration = Duration::from_millis(250);
    let until = Instant::now() + SETTLE;
    let mut last = group.cpu_time().unwrap_or_default();
    let mut quiet = 0;
    while quiet < 4 && Instant::now() < until {
        tokio::time::sleep(STEP).await;
        let now = group.cpu_time().unwrap_or_default();
        quiet = if now.saturating_sub(last) < STEP / 5 {
            quiet + 1
        } else {
            0
        };
        last = now;
    }
}
