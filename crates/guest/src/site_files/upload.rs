//! Taking a file: in pieces beside everything else, then into its place at once and whole.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fchmod, fstat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use undine_api::guest::{Answer, Expect, FailureKind, FileTask, Put};
use undine_api::public::{FileEntry, FileKind, MAX_FILE};
use undine_model::{Bytes, SitePath, UploadId};

use super::change::folders;
use super::list::{entry, kind, names};
use super::trees::{Trees, inside, look, mark, told};
use crate::fail::{Doing, Outcome, failure};

/// An upload that was broken off is thrown away after this.
const STALE_S: i64 = 24 * 3_600;

fn name_of(upload: UploadId) -> String {
    format!(".undine-upload-{upload}")
}

fn full(error: Errno) -> undine_api::guest::Failure {
    match error {
        Errno::DQUOT | Errno::NOSPC => failure(
            FailureKind::Full,
            "there is no room left: the site stores as much as it may",
        ),
        other => failure(
            FailureKind::Internal,
            format!("could not keep the upload: {other}"),
        ),
    }
}

/// Keeps a piece.
pub fn piece(trees: &Trees, upload: UploadId, offset: u64, data: &str) -> Outcome<Answer> {
    let invalid = |why: &str| Err(failure(FailureKind::Invalid, why));
    let Ok(bytes) = STANDARD.decode(data) else {
        return invalid("a piece is written in base64");
    };
    if bytes.len() > FileTask::PIECE {
        return invalid("a piece is too large");
    }
    if offset.saturating_add(bytes.len() as u64) > MAX_FILE {
        return Err(failure(
            FailureKind::Full,
            format!("a file has at most {} here", Bytes(MAX_FILE)),
        ));
    }
    let mut flags = OFlags::WRONLY;
    if offset == 0 {
        sweep(trees);
        flags |= OFlags::CREATE;
    }
    let file = match inside(&trees.tmp, &name_of(upload), flags) {
        Err(Errno::NOENT) => return lost(),
        other => File::from(other.map_err(full)?),
    };
    let have = file.metadata().doing("look at the upload")?.len();
    if have < offset {
        return lost();
    }
    file.write_all_at(&bytes, offset)
        .map_err(|error| full(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    Ok(Answer::Done)
}

fn lost<T>() -> Outcome<T> {
    Err(failure(
        FailureKind::Conflict,
        "the beginning of the upload is not here any more; send the file again",
    ))
}

/// Puts what was uploaded into its place; readers see the old file or the new one.
pub fn put(trees: &Trees, put: &Put) -> Outcome<FileEntry> {
    let staged = name_of(put.upload);
    let file = match inside(&trees.tmp, &staged, OFlags::RDWR) {
        Err(Errno::NOENT) => return lost(),
        other => File::from(other.map_err(full)?),
    };
    if file.metadata().doing("look at the upload")?.len() != put.size {
        return lost();
    }
    if put.parents {
        put.path
            .check_new()
            .map_err(|error| failure(FailureKind::Invalid, error.to_string()))?;
        folders(trees, &put.path.parent())?;
    }
    settle(trees, &file, &staged, &put.path, &put.expect)
}

/// Gives a finished file of `tmp` its name and has both on disk.
pub fn settle(
    trees: &Trees,
    file: &File,
    staged: &str,
    path: &SitePath,
    expect: &Expect,
) -> Outcome<FileEntry> {
    let wrong = |error| told(error, path);
    let (folder, name) = trees.place(path)?;
    let there = look(&folder, name).map_err(wrong)?;
    let mode = match &there {
        Some(stat) => {
            may_replace(stat, path, expect)?;
            // Never more than rights: a new file starts without set-user bits.
            stat.st_mode & 0o777
        }
        None => {
            path.check_new()
                .map_err(|error| failure(FailureKind::Invalid, error.to_string()))?;
            if let Expect::Mark(_) = expect {
                return Err(changed(path));
            }
            0o644
        }
    };
    fchmod(file, Mode::from_raw_mode(mode)).map_err(wrong)?;
    file.sync_all().doing("write the file to disk")?;
    match there {
        Some(_) => renameat(&trees.tmp, staged, &folder, name),
        None => renameat_with(&trees.tmp, staged, &folder, name, RenameFlags::NOREPLACE),
    }
    .map_err(wrong)?;
    File::from(folder.try_clone().doing("open the folder")?)
        .sync_all()
        .doing("write the folder to disk")?;
    let stat = fstat(file).map_err(wrong)?;
    Ok(entry(trees, folder.as_fd(), &path.parent(), name, &stat))
}

fn may_replace(stat: &rustix::fs::Stat, path: &SitePath, expect: &Expect) -> Outcome<()> {
    match kind(stat) {
        FileKind::File => {}
        FileKind::Folder => return Err(told(Errno::ISDIR, path)),
        FileKind::Link | FileKind::Other => {
            return Err(failure(
                FailureKind::Conflict,
                format!("`{path}` is a link or no file; remove it first"),
            ));
        }
    }
    match expect {
        Expect::Nothing => Err(told(Errno::EXIST, path)),
        Expect::Mark(wanted) if *wanted != mark(stat) => Err(changed(path)),
        _ => Ok(()),
    }
}

/// Somebody was quicker.
pub fn changed(path: &SitePath) -> undine_api::guest::Failure {
    failure(
        FailureKind::Conflict,
        format!("`{path}` was changed meanwhile"),
    )
}

/// Throws away what was uploaded.
pub fn forget(trees: &Trees, upload: UploadId) -> Outcome<Answer> {
    match unlinkat(&trees.tmp, &*name_of(upload), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Answer::Done),
        Err(error) => Err(full(error)),
    }
}

/// Throws away what nobody finished; folders that were removed go with the next removal.
fn sweep(trees: &Trees) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    for name in names(&trees.tmp)
        .map(|(names, _)| names)
        .unwrap_or_default()
    {
        if name.starts_with(".undine-")
            && let Ok(Some(stat)) = look(&trees.tmp, &name)
            && stat.st_mtime.saturating_add(STALE_S) < now
        {
            let _ = unlinkat(&trees.tmp, &*name, AtFlags::empty());
        }
    }
}
