//! A site's files and its log as the agent inside a server is asked for them.
//!
//! Files travel in pieces, each a question of its own: a customer with a slow line holds up
//! nobody else's questions to the same server.

use serde::{Deserialize, Serialize};
use undine_model::{SiteId, SitePath, UploadId};

use super::LogKind;

/// Something with a site's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Files {
    /// Of this site.
    pub site: SiteId,
    /// What.
    pub task: FileTask,
}

/// What can be done with a site's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case", deny_unknown_fields)]
pub enum FileTask {
    /// What is in a folder, by name.
    List {
        /// The folder.
        path: SitePath,
        /// Only names after this one.
        #[serde(default)]
        after: Option<String>,
        /// At most so many.
        limit: u32,
    },
    /// A piece of a file, at most [`FileTask::PIECE`] bytes.
    Read {
        /// The file.
        path: SitePath,
        /// From here.
        offset: u64,
        /// Only while it is still this one: the mark of an earlier piece.
        #[serde(default)]
        mark: Option<String>,
    },
    /// Keep a piece of an upload, not yet visible; the first one begins it.
    Piece {
        /// Which upload.
        upload: UploadId,
        /// Where it belongs.
        offset: u64,
        /// The bytes, base64.
        data: String,
    },
    /// What was uploaded becomes a file, at once and whole.
    Put(Put),
    /// Throw away what was uploaded.
    Forget {
        /// Which upload.
        upload: UploadId,
    },
    /// Make a folder.
    Folder {
        /// Which one.
        path: SitePath,
    },
    /// Give a file or folder another name or place, where nothing is yet.
    Move {
        /// From here.
        from: SitePath,
        /// To here.
        to: SitePath,
    },
    /// Remove a file, or a folder with all that is in it.
    Remove {
        /// Which one.
        path: SitePath,
        /// Only if it is this one.
        #[serde(default)]
        mark: Option<String>,
    },
    /// Make a zip archive of files and folders, where nothing is yet.
    Pack {
        /// These.
        paths: Vec<SitePath>,
        /// The archive.
        to: SitePath,
    },
    /// Unpack an archive into a folder; files of the same name are replaced.
    Unpack {
        /// The archive; its name says how it is packed.
        path: SitePath,
        /// The folder.
        into: SitePath,
    },
}

impl FileTask {
    /// The most bytes of a piece.
    pub const PIECE: usize = 1 << 20;
}

/// An upload that is to become a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Put {
    /// Which upload.
    pub upload: UploadId,
    /// All of its bytes.
    pub size: u64,
    /// The file.
    pub path: SitePath,
    /// What may be there.
    pub expect: Expect,
    /// Make the folders on its way that are not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents: bool,
}

/// What may be where a file is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// A file or nothing.
    Any,
    /// Nothing.
    Nothing,
    /// The file with this mark.
    Mark(String),
}

/// A piece of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Piece {
    /// The file's size.
    pub size: u64,
    /// Changes with the file.
    pub mark: String,
    /// The bytes, base64; none at the end.
    pub data: String,
}

/// What a log has said since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Follow {
    /// Of this site.
    pub site: SiteId,
    /// Which log.
    pub log: LogKind,
    /// Since this mark; without one, the last lines.
    #[serde(default)]
    pub after: Option<String>,
    /// Only lines with this text, whatever the case.
    #[serde(default)]
    pub find: String,
    /// At most so many lines, the last ones.
    pub lines: u32,
}

/// What a log has said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogPiece {
    /// Oldest first.
    pub lines: Vec<String>,
    /// For the next question.
    pub mark: String,
    /// Lines before these were passed over: there were too many, or the log began anew.
    pub skipped: bool,
}
