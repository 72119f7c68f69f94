//! A folder for fresh machines, and what is left of those that were killed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::groups;

const PREFIX: &str = "ut-guide-";

/// A folder for machines; it goes with the value.
pub struct Lab {
    pub(crate) folder: PathBuf,
}

impl Lab {
    /// Makes it, and removes what killed tests left.
    pub fn open() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "fresh machines take root"
        );
        for entry in fs::read_dir("/var/lib")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(entry.path());
                groups::remove(&name);
            }
        }
        // Not below the checkout: servers' users must be able to walk in here.
        let folder = Path::new("/var/lib").join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(folder.join("logs"))?;
        Ok(Self { folder })
    }

    /// What the machines' services said last.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        let logs = fs::read_dir(self.folder.join("logs"));
        for entry in logs.into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            all.push_str(&format!("---- {}\n{last}\n", entry.path().display()));
        }
        all
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(name) = self.folder.file_name() {
            groups::remove(&name.to_string_lossy());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
