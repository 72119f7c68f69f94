//! What has been applied, kept on the data disk.
//!
//! `manifest.json` holds the whole; every delta since is one line in `journal`, so that one more
//! site costs one line. The journal is folded in when it has grown as long as the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use undine_manifest::{DatabaseSpec, Manifest, ManifestDelta, Profile, SiteSpec};
use undine_model::{DatabaseId, ServerId, SiteId};

use crate::files;
use crate::paths::Paths;

/// The desired state that was applied, and the sites of which it could not be.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Its version.
    pub version: u64,
    /// The server it is for.
    pub server: ServerId,
    /// The profile.
    pub profile: Profile,
    /// The sites.
    pub sites: BTreeMap<SiteId, SiteSpec>,
    /// The databases.
    pub databases: BTreeMap<DatabaseId, DatabaseSpec>,
    /// Sites that failed; they are tried again with the next whole manifest.
    pub failed: BTreeSet<SiteId>,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    manifest: Manifest,
    failed: BTreeSet<SiteId>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    delta: ManifestDelta,
    failed: BTreeSet<SiteId>,
}

impl Applied {
    /// A manifest, as if all of it had been applied.
    pub fn of(manifest: Manifest) -> Self {
        Self {
            version: manifest.version,
            server: manifest.server,
            profile: manifest.profile,
            sites: manifest.sites.into_iter().map(|s| (s.id, s)).collect(),
            databases: manifest.databases.into_iter().map(|d| (d.id, d)).collect(),
            failed: BTreeSet::new(),
        }
    }

    /// The state after a delta.
    pub fn change(&mut self, delta: ManifestDelta) {
        self.version = delta.to;
        for id in &delta.removed_sites {
            self.sites.remove(id);
            self.failed.remove(id);
        }
        for id in &delta.removed_databases {
            self.databases.remove(id);
        }
        self.sites
            .extend(delta.sites.into_iter().map(|s| (s.id, s)));
        self.databases
            .extend(delta.databases.into_iter().map(|d| (d.id, d)));
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            format: undine_manifest::FORMAT,
            version: self.version,
            server: self.server,
            profile: self.profile.clone(),
            sites: self.sites.values().cloned().collect(),
            databases: self.databases.values().cloned().collect(),
        }
    }
}

/// The two files.
pub struct Journal {
    paths: Paths,
    whole_bytes: u64,
    journal_bytes: u64,
}

impl Journal {
    /// Reads what was applied, if anything was.
    pub fn open(paths: &Paths) -> io::Result<(Self, Option<Applied>)> {
        let mut journal = Self {
            paths: paths.clone(),
            whole_bytes: 0,
            journal_bytes: 0,
        };
        let Ok(whole) = fs::read(journal.whole_path()) else {
            return Ok((journal, None));
        };
        let parsed: Whole = serde_json::from_slice(&whole)?;
        let mut applied = Applied::of(parsed.manifest);
        applied.failed = parsed.failed;
        journal.whole_bytes = whole.len() as u64;
        let lines = fs::read(journal.journal_path()).unwrap_or_default();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            // The last line may have been cut off by a crash: then it was never answered.
            let Ok(line) = serde_json::from_slice::<Line>(line) else {
                break;
            };
            if line.delta.from == applied.version {
                applied.change(line.delta);
                applied.failed = line.failed;
            }
        }
        // One whole file to begin with: a cut-off line must not stand before new ones.
        if !lines.is_empty() {
            journal.save(&applied)?;
        }
        Ok((journal, Some(applied)))
    }

    fn whole_path(&self) -> std::path::PathBuf {
        self.paths.own().join("manifest.json")
    }

    fn journal_path(&self) -> std::path::PathBuf {
        self.paths.own().join("journal")
    }

    /// Keeps the whole state.
    pub fn save(&mut self, applied: &Applied) -> io::Result<()> {
        let text = serde_json::to_vec(&Whole {
            manifest: applied.manifest(),
            failed: applied.failed.clone(),
        })?;
        files::replace_durably(&self.whole_path(), &text, 0o600)?;
        files::remove(&self.journal_path())?;
        self.whole_bytes = text.len() as u64;
        self.journal_bytes = 0;
        Ok(())
    }

    /// Keeps one change, whose result is `applied`.
    pub fn add(&mut self, delta: ManifestDelta, applied: &Applied) -> io::Result<()> {
        if self.journal_bytes > self.whole_bytes.max(256 << 10) {
            return self.save(applied);
        }
        let mut line = serde_json::to_vec(&Line {
            delta,
            failed: applied.failed.clone(),
        })?;
        line.push(b'\n');
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.journal_path())?;
        file.write_all(&line)?;
        file.sync_data()?;
        if self.journal_bytes == 0 {
            files::sync_folder(&self.paths.own())?;
        }
        self.journal_bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
