//! The trees of a site's files, and finding something in them without leaving them.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, openat2, statat};
use rustix::io::Errno;
use undine_api::guest::{Failure, FailureKind};
use undine_model::SitePath;
use undine_model::path::visible;

use crate::fail::{Doing, Outcome, failure};
use crate::paths::SitePaths;

/// No link of any kind, no way up, no other file system.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The trees, open. Nobody but root can change which folders these are.
pub struct Trees {
    /// The live release; none before the first.
    current: Option<OwnedFd>,
    /// What outlives releases.
    shared: OwnedFd,
    /// Where what is on its way waits.
    pub tmp: OwnedFd,
    /// The site's own folder, for links that name it.
    pub home: PathBuf,
    /// The folder of the live release, seen from the site's.
    pub live: PathBuf,
}

fn tree(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

impl Trees {
    /// Opens those of a site.
    pub fn open(at: &SitePaths) -> Outcome<Self> {
        let live = live(at);
        let current = match &live {
            Some(live) => Some(tree(&at.home.join(live)).doing("open the live release")?),
            None => None,
        };
        Ok(Self {
            current,
            shared: tree(&at.at("shared")).doing("open the shared folder")?,
            tmp: tree(&at.at("tmp")).doing("open the site's folder for what is on its way")?,
            home: at.home.clone(),
            live: live.unwrap_or_default(),
        })
    }

    /// The tree that a path is in.
    fn of(&self, path: &SitePath) -> Outcome<BorrowedFd<'_>> {
        match path.tree() {
            Some(SitePath::SHARED) => Ok(self.shared.as_fd()),
            Some(_) => self.current.as_ref().map(OwnedFd::as_fd).ok_or_else(|| {
                failure(
                    FailureKind::NotFound,
                    "the site has no content yet: nothing was deployed or uploaded",
                )
            }),
            None => Err(failure(
                FailureKind::Invalid,
                "the top holds `current` and `shared`, and nothing else",
            )),
        }
    }

    /// Is there a live release?
    pub fn has_content(&self) -> bool {
        self.current.is_some()
    }

    /// Opens a folder.
    pub fn folder(&self, path: &SitePath) -> Outcome<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_in(path, flags)
    }

    /// Opens what should be a file, without waiting for anybody at its other end.
    pub fn file(&self, path: &SitePath) -> Outcome<OwnedFd> {
        self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    fn open_in(&self, path: &SitePath, flags: OFlags) -> Outcome<OwnedFd> {
        let within = match path.within() {
            "" => ".",
            within => within,
        };
        inside(self.of(path)?, within, flags).map_err(|error| told(error, path))
    }

    /// The open folder that something is in, and its name there.
    pub fn place<'p>(&self, path: &'p SitePath) -> Outcome<(OwnedFd, &'p str)> {
        match path.name() {
            Some(name) if !path.within().is_empty() => Ok((self.folder(&path.parent())?, name)),
            _ => Err(failure(
                FailureKind::Invalid,
                "`current` and `shared` themselves stay where they are",
            )),
        }
    }
}

/// Where the live release is; the link is root's, and so is the folder that it names.
fn live(at: &SitePaths) -> Option<PathBuf> {
    let target = fs::read_link(at.at("current")).ok()?;
    let parts: Vec<Component<'_>> = target.components().collect();
    match parts.as_slice() {
        [Component::Normal(folder), Component::Normal(_)] if *folder == "releases" => Some(target),
        _ => None,
    }
}

/// Opens what a folder holds, whatever links are put in the way meanwhile.
pub fn inside(folder: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = match flags.contains(OFlags::CREATE) {
        true => Mode::from_raw_mode(0o600),
        false => Mode::empty(),
    };
    openat2(folder, name, flags, mode, INSIDE)
}

/// What a folder has under this name: itself, not what it leads to.
pub fn look(folder: impl AsFd, name: &str) -> Result<Option<Stat>, Errno> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes whenever the thing does.
pub fn mark(stat: &Stat) -> String {
    format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec
    )
}

/// What an error of the kernel means for somebody who works on files.
pub fn told(error: Errno, path: &SitePath) -> Failure {
    let path = visible(path.as_str());
    let (kind, why) = match error {
        Errno::NOENT => (FailureKind::NotFound, "is not there"),
        Errno::LOOP => (
            FailureKind::Invalid,
            "is a link, or in a folder that is one; links are not followed here: use the path that it leads to",
        ),
        Errno::XDEV => (FailureKind::Invalid, "leads out of the site's files"),
        Errno::NOTDIR => (
            FailureKind::Invalid,
            "is no folder, or in something that is none",
        ),
        Errno::ISDIR => (FailureKind::Conflict, "is a folder"),
        Errno::EXIST => (FailureKind::Conflict, "is there already"),
        Errno::NOTEMPTY => (FailureKind::Conflict, "is a folder that is not empty"),
        Errno::NAMETOOLONG => (FailureKind::Invalid, "is too long"),
        Errno::ACCESS | Errno::PERM => (
            FailureKind::Invalid,
            "may not be used like this by the site's own user: look at its mode",
        ),
        Errno::DQUOT | Errno::NOSPC => (
            FailureKind::Full,
            "has no room left: the site stores as much as it may",
        ),
        other => {
            return failure(
                FailureKind::Internal,
                format!("`{path}` cannot be used: {other}"),
            );
        }
    };
    failure(kind, format!("`{path}` {why}"))
}
