//! Making folders, renaming and removing.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, RenameFlags, mkdirat, renameat_with};
use rustix::io::Errno;
use undine_api::guest::{Answer, FailureKind};
use undine_api::public::FileEntry;
use undine_model::SitePath;

use super::list::entry;
use super::trees::{Trees, inside, look, mark, told};
use super::upload::changed;
use crate::fail::{Doing, Outcome, failure};
use crate::release::Releases;
use crate::site;

/// What was removed begins with this until it is thrown away.
const GONE: &str = ".undine-gone-";

/// Has a folder's names on disk.
pub fn on_disk(folder: impl AsFd) -> Outcome<()> {
    let open = inside(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY).doing("open the folder")?;
    File::from(open)
        .sync_all()
        .doing("write the folder to disk")
}

fn fit(path: &SitePath) -> Outcome<()> {
    path.check_new()
        .map_err(|error| failure(FailureKind::Invalid, error.to_string()))
}

fn told_of(trees: &Trees, folder: &OwnedFd, path: &SitePath) -> Outcome<FileEntry> {
    let name = path.name().unwrap_or_default();
    let stat = look(folder, name)
        .and_then(|found| found.ok_or(Errno::NOENT))
        .map_err(|error| told(error, path))?;
    Ok(entry(trees, folder, &path.parent(), name, &stat))
}

/// Makes a folder.
pub fn folder(trees: &Trees, path: &SitePath) -> Outcome<FileEntry> {
    fit(path)?;
    let (parent, name) = trees.place(path)?;
    mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(|error| told(error, path))?;
    on_disk(&parent)?;
    told_of(trees, &parent, path)
}

/// Makes the folders of a path that are not there, from the top down. Each is looked for without
/// following links, and made by its name in the open folder above it; what another makes at the
/// same moment is as good.
pub fn folders(trees: &Trees, path: &SitePath) -> Outcome<()> {
    if path.within().is_empty() {
        return Ok(());
    }
    match trees.folder(path) {
        Ok(_) => return Ok(()),
        Err(failure) if failure.kind == FailureKind::NotFound => {}
        Err(failure) => return Err(failure),
    }
    // The deepest name first, so that nothing is made for a path that is refused anyway.
    fit(path)?;
    folders(trees, &path.parent())?;
    let (parent, name) = trees.place(path)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => on_disk(&parent),
        Err(Errno::EXIST) => trees.folder(path).map(drop),
        Err(error) => Err(told(error, path)),
    }
}

/// Gives something another name or place.
pub fn rename(trees: &Trees, from: &SitePath, to: &SitePath) -> Outcome<FileEntry> {
    fit(to)?;
    if from.holds(to) {
        return Err(failure(
            FailureKind::Invalid,
            format!("`{from}` cannot be moved into itself"),
        ));
    }
    let (old, name) = trees.place(from)?;
    look(&old, name)
        .and_then(|found| found.ok_or(Errno::NOENT))
        .map_err(|error| told(error, from))?;
    let (new, other) = trees.place(to)?;
    renameat_with(&old, name, &new, other, RenameFlags::NOREPLACE)
        .map_err(|error| told(error, to))?;
    on_disk(&new)?;
    on_disk(&old)?;
    told_of(trees, &new, to)
}

/// A name in `tmp` that nothing has.
pub fn fresh(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        ".undine-{what}-{:x}-{}",
        now.unwrap_or_default().as_nanos(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Takes something out of sight, as the site's user: what that user may not move it may not
/// remove.
pub fn put_aside(trees: &Trees, path: &SitePath, expected: Option<&str>) -> Outcome<()> {
    let (folder, name) = trees.place(path)?;
    let stat = look(&folder, name)
        .and_then(|found| found.ok_or(Errno::NOENT))
        .map_err(|error| told(error, path))?;
    if expected.is_some_and(|expected| expected != mark(&stat)) {
        return Err(changed(path));
    }
    let gone = fresh("gone");
    debug_assert!(gone.starts_with(GONE));
    renameat_with(&folder, name, &trees.tmp, &*gone, RenameFlags::NOREPLACE)
        .map_err(|error| told(error, path))?;
    on_disk(&folder)
}

/// Deletes what was put aside, in the background, and what an earlier agent left there. The folder
/// is root's to name, and last names are not followed: whatever the site's programs put there,
/// that alone goes.
pub fn forget(releases: &Releases) -> Outcome<Answer> {
    let wrong = "throw away what was removed";
    let tmp = releases.at.at("tmp");
    for entry in std::fs::read_dir(&tmp).doing(wrong)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(GONE) {
            site::discard(releases.paths(), &tmp.join(entry.file_name())).doing(wrong)?;
        }
    }
    Ok(Answer::Done)
}
