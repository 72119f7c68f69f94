//! A server's lasting record on its node: what it was told to run, and how far it came.
//!
//! `spec.json` is what control asked for, `state.json` how far it is; both are flushed before
//! anything is done, so that an agent that starts again knows what it may find.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undine_api::node::{Phase, StartReport, StartSpec};
use undine_model::ServerId;

use crate::files::{self, FileError};
use crate::settings::server_folder;

/// How far a server is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The epoch under which it is, or was, here.
    pub epoch: u64,
    /// How far it is.
    pub phase: Phase,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// How it came up.
    #[serde(default)]
    pub start: Option<StartReport>,
}

/// Where a server's record lies.
#[derive(Debug, Clone)]
pub struct Record(PathBuf);

impl Record {
    /// The record of this server.
    pub fn new(state_dir: &Path, server: ServerId) -> Self {
        Self(server_folder(state_dir, server))
    }

    /// What it was told to run, if anything.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn spec(&self) -> Result<Option<StartSpec>, FileError> {
        files::read_json(&self.0.join("spec.json"))
    }

    /// How far it came.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn state(&self) -> Result<Option<State>, FileError> {
        files::read_json(&self.0.join("state.json"))
    }

    /// Keeps what it is told to run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_spec(&self, spec: &StartSpec) -> Result<(), FileError> {
        files::make_folder(&self.0)?;
        files::write_json(&self.0.join("spec.json"), spec)
    }

    /// Keeps how far it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_state(&self, state: &State) -> Result<(), FileError> {
        files::make_folder(&self.0)?;
        files::write_json(&self.0.join("state.json"), state)
    }

    /// Forgets the server.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The servers that have a record.
pub fn known(state_dir: &Path) -> Vec<ServerId> {
    std::fs::read_dir(state_dir.join("servers"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
