//! The manifest: the whole desired state of one server, versioned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_model::{
    AccountId, Bytes, DatabaseId, DomainName, MilliCpu, ReleaseId, ServerId, SiteId, Slug,
};

use crate::profile::Profile;

/// The format that this program writes; an agent refuses a newer one.
pub const FORMAT: u32 = 1;

/// Everything a server must run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Rises with every change of this server's desired state.
    pub version: u64,
    /// Which server this is for.
    pub server: ServerId,
    /// What the server is good at.
    pub profile: Profile,
    /// Its sites.
    pub sites: Vec<SiteSpec>,
    /// Its databases.
    pub databases: Vec<DatabaseSpec>,
}

/// What changed since a version that the server has applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestDelta {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The version that the server must have.
    pub from: u64,
    /// The version that it has afterwards.
    pub to: u64,
    /// Sites that are new or changed.
    pub sites: Vec<SiteSpec>,
    /// Sites that are gone, with their content.
    pub removed_sites: Vec<SiteId>,
    /// Databases that are new or changed.
    pub databases: Vec<DatabaseSpec>,
    /// Databases that are gone, with their content.
    pub removed_databases: Vec<DatabaseId>,
}

/// One site on a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteSpec {
    /// Its id.
    pub id: SiteId,
    /// Whose it is.
    pub account: AccountId,
    /// Its Unix user; allotted by control, never reused.
    pub uid: u32,
    /// The name that it is known by.
    pub domain: DomainName,
    /// Further names that show the same content.
    #[serde(default)]
    pub aliases: Vec<DomainName>,
    /// How it runs: a runtime of the server's profile, such as `static` or `php`.
    pub runtime: Slug,
    /// What its owner set.
    #[serde(default)]
    pub settings: SiteSettings,
    /// What it may use.
    pub caps: Caps,
    /// Shows the page for suspended sites.
    #[serde(default)]
    pub suspended: bool,
    /// The release that must be live; none leaves what is live (at first the welcome page).
    #[serde(default)]
    pub release: Option<ReleaseId>,
}

impl SiteSpec {
    /// Every name of the site, the first one first.
    pub fn names(&self) -> impl Iterator<Item = &DomainName> {
        std::iter::once(&self.domain).chain(&self.aliases)
    }
}

/// What a site's owner may set; all of it is optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteSettings {
    /// The folder below the release that visitors see, such as `public`; empty is the release.
    pub document_root: String,
    /// PHP directives, such as `memory_limit = 128M`.
    pub php: BTreeMap<String, String>,
    /// Environment variables of the site's processes.
    pub env: BTreeMap<String, String>,
    /// Redirects: path prefix to target URL.
    pub redirects: BTreeMap<String, String>,
    /// The largest request body, in bytes; none is the profile's default.
    pub max_upload: Option<Bytes>,
    /// Pages that programs made are kept for some seconds and shown to everybody who sends
    /// neither cookie nor password; the last one is shown while the program makes a new one, or cannot.
    pub page_cache: bool,
}

/// What one site may use; enforced by its slice and its project quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caps {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Processes and threads.
    pub processes: u32,
    /// Disk throughput, bytes a second, each way.
    pub io_bytes_per_s: Bytes,
    /// Disk operations a second, each way.
    pub iops: u32,
    /// Bytes on disk.
    pub disk: Bytes,
    /// Files and folders on disk.
    pub inodes: u64,
}

/// One database on a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// Its id.
    pub id: DatabaseId,
    /// The site that it belongs to.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its user, who may reach nothing else.
    pub user: String,
    /// The user's password.
    pub password: String,
}
