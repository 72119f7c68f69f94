//! `image.json`: what a finished image says about itself. Nodes read it too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::inputs::{Inputs, file_hash};

/// The file's name in an image's folder; it is written last.
pub const FILE: &str = "image.json";

/// One finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The definition's name.
    pub name: String,
    /// Debian's release name.
    pub release: String,
    /// Names the image: SHA-256 over its files' hashes and its command lines.
    pub hash: String,
    /// The three files by role: `root`, `kernel`, `initrd`.
    pub files: BTreeMap<String, ImageFile>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Added to it under emulation, never with KVM.
    pub cmdline_tcg: String,
    /// The kernel's release.
    pub kernel_release: String,
    /// The layout of the data disk that this image writes.
    pub data_format: u32,
    /// Every package of the root: `name version` each.
    pub packages: Vec<String>,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name in the image's folder.
    pub file: String,
    /// Its content.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

impl ImageFile {
    /// Describes a file of a folder.
    pub fn of(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let size = path
            .metadata()
            .with_context(|| format!("{name} is missing"))?
            .len();
        Ok(Self {
            file: name.to_owned(),
            sha256: file_hash(&path)?,
            size,
        })
    }
}

impl ImageRecord {
    /// The name of an image with these files and command lines.
    pub fn hash_of(
        files: &BTreeMap<String, ImageFile>,
        cmdline: &str,
        cmdline_tcg: &str,
    ) -> String {
        let mut inputs = Inputs::default();
        for (role, file) in files {
            inputs.add(role, &file.sha256);
        }
        inputs
            .add("cmdline", cmdline)
            .add("cmdline_tcg", cmdline_tcg);
        inputs.hash()
    }

    /// Reads a finished image's record; `None` when the folder holds no complete image.
    pub fn read(folder: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()?;
        let whole = record.files.values().all(|file| {
            folder
                .join(&file.file)
                .metadata()
                .is_ok_and(|meta| meta.len() == file.size)
        });
        whole.then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_short_file_is_no_image() {
        let folder = std::env::temp_dir().join(format!("xtask-record-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("initrd.img"), "whole").unwrap();
        let files = BTreeMap::from([(
            "initrd".to_owned(),
            ImageFile::of(&folder, "initrd.img").unwrap(),
        )]);
        let record = ImageRecord {
            name: "small".into(),
            release: "bookworm".into(),
            hash: ImageRecord::hash_of(&files, "quiet", ""),
            files,
            cmdline: "quiet".into(),
            cmdline_tcg: String::new(),
            kernel_release: "6".into(),
            data_format: 1,
            packages: Vec::new(),
        };
        assert_eq!(ImageRecord::read(&folder), None);
        std::fs::write(folder.join(FILE), serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(ImageRecord::read(&folder), Some(record));
        std::fs::write(folder.join("initrd.img"), "who").unwrap();
        assert_eq!(ImageRecord::read(&folder), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn another_command_line_is_another_image() {
        let files = BTreeMap::new();
        assert_ne!(
            ImageRecord::hash_of(&files, "a", "b"),
            ImageRecord::hash_of(&files, "a b", "")
        );
    }
}
