//! Files and folders: owners, atomic writes, and the fixed names inside a run folder.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The longest path that a unix socket's address holds, without its ending zero.
const SOCKET_PATH_LIMIT_BYTES: usize = 107;

/// The unprivileged user that a process runs as and whose files it may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// Hands `path` over to this user.
    pub fn take(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }
}

/// The folder of one process's sockets and logs; belongs on a file system that a reboot empties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Names the folder; creates nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Creates the folder: its owner's alone, but the owner's group may pass through to a socket
    /// that is opened to it. Repeating it is harmless.
    pub fn prepare(&self, owner: Option<Owner>) -> io::Result<()> {
        let longest = self.0.join("agent.sock");
        if longest.as_os_str().len() > SOCKET_PATH_LIMIT_BYTES {
            let what = format!(
                "the folder's name is too long for sockets: {}",
                self.0.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        fs::create_dir_all(&self.0)?;
        fs::set_permissions(&self.0, Permissions::from_mode(0o710))?;
        owner.map_or(Ok(()), |owner| owner.take(&self.0))
    }

    /// The monitor of the node's agent.
    pub fn qmp(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }

    /// A second monitor of its own for the guard, since a monitor serves one client at a time.
    pub fn guard_qmp(&self) -> PathBuf {
        self.0.join("guard.sock")
    }

    /// The guest agent's end of the virtio-serial port.
    pub fn agent(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// A storage daemon's NBD server, when it serves locally; open to the daemon's group.
    pub fn nbd(&self) -> PathBuf {
        self.0.join("nbd.sock")
    }

    /// The folder of a key, for as long as somebody must read it.
    pub fn psk(&self) -> PathBuf {
        self.0.join("psk")
    }

    /// Whom [`prepare`](Self::prepare) gave the folder to; `None` when it is our own.
    pub(crate) fn owner(&self) -> io::Result<Option<Owner>> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(&self.0)?;
        let owner = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        let own = owner.uid == rustix::process::geteuid().as_raw();
        Ok((!own).then_some(owner))
    }

    /// What the guest writes to its serial console.
    pub fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// What the process itself says.
    pub fn log(&self) -> PathBuf {
        self.0.join("process.log")
    }

    /// Locked by the process while it lives; its path on a command line is what marks the process.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("process.pid")
    }

    /// The last words of the process, for an error's text.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2048)..]);
        let last: Vec<&str> = text.lines().rev().take(4).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

/// Flushes a folder, so that a name created, renamed or removed in it survives power loss.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces `path` by `bytes` so that any crash leaves the old or the new content, whole.
///
/// A crash before the rename leaves `<path>.new`, which the next write replaces.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = beside(path, "new");
    let mut file = File::create(&fresh)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_folder(folder_of(path))
}

/// `path` with `.suffix` put behind its whole name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_what_a_crash_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(dir.path().join("a.json.new"), "half of somethi").unwrap();
        write_atomically(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!dir.path().join("a.json.new").exists());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_folder_whose_sockets_would_not_bind_is_refused_at_once() {
        let dir = RunDir::new(format!("/tmp/{}", "x".repeat(100)));
        assert_eq!(
            dir.prepare(None).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn last_words_are_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        assert_eq!(run.last_words(), "");
        fs::write(run.log(), "1\n2\n3\n4\n5\n").unwrap();
        assert_eq!(run.last_words(), "2; 3; 4; 5");
    }
}
