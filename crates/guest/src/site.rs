//! One site on the data disk: folders, owners, quota, and the links by which it is found.
//!
//! The site's own folder belongs to root, so its user cannot replace what the web server follows;
//! below it every folder is shut to other sites' users.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use undine_manifest::SiteSpec;
use undine_model::DomainName;

use crate::fail::{Doing, Outcome};
use crate::files;
use crate::paths::{Paths, SitePaths, WEB_GROUP};
use crate::sys;

/// Where visitors of a site without content are led.
const WELCOME: &str = "/run/undine/www/welcome";

/// Makes or corrects everything of a site on the data disk; `device` carries the quotas.
pub fn ensure(paths: &Paths, site: &SiteSpec, device: &Path) -> Outcome<()> {
    let at = paths.site(site.uid);
    // A rehearsal's disk is memory, which has no quotas.
    let counted = !device.as_os_str().is_empty();
    folders(&at, site.uid, counted).doing(format_args!("make the folders of {}", site.domain))?;
    limits(site, device)?;
    marker(&at.at("suspended"), site.suspended)
        .doing(format_args!("mark {} as suspended", site.domain))?;
    marker(&at.at("page-cache"), site.settings.page_cache)
        .doing(format_args!("mark the page cache of {}", site.domain))?;
    if let Some(release) = site.release {
        let known = at.release(release).is_dir();
        if !known && !at.at("current").exists() {
            return Err(crate::fail::failure(
                undine_api::guest::FailureKind::NotFound,
                format!("the release {release} is not on this server; deploy it again"),
            ));
        }
        if known {
            let target = Path::new("releases").join(release.to_string());
            files::link(&at.at("current"), &target).doing("switch the release")?;
        }
    }
    point_web(&at, &site.settings.document_root).doing("point the web server to the content")?;
    names(paths, site).doing(format_args!("link the names of {}", site.domain))
}

fn folders(at: &SitePaths, uid: u32, counted: bool) -> io::Result<()> {
    let fresh = !at.home.exists();
    files::folder(&at.home, 0, 0, 0o755)?;
    if fresh && counted {
        // Set before anything is in it, so that all of it is counted.
        project(&at.home, uid, false)?;
    }
    files::folder(&at.releases(), 0, 0, 0o755)?;
    files::folder(&at.incoming(), 0, 0, 0o700)?;
    for (name, owner, group, mode, synchronous) in [
        ("shared", uid, WEB_GROUP, 0o750, true),
        ("sessions", uid, uid, 0o700, true),
        ("uploads", uid, uid, 0o700, true),
        ("tmp", uid, uid, 0o700, false),
        ("opcache", uid, uid, 0o700, false),
        ("logs", WEB_GROUP, uid, 0o750, false),
    ] {
        let folder = at.at(name);
        let fresh = !folder.exists();
        files::folder(&folder, owner, group, mode)?;
        if fresh && synchronous && counted {
            // What a visitor was told is stored is on disk: PHP itself never asks for that.
            project(&folder, uid, true)?;
        }
    }
    let errors = at.at("logs").join("error.log");
    if !errors.exists() {
        files::replace_owned(&errors, b"", 0o640, Some((uid, 0)))?;
    }
    Ok(())
}

#[cfg(not(test))]
fn project(folder: &Path, uid: u32, synchronous: bool) -> io::Result<()> {
    sys::set_project(folder, uid, synchronous)
}

/// The file systems that tests run on have no project quotas.
#[cfg(test)]
fn project(folder: &Path, uid: u32, synchronous: bool) -> io::Result<()> {
    let _ = sys::set_project(folder, uid, synchronous);
    Ok(())
}

fn limits(site: &SiteSpec, device: &Path) -> Outcome<()> {
    if device.as_os_str().is_empty() {
        return Ok(());
    }
    sys::set_quota(device, site.uid, site.caps.disk.0, site.caps.inodes)
        .doing(format_args!("set the quota of {}", site.domain))
}

fn marker(path: &Path, wanted: bool) -> io::Result<()> {
    if !wanted {
        files::remove(path)
    } else if path.exists() {
        Ok(())
    } else {
        files::replace(path, b"", 0o644)
    }
}

/// Points `web` to what visitors see: the live release, or the welcome page.
pub fn point_web(at: &SitePaths, document_root: &str) -> io::Result<()> {
    let target = if at.at("current").exists() {
        live_folder(document_root)
    } else {
        PathBuf::from(WELCOME)
    };
    files::link(&at.at("web"), &target).map(drop)
}

fn live_folder(document_root: &str) -> PathBuf {
    if document_root.is_empty() {
        PathBuf::from("current")
    } else {
        Path::new("current").join(document_root)
    }
}

fn names(paths: &Paths, site: &SiteSpec) -> io::Result<()> {
    let target = link_target(site.uid);
    for name in site.names() {
        files::link(&paths.by_host().join(name.as_str()), &target)?;
    }
    Ok(())
}

fn link_target(uid: u32) -> PathBuf {
    Path::new("../sites").join(uid.to_string())
}

/// Removes a name, unless it leads to another site by now.
pub fn forget_name(paths: &Paths, uid: u32, name: &DomainName) -> io::Result<()> {
    let link = paths.by_host().join(name.as_str());
    if fs::read_link(&link).is_ok_and(|target| target == link_target(uid)) {
        files::remove(&link)?;
    }
    Ok(())
}

/// Throws away what was compiled from an earlier release.
pub fn fresh_cache(paths: &Paths, at: &SitePaths, uid: u32) -> io::Result<()> {
    let cache = at.at("opcache");
    if fs::read_dir(&cache).is_ok_and(|mut entries| entries.next().is_some()) {
        discard(paths, &cache)?;
        files::folder(&cache, uid, uid, 0o700)?;
    }
    Ok(())
}

/// Takes a site away: its names first, then its content, which is deleted in the background.
pub fn remove(paths: &Paths, site: &SiteSpec, device: &Path) -> Outcome<()> {
    for name in site.names() {
        forget_name(paths, site.uid, name).doing("remove a site's name")?;
    }
    discard(paths, &paths.site(site.uid).home).doing("remove a site's content")?;
    if !device.as_os_str().is_empty() {
        // The number is never used again; its limits only take room.
        let _ = sys::set_quota(device, site.uid, 0, 0);
    }
    Ok(())
}

/// Moves something into the trash; it is gone from sight at once.
pub fn discard(paths: &Paths, path: &Path) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "{}-{}-{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    match fs::rename(path, paths.trash().join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            empty_trash(paths);
            Ok(())
        }
    }
}

/// Deletes what is in the trash, in the background.
pub fn empty_trash(paths: &Paths) {
    let trash = paths.trash();
    std::thread::spawn(move || {
        for entry in fs::read_dir(trash).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    });
}

/// Hands a folder and all below it to a user, links themselves, never what they lead to.
pub fn own_tree(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_tree(&entry.path(), uid, gid)?;
        } else {
            files::own_link(&entry.path(), uid, gid)?;
        }
    }
    chown(path, Some(uid), Some(gid))
}
