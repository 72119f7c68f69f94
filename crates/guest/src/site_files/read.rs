//! Sending a file, one piece at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::fstat;
use undine_api::guest::{FailureKind, FileTask, Piece};
use undine_api::public::FileKind;
use undine_model::SitePath;

use super::list::kind;
use super::trees::{Trees, mark, told};
use crate::fail::{Doing, Outcome, failure};

/// A piece of a file, while it is still the one with this mark.
pub fn piece(
    trees: &Trees,
    path: &SitePath,
    offset: u64,
    expected: Option<&str>,
) -> Outcome<Piece> {
    let file = open(trees, path)?;
    let stat = fstat(&file).map_err(|error| told(error, path))?;
    let found = mark(&stat);
    if expected.is_some_and(|expected| expected != found) {
        return Err(failure(
            FailureKind::Conflict,
            "the file was changed while it was read",
        ));
    }
    let mut bytes = vec![0; FileTask::PIECE];
    let mut have = 0;
    while have < bytes.len() {
        match file
            .read_at(&mut bytes[have..], offset.saturating_add(have as u64))
            .doing("read the file")?
        {
            0 => break,
            count => have += count,
        }
    }
    bytes.truncate(have);
    Ok(Piece {
        size: stat.st_size.unsigned_abs(),
        mark: found,
        data: STANDARD.encode(&bytes),
    })
}

/// Opens a file that is one.
pub fn open(trees: &Trees, path: &SitePath) -> Outcome<File> {
    let file = trees.file(path)?;
    let stat = fstat(&file).map_err(|error| told(error, path))?;
    match kind(&stat) {
        FileKind::File => Ok(File::from(file)),
        FileKind::Folder => Err(failure(
            FailureKind::Invalid,
            format!("`{path}` is a folder"),
        )),
        _ => Err(failure(
            FailureKind::Invalid,
            format!("`{path}` is no file"),
        )),
    }
}
