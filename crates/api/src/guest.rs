//! What a node says to the agent inside a server, over the virtio-serial port [`PORT`].
//!
//! A frame is a big-endian `u32` length, one byte of kind and the payload (at most
//! [`MAX_PAYLOAD`] bytes; the length counts kind and payload). Kind [`JSON`] carries a
//! [`Request`] or a [`Reply`], kind [`DATA`] a piece of the stream that the last `upload` request
//! opened. Requests are answered in order, one at a time; a frame that is out of place ends the
//! session, and the node starts a new one with `hello`, which discards what was half sent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use undine_manifest::{Manifest, ManifestDelta, Profile};
use undine_model::{Bytes, ReleaseId, ServerId, SiteId};

mod files;

pub use files::{Expect, FileTask, Files, Follow, LogPiece, Piece, Put};

use crate::public::{FileEntry, FilePage};

/// The name of the virtio-serial port.
pub const PORT: &str = "undine.agent";
/// The largest payload of a frame: the whole manifest of a server with thousands of sites is one.
pub const MAX_PAYLOAD: usize = 16 << 20;
/// The kind of a frame with a request or a reply.
pub const JSON: u8 = 0;
/// The kind of a frame with a piece of a stream; an empty one ends it.
pub const DATA: u8 = 1;
/// The serial number of the data disk.
pub const DATA_DISK: &str = "undine-data";

/// A request; `id` comes back in the reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the node; rises.
    pub id: u64,
    /// What to do.
    pub ask: Ask,
}

/// A reply to the request of the same `id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// What the agent can be asked; each is safe to ask again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Who are you, how far are you?
    Hello,
    /// Become this server: clock, randomness, machine id, name, addresses.
    Identify(Identity),
    /// Check and mount the data disk that was just plugged in.
    AttachData(AttachData),
    /// Run all of this.
    Apply(Box<Manifest>),
    /// Change what runs by this; refused with [`FailureKind::NeedsWhole`] when the base differs.
    ApplyDelta(Box<ManifestDelta>),
    /// Does everything answer?
    Health,
    /// Take a release: data frames follow until an empty one; then it is checked and kept, not
    /// yet live. Answered once, after the last frame.
    Upload(Upload),
    /// Make a release live (atomically); the one before is kept.
    Activate(Activate),
    /// Install an application of the catalogue into a site, as its first release.
    Install(Box<Install>),
    /// What each site uses.
    Usage,
    /// The last lines of a site's log.
    Logs(Logs),
    /// What a site's log has said since it was asked before.
    Follow(Follow),
    /// Something with a site's files, as the site's own user.
    Files(Files),
    /// End a site's program; the next visitor starts it anew.
    Restart {
        /// The site.
        site: SiteId,
    },
    /// Make an empty release that files can be put into, unless it is there.
    Blank(Activate),
    /// Before becoming anybody: run what servers of this profile run, and undo it all, so that
    /// their programs start quickly later. The memory is a server's only after this ended well.
    Rehearse(Box<Profile>),
    /// Stop services, unmount the data disk, power off.
    Shutdown,
}

/// Who the server is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub server: ServerId,
    /// Its host name.
    pub hostname: String,
    /// 32 hexadecimal digits; the same for the server's whole life.
    pub machine_id: String,
    /// The time now, nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// At least 32 fresh random bytes, base64, for the kernel's generator.
    pub entropy: String,
    /// The hardware address of the network card to set up.
    pub mac: String,
    /// Its addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routers, one a family.
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    pub resolvers: Vec<IpAddr>,
    /// The edges' addresses in the server network: only they may say who a visitor is.
    #[serde(default)]
    pub edges: Vec<IpAddr>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The entropy stays out of logs.
        f.debug_struct("Identity")
            .field("server", &self.server)
            .field("hostname", &self.hostname)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// The data disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachData {
    /// Make a file system when the disk is blank (all zero at its start); only ever true for the
    /// first start of a server whose record says that nothing was written yet.
    pub create_if_blank: bool,
    /// The data format that this image writes; a disk with a higher one is refused.
    pub data_format: u32,
}

/// A release to take.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    /// For this site.
    pub site: SiteId,
    /// Under this id.
    pub release: ReleaseId,
    /// How it is packed.
    pub format: ArchiveFormat,
    /// Size of the archive in bytes.
    pub size: u64,
    /// SHA-256 of the archive, hexadecimal.
    pub sha256: String,
}

/// How a release is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveFormat {
    /// Plain tar.
    Tar,
    /// tar, gzip.
    TarGz,
    /// tar, zstd.
    TarZst,
    /// zip.
    Zip,
}

