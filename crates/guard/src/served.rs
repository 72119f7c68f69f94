//! What the node's agent has written down for its guard: the servers that it runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undine_model::ServerId;

/// The file in the guard's folder.
pub const SERVED_FILE: &str = "servers.json";

/// A server that runs on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Which one.
    pub server: ServerId,
    /// The epoch under which the node owns it.
    pub epoch: u64,
    /// The monitor of its QEMU that is the guard's alone.
    pub guard_socket: PathBuf,
    /// No other node has its disk: it can run nowhere else, and is never paused.
    #[serde(default)]
    pub local_only: bool,
}

/// Reads the list; none when there is none yet.
///
/// # Errors
/// The file cannot be read, or is damaged: what was read last counts on.
pub fn read(folder: &Path) -> std::io::Result<Vec<Served>> {
    match std::fs::read(folder.join(SERVED_FILE)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_list_is_read_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let server = ServerId::from_parts(1, [0; 10]);
        let text = format!(
            r#"[{{"server":"{server}","epoch":3,"guard_socket":"/run/x/guard.sock","local_only":true}}]"#
        );
        std::fs::write(dir.path().join(SERVED_FILE), text).unwrap();
        let read_back = read(dir.path()).unwrap();
        assert_eq!((read_back[0].server, read_back[0].epoch), (server, 3));
        assert!(read_back[0].local_only);
        std::fs::write(dir.path().join(SERVED_FILE), "[{").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
