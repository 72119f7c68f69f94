//! Hashes of what an image is made from: equal inputs are never built twice.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::apt::Package;
use super::definition::Definition;

/// Changed by hand whenever the builder makes another root from the same definition.
const BUILDER: &str = "2";

/// Collects labelled inputs; labels and lengths keep two lists from looking alike.
#[derive(Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Adds one input.
    pub fn add(&mut self, label: &str, data: impl AsRef<[u8]>) -> &mut Self {
        let data = data.as_ref();
        for part in [label.as_bytes(), data] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The hash in hexadecimal.
    pub fn hash(self) -> String {
        hex(&self.0.finalize())
    }
}

/// What the definition's folder says about the root; no mirror is asked for this.
pub fn definition_hash(folder: &Path, definition: &Definition) -> Result<String> {
    let mut inputs = Inputs::default();
    inputs.add("builder", BUILDER);
    // The command line is no part of the root: changing it rebuilds nothing expensive.
    let mut rooted = definition.clone();
    rooted.cmdline.base.clear();
    rooted.cmdline.tcg.clear();
    inputs.add("definition", serde_json::to_string(&rooted)?);
    for sub in ["overlay", "hooks"] {
        add_tree(&folder.join(sub), sub, &mut inputs)?;
    }
    Ok(inputs.hash())
}

/// The definition together with the packages that it means today.
pub fn root_hash(definition_hash: &str, packages: &[Package]) -> String {
    let mut inputs = Inputs::default();
    inputs.add("definition", definition_hash);
    for (name, version) in packages {
        inputs.add(name, version);
    }
    inputs.hash()
}

fn add_tree(folder: &Path, name: &str, inputs: &mut Inputs) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("{} cannot be listed", folder.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let label = format!("{name}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            let target = std::fs::read_link(&path)?;
            inputs.add(&format!("{label} ->"), target.to_string_lossy().as_bytes());
        } else if kind.is_dir() {
            add_tree(&path, &label, inputs)?;
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            let label = format!("{label} {executable}");
            inputs.add(
                &label,
                std::fs::read(&path).context("an input cannot be read")?,
            );
        }
    }
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub fn file_hash(path: &Path) -> Result<String> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::definition::tests::SMALL;
    use super::*;

    fn packages(version: &str) -> Vec<Package> {
        vec![("nginx".to_owned(), version.to_owned())]
    }

    #[test]
    fn a_new_package_version_gives_another_root() {
        assert_eq!(
            root_hash("d", &packages("1")),
            root_hash("d", &packages("1"))
        );
        assert_ne!(
            root_hash("d", &packages("1")),
            root_hash("d", &packages("2"))
        );
        assert_ne!(
            root_hash("d", &packages("1")),
            root_hash("e", &packages("1"))
        );
    }

    #[test]
    fn labels_and_data_cannot_be_confused() {
        let of = |label: &str, data: &str| {
            let mut inputs = Inputs::default();
            inputs.add(label, data);
            inputs.hash()
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }

    #[test]
    fn an_overlay_file_changes_the_root_and_the_command_line_does_not() {
        let folder = std::env::temp_dir().join(format!("xtask-inputs-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("overlay/etc")).unwrap();
        std::fs::write(folder.join("overlay/etc/hosts"), "one").unwrap();
        let definition = Definition::parse(SMALL).unwrap();
        let before = definition_hash(&folder, &definition).unwrap();
        let other_line = Definition::parse(&SMALL.replace("quiet", "loud")).unwrap();
        assert_eq!(before, definition_hash(&folder, &other_line).unwrap());
        std::fs::write(folder.join("overlay/etc/hosts"), "two").unwrap();
        assert_ne!(before, definition_hash(&folder, &definition).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
