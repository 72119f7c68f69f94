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
    /// Services of the whole server, in the order in which they start.
    pub services: Vec<Service>,
    /// How sites can run here.
    pub runtimes: BTreeMap<Slug, Runtime>,
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
    /// A command that checks the rendered files before they are swapped in.
    #[serde(default)]
    pub check: Vec<String>,
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
    /// A command that checks one site's rendered files before they are swapped in.
    #[serde(default)]
    pub check: Vec<String>,
    /// Template of a web server block, for sites whose settings the generic one cannot serve.
    #[serde(default)]
    pub vhost: String,
}
