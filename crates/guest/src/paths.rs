//! Where things are in a server; tests put them elsewhere.

use std::path::{Path, PathBuf};

/// The group of the web server, Debian's `www-data`.
pub const WEB_GROUP: u32 = 33;

/// The folders that the agent works in.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Prefix of everything outside the data disk and `/run`; `/` in a server.
    pub root: PathBuf,
    /// The mounted data disk.
    pub data: PathBuf,
    /// Our part of `/run`.
    pub run: PathBuf,
}

impl Paths {
    /// Those of a real server.
    pub fn real() -> Self {
        Self {
            root: "/".into(),
            data: "/srv".into(),
            run: "/run/undine".into(),
        }
    }

    /// A file of the root file system, given its absolute path.
    pub fn system(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The agent's own folder on the data disk.
    pub fn own(&self) -> PathBuf {
        self.data.join("undine")
    }

    /// Where removed things wait for their removal in the background.
    pub fn trash(&self) -> PathBuf {
        self.own().join("trash")
    }

    /// The links from host names to sites.
    pub fn by_host(&self) -> PathBuf {
        self.data.join("by-host")
    }

    /// All sites.
    pub fn sites(&self) -> PathBuf {
        self.data.join("sites")
    }

    /// One site.
    pub fn site(&self, uid: u32) -> SitePaths {
        SitePaths {
            home: self.sites().join(uid.to_string()),
        }
    }

    /// The web server's blocks of single sites.
    pub fn vhosts(&self) -> PathBuf {
        self.run.join("vhosts")
    }

    /// One site's block.
    pub fn vhost(&self, uid: u32) -> PathBuf {
        self.vhosts().join(format!("{uid}.conf"))
    }
}

/// The folders of one site.
#[derive(Debug, Clone)]
pub struct SitePaths {
    /// All of it.
    pub home: PathBuf,
}

impl SitePaths {
    /// Something directly in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The releases that are kept.
    pub fn releases(&self) -> PathBuf {
        self.at("releases")
    }

    /// One release.
    pub fn release(&self, id: impl std::fmt::Display) -> PathBuf {
        self.releases().join(id.to_string())
    }

    /// Where a release is built; the site's user cannot enter.
    pub fn incoming(&self) -> PathBuf {
        self.at("incoming")
    }
}

/// Is this a mount point of its own?
pub fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
    let parent = path.parent().unwrap_or(Path::new("/"));
    matches!((device(path), device(parent)), (Some(a), Some(b)) if a != b)
}
