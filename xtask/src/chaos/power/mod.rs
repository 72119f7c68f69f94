//! Power loss: what a disk had not flushed may be gone. `kill -9` alone keeps the machine's page
//! cache, so storage daemons of a trial write through QEMU's `blklogwrites`, which logs every write
//! and every flush; when a node loses its power, its images are rebuilt out of their state at the
//! daemon's start and that log: all up to the last flush, and of the later writes those that chance
//! let reach the platter.
//!
//! The agents' own files are not rebuilt: they keep what the page cache had.

mod log;
mod recorder;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::cluster::Node;
use crate::trial::rng::Rng;
use crate::up::{layout, supervise};

pub use recorder::run_if_called_so;

/// The name that a storage daemon goes by.
const DAEMON: &str = "qemu-storage-daemon";
/// Beside the recorder: logs and what the images were when they began. Any daemon's user writes.
const LOGS: &str = "logs";

fn folder() -> PathBuf {
    layout::state("power")
}

/// Before a cluster is started: the recorder that its agents are to start instead of the storage
/// daemon. None for a cluster that runs already.
pub fn prepare() -> Result<Option<PathBuf>> {
    let folder = folder();
    let recorder = folder.join(DAEMON);
    if supervise::pid("supervisor").is_some() || folder.exists() {
        return Ok(None);
    }
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(folder.join(LOGS))?;
        fs::set_permissions(folder.join(LOGS), fs::Permissions::from_mode(0o777))?;
        fs::copy(std::env::current_exe()?, &recorder)?;
        fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755))
    };
    make().with_context(|| format!("{} could not be made", folder.display()))?;
    Ok(Some(recorder))
}

/// Beside the recorder when disks are not to flush: a mistake on purpose.
const NO_FLUSH: &str = "no-flush";

/// Daemons that are started from now on never flush.
pub fn never_flush() -> Result<()> {
    fs::write(folder().join(NO_FLUSH), b"").context("the mistake could not be planted")
}

/// Are the writes of the cluster's disks logged?
pub fn is_logged() -> bool {
    folder().join(DAEMON).exists()
}

/// A dead node's images as its disk holds them after a power loss; what was lost, in words.
pub fn lose(node: &Node, seed: u64) -> Result<String> {
    let (mut rng, mut lost, mut written) = (Rng::new(seed), 0, 0);
    let logs = folder().join(LOGS);
    let entries = fs::read_dir(&logs).with_context(|| format!("{}", logs.display()))?;
    for entry in entries {
        let recording = Recording::at(&entry?.path());
        let Some(recording) =
            recording.filter(|it| it.image.starts_with(layout::state(&node.name)))
        else {
            continue;
        };
        let told = log::rebuild(&recording, &mut || rng.below(2) == 0)
            .with_context(|| format!("{} could not be rebuilt", recording.image.display()))?;
        lost += told.lost;
        written += told.writes;
    }
    Ok(format!("{lost} of {written} logged writes lost"))
}

/// The files of one image's recording.
struct Recording {
    image: PathBuf,
    base: PathBuf,
    log: PathBuf,
}

impl Recording {
    /// Of an image, below the folder of recordings.
    fn of(image: &Path, logs: &Path) -> Self {
        let name = image.display().to_string().replace('/', "%");
        Self {
            image: image.to_owned(),
            base: logs.join(format!("{name}.base")),
            log: logs.join(format!("{name}.log")),
        }
    }

    /// Whose log this is; none for other files, and for an image that is no more.
    fn at(log: &Path) -> Option<Self> {
        let name = log.file_name()?.to_str()?.strip_suffix(".log")?;
        let image = PathBuf::from(name.replace('%', "/"));
        let recording = Self::of(&image, log.parent()?);
        (image.exists() && recording.base.exists()).then_some(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_found_by_its_log() {
        let dir = std::env::temp_dir().join(format!("undine-power-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let image = dir.join("image.qcow2");
        let recording = Recording::of(&image, &dir);
        assert!(Recording::at(&recording.log).is_none());
        for path in [&image, &recording.base, &recording.log] {
            fs::write(path, b"").unwrap();
        }
        assert_eq!(Recording::at(&recording.log).unwrap().image, image);
        assert!(Recording::at(&recording.base).is_none());
        fs::remove_dir_all(dir).unwrap();
    }
}
