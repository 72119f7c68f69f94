//! What this machine offers to VMs: which QEMU, and whether guests run on its processor.
//!
//! The probe needs a kernel, so it runs before the first start of a server. Its answer is kept
//! until QEMU or the machine's kernel changes.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use undine_qemu::accel::{self, Accel, Probe};
use undine_qemu::version::{VersionError, qemu_version};

use crate::files;
use crate::inventory::Fixed;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// What serves disks, unless told otherwise.
pub const STORAGE_DAEMON: &str = "qemu-storage-daemon";

/// How guests are to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// By what a probe finds.
    Probe,
    /// By this.
    Fixed(Accel),
}

/// What this machine offers.
#[derive(Debug)]
pub struct Host {
    version: String,
    path: PathBuf,
    choice: Choice,
    known: RwLock<Option<Probe>>,
    probing: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    qemu: String,
    kernel: String,
    probe: Probe,
}

impl Host {
    /// Asks QEMU for its version and reads what an earlier probe found.
    ///
    /// # Errors
    /// There is no QEMU.
    pub async fn open(state_dir: &Path, choice: Choice) -> Result<Self, VersionError> {
        let version = qemu_version(Path::new(QEMU)).await?;
        let path = state_dir.join("accelerator.json");
        let known = match choice {
            Choice::Fixed(accel) => Some(Probe {
                accel,
                reason: "its operator said so".to_owned(),
            }),
            Choice::Probe => files::read_json::<Kept>(&path)
                .ok()
                .flatten()
                .filter(|kept| kept.qemu == version && kept.kernel == kernel())
                .map(|kept| kept.probe),
        };
        Ok(Self {
            version,
            path,
            choice,
            known: RwLock::new(known),
            probing: Mutex::new(()),
        })
    }

    /// QEMU's full version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How guests are run here; probed with this kernel the first time.
    pub async fn accel(&self, guest_kernel: &Path, machine: &str, cpu: &str) -> Accel {
        let _one_at_a_time = self.probing.lock().await;
        if let Some(probe) = self.known() {
            return probe.accel;
        }
        let probe = accel::probe(Path::new(QEMU), guest_kernel, machine, cpu).await;
        tracing::info!(accelerator = %probe.accel, reason = probe.reason, "accelerator probed");
        let kept = Kept {
            qemu: self.version.clone(),
            kernel: kernel(),
            probe: probe.clone(),
        };
        if self.choice == Choice::Probe
            && let Err(error) = files::write_json(&self.path, &kept)
        {
            tracing::warn!(%error, "the probe's answer could not be kept");
        }
        let accel = probe.accel;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(probe);
        accel
    }

    /// For the inventory.
    pub fn fixed(&self) -> Fixed {
        let probe = self.known();
        Fixed {
            accelerator: probe
                .as_ref()
                .map_or(Accel::Tcg, |probe| probe.accel)
                .to_string(),
            accelerator_reason: probe.map_or_else(
                || "not probed yet: that takes a server's kernel, at the first start".to_owned(),
                |probe| probe.reason,
            ),
            qemu: self.version.clone(),
        }
    }

    fn known(&self) -> Option<Probe> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
