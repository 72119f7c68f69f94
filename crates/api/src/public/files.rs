//! A site's files.

use undine_model::SitePath;

use super::{answers, choices, requests};

/// The largest file that is taken or packed, in bytes.
pub const MAX_FILE: u64 = 1 << 30;
/// The largest text that the panel edits, in bytes.
pub const MAX_TEXT: u64 = 1 << 20;

choices! {
    /// What a name stands for.
    pub enum FileKind {
        /// A folder.
        Folder,
        /// A file.
        File,
        /// A symbolic link; it is shown, never followed.
        Link,
        /// Something else, such as a socket.
        Other,
    }
}

answers! {
    /// A name in a folder.
    pub struct FileEntry {
        /// Its name.
        pub name: String,
        /// Its path; none where its name cannot be written in JSON, and nothing can be done with
        /// it here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub path: Option<SitePath>,
        /// What it is.
        pub kind: FileKind,
        /// Bytes of a file.
        pub size: u64,
        /// When it was changed.
        pub modified_at: i64,
        /// Changes with the file; `If-Match` takes it.
        pub mark: String,
        /// Where a link leads, when that is among the site's files.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub leads_to: Option<SitePath>,
    }

    /// One page of what is in a folder.
    pub struct FilePage {
        /// The folder.
        pub path: SitePath,
        /// By name.
        pub items: Vec<FileEntry>,
        /// Pass it as `cursor` for the next page; none at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next: Option<String>,
        /// There are more names than are ever listed.
        pub truncated: bool,
    }

    /// What an archive held or got.
    pub struct ArchiveResult {
        /// Files.
        pub files: u64,
        /// Their bytes.
        pub bytes: u64,
    }
}

requests! {
    /// A wish for a folder.
    pub struct CreateFolder {
        /// Its path.
        pub path: SitePath,
    }

    /// A wish for another name or place.
    pub struct MoveFile {
        /// The file or folder.
        pub from: SitePath,
        /// Where it is to be; nothing may be there yet.
        pub to: SitePath,
    }

    /// A wish for an archive.
    pub struct PackFiles {
        /// The files and folders that are to be in it.
        pub paths: Vec<SitePath>,
        /// Where it is to be, a `.zip`; nothing may be there yet.
        pub to: SitePath,
    }

    /// A wish to unpack an archive.
    pub struct UnpackFile {
        /// The archive: `.zip`, `.tar`, `.tar.gz`, `.tgz` or `.tar.zst`.
        pub path: SitePath,
        /// The folder; files of the same name are replaced.
        pub into: SitePath,
    }
}
