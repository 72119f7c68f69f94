//! Small files that must survive power loss: written beside, flushed, renamed, folder flushed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of the state folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// Read, write, make.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Writes a file so that after a crash either the old or the new content is there, whole.
/// Only our own user may read it: some of these files hold passwords.
///
/// # Errors
/// The system said no; the old content stands.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    undine_qemu::files::write_atomically(path, content, 0o600).map_err(FileError::io("write", path))
}

/// Flushes the folder that holds `path`, so that a new name in it survives power loss.
///
/// # Errors
/// The system said no.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Writes a value as JSON.
///
/// # Errors
/// The system said no.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| FileError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    write(path, &text)
}

/// Reads a value; none when there is no such file.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io("read", path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| FileError::Damaged {
            path: path.to_owned(),
            source,
        })
}

/// Makes a folder with everything above it.
///
/// # Errors
/// The system said no.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::io("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_disk_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        write_json(&path, &7_u32).unwrap();
        write_json(&path, &8_u32).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(8));
        std::fs::write(&path, "{").unwrap();
        let error = read_json::<u32>(&path).unwrap_err();
        assert!(error.to_string().ends_with("a.json is damaged"));
    }
}
