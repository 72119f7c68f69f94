//! Releases of a site: taken, checked, switched, kept and thrown away.
//!
//! A release is built in a folder that the site's user cannot enter, handed over whole and
//! switched by one rename of a link. Everything is on disk before the node hears that it is done.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use undine_api::guest::{Answer, FailureKind, Upload};
use undine_manifest::SiteSpec;
use undine_model::{Bytes, ReleaseId};

use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::paths::{Paths, SitePaths, WEB_GROUP};
use crate::unpack::{self, Limits};
use crate::{site, sys, units};

/// Releases that are kept beside the live one, for rolling back.
const KEPT: usize = 3;

/// The releases of one site.
pub struct Releases {
    paths: Paths,
    /// The site's folders.
    pub at: SitePaths,
    /// The site.
    pub site: SiteSpec,
    device: PathBuf,
    worker: String,
}

impl Releases {
    /// Those of `site`; `worker` is the unit that loads a new release when it starts anew.
    pub fn new(paths: &Paths, site: &SiteSpec, device: &Path, worker: String) -> Self {
        Self {
            paths: paths.clone(),
            at: paths.site(site.uid),
            site: site.clone(),
            device: device.to_owned(),
            worker,
        }
    }

    /// Where things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Makes an empty release for files that are put into it one by one, unless it is there.
    pub fn blank(&self, release: ReleaseId) -> Outcome<()> {
        if self.at.release(release).is_dir() {
            return Ok(());
        }
        let folder = self.stage(release)?;
        let seen = folder.join(&self.site.settings.document_root);
        fs::create_dir_all(&seen).doing("make the folder that visitors see")?;
        self.settle(&folder, release)
    }

    /// An empty folder in which to build a release.
    pub fn stage(&self, release: ReleaseId) -> Outcome<PathBuf> {
        let folder = self.at.incoming().join(release.to_string());
        site::discard(&self.paths, &folder).doing("clear what was left of this release")?;
        files::folder(&folder, 0, 0, 0o700).doing("make a folder for the release")?;
        Ok(folder)
    }

    /// What the site may still store. The agent works as root, whom quotas do not bind, so it
    /// keeps to them itself.
    pub fn room(&self) -> Limits {
        let used = sys::quota(&self.device, self.site.uid).unwrap_or_default();
        Limits {
            bytes: self.site.caps.disk.0.saturating_sub(used.bytes),
            inodes: self.site.caps.inodes.saturating_sub(used.inodes),
        }
    }

    /// Hands a built release to the site's user and puts it in its place.
    pub fn settle(&self, folder: &Path, release: ReleaseId) -> Outcome<()> {
        let uid = self.site.uid;
        let wrong = "hand the release to the site's user";
        site::own_tree(folder, uid, uid).doing(wrong)?;
        // Only the site's user and the web server may enter.
        chown(folder, Some(uid), Some(WEB_GROUP)).doing(wrong)?;
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o750))
            .doing(wrong)?;
        let place = self.at.release(release);
        site::discard(&self.paths, &place).doing("replace the release")?;
        fs::rename(folder, &place).doing("put the release in its place")?;
        files::sync_all_of(&self.at.home).doing("write the release to disk")
    }

    /// Makes a release live.
    pub fn activate(&self, release: ReleaseId) -> Outcome<()> {
        if !self.at.release(release).is_dir() {
            return Err(failure(
                FailureKind::NotFound,
                format!("the release {release} is not on this server; deploy it again"),
            ));
        }
        let target = Path::new("releases").join(release.to_string());
        files::link(&self.at.at("current"), &target).doing("switch the release")?;
        site::point_web(&self.at, &self.site.settings.document_root)
            .doing("point the web server to the content")?;
        files::sync_folder(&self.at.home).doing("write the switch to disk")?;
        // Compiled scripts of the old release go.
        self.restart()?;
        // Compiled scripts are filed by their path, which no other release shares.
        site::fresh_cache(&self.paths, &self.at, self.site.uid).doing("clear compiled scripts")?;
        self.prune(release).doing("remove old releases")
    }

    /// Ends the site's program, if it runs: requests that have begun are answered, the next one
    /// starts it anew.
    pub fn restart(&self) -> Outcome<()> {
        if self.worker.is_empty() || !units::site_unit_runs(self.site.uid, &self.worker) {
            return Ok(());
        }
        units::stop(&[&self.worker])
    }

    /// Keeps the live release and the newest others. Their ids rise with time.
    fn prune(&self, live: ReleaseId) -> std::io::Result<()> {
        let mut others = Vec::new();
        for entry in fs::read_dir(self.at.releases())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != live.to_string() {
                others.push((name, entry.path()));
            }
        }
        others.sort();
        others.reverse();
        for (_, path) in others.iter().skip(KEPT) {
            site::discard(&self.paths, path)?;
        }
        Ok(())
    }
}

/// An archive on its way in.
pub struct Incoming {
    releases: Releases,
    ask: Upload,
    folder: PathBuf,
    archive: PathBuf,
    file: File,
    hash: Sha256,
    taken: u64,
}

impl Incoming {
    /// Makes room for the archive that `ask` describes.
    pub fn begin(releases: Releases, ask: Upload) -> Outcome<Self> {
        let room = releases.room();
        if ask.size > room.bytes {
            return Err(failure(
                FailureKind::Full,
                format!(
                    "the archive has {}, and the site has room for {}",
                    Bytes(ask.size),
                    Bytes(room.bytes)
                ),
            ));
        }
        let folder = releases.stage(ask.release)?;
        let archive = folder.with_extension("archive");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&archive)
            .doing("make a file for the archive")?;
        Ok(Self {
            releases,
            ask,
            folder,
            archive,
            file,
            hash: Sha256::new(),
            taken: 0,
        })
    }

    /// Takes a piece.
    pub fn piece(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.taken += bytes.len() as u64;
        if self.taken > self.ask.size {
            return Err(bad("the archive is longer than announced"));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).doing("write the archive")
    }

    /// Checks and unpacks the whole archive.
    pub fn end(mut self) -> Outcome<Answer> {
        if self.taken != self.ask.size {
            return Err(bad("the archive is shorter than announced"));
        }
        let hash = self.hash.finalize_reset();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if !hash.eq_ignore_ascii_case(&self.ask.sha256) {
            return Err(bad("the archive's SHA-256 is not the announced one"));
        }
        let room = self.releases.room();
        let taken = unpack::unpack(&mut self.file, self.ask.format, &self.folder, room)?;
        self.releases.settle(&self.folder, self.ask.release)?;
        Ok(Answer::Uploaded {
            files: taken.files,
            bytes: Bytes(taken.bytes),
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.archive);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn bad(message: &str) -> undine_api::guest::Failure {
    failure(FailureKind::BadArchive, message)
}

#[cfg(test)]
mod tests;
