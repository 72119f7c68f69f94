//! Reading and writing files, with their names in the errors.

use std::error::Error;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use undine_placement::htools::Text;
use undine_placement::{Policy, Snapshot};

use crate::Source;

pub(crate) type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// An error and its causes on one line.
pub(crate) fn chain(e: &(dyn Error + 'static)) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text += &format!(": {e}");
        source = e.source();
    }
    text
}

pub(crate) fn read(path: &Path) -> Done<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()).into())
}

pub(crate) fn write(path: &Path, content: &str) -> Done {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()).into())
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Done {
    write(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Done<T> {
    serde_json::from_str(&read(path)?).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// A Ganeti text with its load.
pub(crate) fn text(data: &Path, load: Option<&Path>) -> Done<Text> {
    let mut text = Text::parse(&read(data)?).map_err(|e| format!("{}: {e}", data.display()))?;
    if let Some(load) = load {
        text.apply_load(&read(load)?)
            .map_err(|e| format!("{}: {e}", load.display()))?;
    }
    Ok(text)
}

impl Source {
    pub(crate) fn is_htools(&self) -> bool {
        self.htools.is_some()
    }

    pub(crate) fn text(&self) -> Done<Text> {
        let data = self.htools.as_deref().ok_or("--htools is needed")?;
        text(data, self.dynu.as_deref())
    }

    pub(crate) fn snapshot(&self) -> Done<Snapshot> {
        match &self.snapshot {
            Some(path) => Snapshot::from_json(&read(path)?)
                .map_err(|e| format!("{}: {e}", path.display()).into()),
            None => Ok(Snapshot::from_htools(&self.text()?)),
        }
    }

    pub(crate) fn policy(&self) -> Done<Policy> {
        match &self.policy {
            Some(path) => json(path),
            // Ganeti allows as many virtual CPUs a core as its own policy says.
            None if self.is_htools() => Ok(Policy {
                cpu_overcommit: (self.text()?.vcpu_ratio * 1000.0) as u64,
                ..Policy::default()
            }),
            None => Ok(Policy::default()),
        }
    }
}
