//! What an image is made of, as written in `images/<name>/image.toml`: a pure parse with checks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// One image's recipe.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The image's name, also its folder's.
    pub name: String,
    /// Debian's release name.
    pub release: String,
    /// Debian's architecture name.
    pub architecture: String,
    /// The layout of the data disk that this image writes; a lower one is never started on it.
    pub data_format: u32,
    /// Packages of the root, beside Debian's essential ones.
    pub packages: Vec<String>,
    /// Where packages come from.
    pub suites: Vec<Suite>,
    /// The archive's components.
    pub components: Vec<String>,
    /// The kernel and its modules.
    pub kernel: Kernel,
    /// The kernel's command line.
    pub cmdline: Cmdline,
    /// System users whose numbers are fixed, because files on data disks belong to them.
    #[serde(default)]
    pub ids: BTreeMap<String, u32>,
    /// What is taken away.
    pub trim: Trim,
}

/// One suite of one of Debian's archives.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Such as `bookworm-updates`.
    pub suite: String,
    /// Which archive holds it.
    pub archive: Archive,
}

/// Debian's two archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The distribution.
    Debian,
    /// Its security updates.
    DebianSecurity,
}

/// The kernel's part of the recipe.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The kernel's (meta) package.
    pub package: String,
    /// The package of the static busybox in the initramfs.
    pub busybox: String,
    /// Modules that the initramfs loads.
    pub initrd_modules: Vec<String>,
    /// Further modules that the root offers to modprobe.
    pub root_modules: Vec<String>,
}

/// The kernel's command line in two parts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cmdline {
    /// Always.
    pub base: Vec<String>,
    /// Added under emulation only.
    pub tcg: Vec<String>,
}

/// What is taken away from the packages' files. All paths are relative to the root.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trim {
    /// Patterns that dpkg does not unpack.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Exceptions from `exclude`.
    #[serde(default)]
    pub include: Vec<String>,
    /// Files and folders removed.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Folders emptied.
    #[serde(default)]
    pub empty: Vec<String>,
    /// Folders in which all files are removed and all folders stay.
    #[serde(default)]
    pub empty_files: Vec<String>,
    /// Units that do not start with the system.
    #[serde(default)]
    pub disable: Vec<String>,
    /// Units that can never start.
    #[serde(default)]
    pub mask: Vec<String>,
    /// Whether systemd's generators are masked.
    #[serde(default)]
    pub mask_generators: bool,
}

impl Definition {
    /// Reads a recipe and refuses one that could not be built.
    pub fn parse(text: &str) -> Result<Self> {
        let definition: Self = toml::from_str(text).context("the definition cannot be read")?;
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            is_plain_name(&self.name),
            "the image's name {:?} is not a plain name",
            self.name
        );
        ensure!(!self.suites.is_empty(), "the definition names no suite");
        ensure!(
            !self.components.is_empty(),
            "the definition names no component"
        );
        let words = [
            &self.release,
            &self.architecture,
            &self.kernel.package,
            &self.kernel.busybox,
        ];
        for word in words
            .into_iter()
            .chain(&self.packages)
            .chain(&self.components)
            .chain(self.suites.iter().map(|entry| &entry.suite))
        {
            ensure!(
                is_plain_name(word),
                "{word:?} is not a name that Debian would use"
            );
        }
        let trim = &self.trim;
        for path in trim
            .remove
            .iter()
            .chain(&trim.empty)
            .chain(&trim.empty_files)
        {
            check_relative(path)?;
        }
        for unit in trim.disable.iter().chain(&trim.mask) {
            ensure!(
                !unit.is_empty() && !unit.contains('/'),
                "{unit:?} is not a unit's name"
            );
        }
        for word in self.cmdline.base.iter().chain(&self.cmdline.tcg) {
            ensure!(
                !word.is_empty() && !word.contains(char::is_whitespace),
                "{word:?} is not one word of a kernel command line"
            );
        }
        Ok(())
    }
}

/// Whether a word is safe as a package, suite or folder name.
fn is_plain_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c))
}

/// A path that leaves the new root would trim the building machine instead.
fn check_relative(path: &str) -> Result<()> {
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        bail!("the path {path:?} does not stay inside the new root");
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small recipe for tests.
    pub const SMALL: &str = r#"
name = "small"
release = "bookworm"
architecture = "amd64"
data_format = 1
packages = ["systemd"]
suites = [{ suite = "bookworm", archive = "debian" }]
components = ["main"]
[kernel]
package = "linux-image-cloud-amd64"
busybox = "busybox-static"
initrd_modules = ["virtio_blk"]
root_modules = []
[cmdline]
base = ["quiet"]
tcg = ["mitigations=off"]
[trim]
remove = ["boot"]
"#;

    #[test]
    fn every_image_of_this_repository_can_be_read() {
        let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        let mut seen = 0;
        for entry in std::fs::read_dir(images).unwrap() {
            let file = entry.unwrap().path().join("image.toml");
            if file.exists() {
                let definition = Definition::parse(&std::fs::read_to_string(&file).unwrap());
                definition.unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
                seen += 1;
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_path_out_of_the_new_root_is_refused() {
        for path in ["../etc", "/etc", "var/../../etc", ""] {
            let text = SMALL.replace("\"boot\"", &format!("{path:?}"));
            let error = Definition::parse(&text).unwrap_err();
            assert!(error.to_string().contains("inside the new root"), "{error}");
        }
    }

    #[test]
    fn a_package_name_cannot_carry_an_option() {
        let text = SMALL.replace("\"systemd\"", "\"--force-yes\"");
        assert!(Definition::parse(&text).is_err());
    }

    #[test]
    fn an_unknown_key_is_an_error_and_not_silence() {
        let text = SMALL.replace("[trim]", "[trim]\nremoved = []");
        assert!(Definition::parse(&text).is_err());
    }
}