/// A release to make live.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activate {
    /// Of this site.
    pub site: SiteId,
    /// This release; it must have been taken.
    pub release: ReleaseId,
}

/// An application to install.
#[derive(Clone, Serialize, Deserialize)]
pub struct Install {
    /// Into this site.
    pub site: SiteId,
    /// As this release.
    pub release: ReleaseId,
    /// The application, whole: the catalogue is data.
    pub app: undine_manifest::app::App,
    /// What the installer needs to know, by the names that the application declares (title,
    /// administrator, password, e-mail …).
    pub answers: std::collections::BTreeMap<String, String>,
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The answers hold the administrator's first password.
        f.debug_struct("Install")
            .field("site", &self.site)
            .field("app", &self.app.name)
            .finish_non_exhaustive()
    }
}

/// Which log to read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logs {
    /// Of this site.
    pub site: SiteId,
    /// Which one.
    pub log: LogKind,
    /// At most so many lines (no more than 1,000 are sent).
    pub lines: u32,
}

/// Which log of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Requests.
    Access,
    /// Errors.
    Error,
}

/// What the agent answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// To `hello`.
    Hello(HelloAnswer),
    /// Done; nothing to tell.
    Done,
    /// To `apply` and `apply_delta`.
    Applied(Applied),
    /// To `health`.
    Health(Health),
    /// To `upload`, and to `files` for an archive: what was taken.
    Uploaded {
        /// Files in the release.
        files: u64,
        /// Bytes unpacked.
        bytes: Bytes,
    },
    /// To `usage`.
    Usage(Vec<SiteUsage>),
    /// To `logs`.
    Logs(Vec<String>),
    /// To `follow`.
    Followed(LogPiece),
    /// To `files`: what is in a folder.
    Listed(FilePage),
    /// To `files`: a piece of a file.
    Piece(Piece),
    /// To `files`: the file or folder as it is now.
    File(FileEntry),
}

/// How far the agent is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HelloAnswer {
    /// Its version.
    pub version: String,
    /// The highest manifest format that it reads.
    pub manifest_format: u32,
    /// The server that it has become, if any.
    pub server: Option<ServerId>,
    /// Is the data disk mounted?
    pub data_mounted: bool,
    /// The manifest version that it has applied, 0 for none.
    pub manifest_version: u64,
}

/// What came of applying a manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// The version that now runs.
    pub version: u64,
    /// Sites that could not be applied; every other one was.
    pub failed: Vec<SiteFailure>,
}

/// Why one site could not be applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteFailure {
    /// Which one.
    pub site: SiteId,
    /// What its service said.
    pub error: String,
}

/// Does everything answer?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// The data disk is mounted and writable.
    pub data_mounted: bool,
    /// The version that runs.
    pub manifest_version: u64,
    /// The web server answered the agent's own request.
    pub answers: bool,
    /// What is wrong, in words; empty when all is well.
    pub trouble: Vec<String>,
}

impl Health {
    /// All of it is well.
    pub fn is_well(&self) -> bool {
        self.data_mounted && self.answers
    }
}

/// What one site uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteUsage {
    /// Which one.
    pub site: SiteId,
    /// CPU time since the server started, microseconds.
    pub cpu_us: u64,
    /// Memory now.
    pub memory: Bytes,
    /// Bytes on disk.
    pub disk: Bytes,
    /// Files and folders on disk.
    pub inodes: u64,
    /// Processes now.
    pub processes: u32,
}

/// Why the agent did not do it.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind, for programs.
    pub kind: FailureKind,
    /// What happened and what to do, for people.
    pub message: String,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is wrong; asking again will not help.
    Invalid,
    /// The delta's base is not what runs here: send the whole manifest.
    NeedsWhole,
    /// The manifest or the data disk is from a newer version.
    Newer,
    /// Not yet identified or mounted.
    NotReady,
    /// No such site or release here.
    NotFound,
    /// An archive that breaks a rule (path, link, size, hash).
    BadArchive,
    /// A quota or the disk is full.
    Full,
    /// What is there is not what was expected.
    Conflict,
    /// Something in the server failed.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_survives_the_wire() {
        for answer in [
            Answer::Done,
            Answer::Usage(Vec::new()),
            Answer::Logs(vec!["line".to_owned()]),
            Answer::Uploaded {
                files: 1,
                bytes: Bytes(2),
            },
            Answer::Applied(Applied {
                version: 3,
                failed: Vec::new(),
            }),
        ] {
            let text = serde_json::to_string(&answer).unwrap();
            let back: Answer = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
