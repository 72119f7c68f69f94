//! Unpacks an archive that a stranger made, into a folder that nobody else can enter.
//!
//! Every name must lie below the release; links may lead only to what lies in the release;
//! nothing but files, folders and links is made; what it takes is counted while it is written, so
//! that an archive that unpacks to far more than it says stops at the site's room.

mod tar;
mod tree;
mod zip;

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;

use undine_api::guest::{ArchiveFormat, Failure, FailureKind};

use crate::fail::{Doing, Outcome, failure};
use tree::Tree;

/// What the site has room for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

/// What an archive held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Unpacks `archive` into the empty `folder`.
pub fn unpack(
    archive: &mut File,
    format: ArchiveFormat,
    folder: &Path,
    limits: Limits,
) -> Outcome<Taken> {
    archive.rewind().doing("read the archive")?;
    let mut tree = Tree::new(folder, limits)?;
    let read = BufReader::with_capacity(64 * 1024, archive);
    match format {
        ArchiveFormat::Tar => tar::unpack(read, &mut tree)?,
        ArchiveFormat::TarGz => tar::unpack(flate2::read::MultiGzDecoder::new(read), &mut tree)?,
        ArchiveFormat::TarZst => {
            let stream = ruzstd::decoding::StreamingDecoder::new(read)
                .map_err(|error| bad(format!("the archive is no zstd stream: {error}")))?;
            tar::unpack(stream, &mut tree)?;
        }
        ArchiveFormat::Zip => zip::unpack(read, &mut tree)?,
    }
    let taken = tree.taken();
    if taken.files == 0 {
        return Err(bad("the archive has no files"));
    }
    Ok(taken)
}

/// A failure that is the archive's.
fn bad(message: impl Into<String>) -> Failure {
    failure(FailureKind::BadArchive, message)
}

#[cfg(test)]
mod tests;
