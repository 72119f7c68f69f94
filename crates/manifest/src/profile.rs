//! Profiles: what a server can be good at, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_model::{Bytes, MilliCpu, ProfileName, Slug};

/// What a server is good at, with every template it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// One line for people.
    pub title: String,
    /// The image that its servers run.
    pub image: Slug,
    /// A new server's memory, unless said otherwise.
    pub memory: Bytes,
    /// A new server's virtual CPUs, unless said otherwise.
    pub vcpus: u32,
    /// A new server's CPU reservation, unless said otherwise.
    pub cpu: MilliCpu,
    /// A new server's data disk, unless said otherwise.
    pub disk: Bytes,
    /// Folders of the whole server, made before its files.
    #[serde(default)]
    pub folders: BTreeMap<String, Folder>,
    /// Files of the whole server that belong to no single service, such as unit templates: path
    /// to template text.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Services of the whole server, in the order in which they start.
    pub services: Vec<Service>,
    /// How sites can run here.
    pub runtimes: BTreeMap<Slug, Runtime>,
}

/// A folder of the whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The group that may enter, by its number in the image.
    #[serde(default)]
    pub group: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Prepares what a service keeps on the data disk, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct First {
    /// The folder that the service needs; nothing is run when it is there. It appears only when
    /// the command has ended well, so a crash half-way leaves nothing half-made.
    pub folder: String,
    /// Program and arguments; `{{ folder }}` is where to build it.
    pub run: Vec<String>,
}

/// A service of the whole server: its unit and the files that it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its systemd unit.
    pub unit: String,
    /// Start only when the server has at least one database.
    #[serde(default)]
    pub only_with_databases: bool,
    /// Path in the server to template text.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// A command that checks the rendered files before they are swapped in; `{{ root }}` is the
    /// folder that holds the candidate files under their own paths.
    #[serde(default)]
    pub check: Vec<String>,
    /// Reads the sites' own blocks (`{{ root }}/run/undine/vhosts/*.conf`), so it is checked and
    /// reloaded when one of them changes.
    #[serde(default)]
    pub vhosts: bool,
    /// What it needs on the data disk before its first start.
    #[serde(default)]
    pub first: Option<First>,
}

/// How a site runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// One line for people.
    pub title: String,
    /// Path in the server to template text, for each site.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The unit that listens for the site, such as `undine-php@{{ site.uid }}.socket`; empty for
    /// content that the web server reads itself.
    #[serde(default)]
    pub unit: String,
    /// The unit that does the work and can be stopped when idle or to load a new release.
    #[serde(default)]
    pub worker: String,
    /// A command that checks one site's rendered files before they are swapped in; `{{ root }}`
    /// is the folder that holds the candidate files under their own paths.
    #[serde(default)]
    pub check: Vec<String>,
    /// Template of a web server block, for sites whose settings the generic one cannot serve.
    #[serde(default)]
    pub vhost: String,
    /// A program for a spare server to run before it is needed: name in the site to text, none a
    /// template. See [`crate::rehearsal`].
    #[serde(default)]
    pub rehearsal: BTreeMap<String, String>,
}
