//! What the guard must know of the servers here: `guard/servers.json`, replaced whole whenever
//! something in it changes. The guard reads it when it is cut off, and asks nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use undine_model::ServerId;

use crate::files;
use crate::problems::chain;
use crate::settings::guard_folder;

/// One server that runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// Which one.
    pub server: ServerId,
    /// The epoch under which it runs.
    pub epoch: u64,
    /// Its QEMU's monitor for the guard.
    pub guard_socket: PathBuf,
    /// It writes to no other node's replica: nobody else can take it over, and it is never paused.
    pub local_only: bool,
}

/// The file.
#[derive(Debug)]
pub struct GuardFile {
    path: PathBuf,
    servers: Mutex<BTreeMap<ServerId, Guarded>>,
}

impl GuardFile {
    /// The file of this node, as an earlier agent left it: its servers may still run.
    pub fn open(state_dir: &Path) -> Self {
        let path = guard_folder(state_dir).join("servers.json");
        let left: Vec<Guarded> = files::read_json(&path).ok().flatten().unwrap_or_default();
        let servers = left.into_iter().map(|entry| (entry.server, entry));
        Self {
            path,
            servers: Mutex::new(servers.collect()),
        }
    }

    /// A server runs, or what is known of it changed.
    pub fn put(&self, entry: Guarded) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.get(&entry.server) != Some(&entry) {
            servers.insert(entry.server, entry);
            self.write(&servers);
        }
    }

    /// A server's VM is gone.
    pub fn remove(&self, server: ServerId) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.remove(&server).is_some() {
            self.write(&servers);
        }
    }

    fn write(&self, servers: &BTreeMap<ServerId, Guarded>) {
        let all: Vec<&Guarded> = servers.values().collect();
        let written = self
            .path
            .parent()
            .map_or(Ok(()), files::make_folder)
            .and_then(|()| files::write_json(&self.path, &all));
        if let Err(error) = written {
            tracing::error!(
                error = chain(&error),
                "the guard's list could not be written"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_reads_what_runs_also_after_the_agent_died() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |number, local_only| Guarded {
            server: ServerId::from_parts(1, [number; 10]),
            epoch: 3,
            guard_socket: "/run/guard.sock".into(),
            local_only,
        };
        let file = GuardFile::open(dir.path());
        file.put(entry(1, false));
        file.put(entry(2, false));
        file.put(entry(1, true));
        let read = || -> Vec<Guarded> {
            files::read_json(&dir.path().join("guard/servers.json"))
                .unwrap()
                .unwrap()
        };
        assert_eq!(read(), [entry(1, true), entry(2, false)]);
        let file = GuardFile::open(dir.path());
        file.remove(entry(1, true).server);
        assert_eq!(read(), [entry(2, false)]);
    }
}
