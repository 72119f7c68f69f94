//! Applications of the catalogue: what to copy, what to ask, what to run; data, not code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_model::{AppName, Slug};

/// One application, such as WordPress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// One line for people.
    pub title: String,
    /// The runtime that it needs.
    pub runtime: Slug,
    /// The folder of the server's image that holds its files.
    pub source: String,
    /// It needs a database of its own.
    #[serde(default)]
    pub database: bool,
    /// Its pages may be kept for visitors without cookies: a site that gets it has its page cache
    /// switched on.
    #[serde(default)]
    pub page_cache: bool,
    /// What the installer asks: name to question.
    #[serde(default)]
    pub questions: BTreeMap<String, String>,
    /// Path in the release to template text. It may use `site`, `database`, `answers` and
    /// `secrets`: a list of fresh random texts.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Folders that outlive a release, such as `wp-content/uploads`.
    #[serde(default)]
    pub shared: Vec<String>,
    /// Files that only the installer sees: name to text. They lie in `{{ work }}` while it runs.
    #[serde(default)]
    pub scripts: BTreeMap<String, String>,
    /// The installer: program and arguments, templates each (`{{ release }}`, `{{ work }}`), run
    /// as the site's user in its slice. It reads `{"site": …, "answers": …}` on standard input,
    /// so that passwords stay out of the list of processes.
    #[serde(default)]
    pub install: Vec<String>,
}
