//! Making and unpacking archives among a site's files.
//!
//! Both are bounded in bytes and names: an agent at work on one answers nothing else.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, RenameFlags, fstat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use undine_api::guest::{Answer, ArchiveFormat, Expect, Failure, FailureKind};
use undine_api::public::FileKind;
use undine_model::{Bytes, SitePath};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::as_user::as_user;
use super::change::{fresh, on_disk};
use super::list::{kind, names};
use super::read;
use super::trees::{Trees, inside, look, told};
use super::upload::settle;
use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::release::Releases;
use crate::site;
use crate::unpack::{self, Limits, Taken};

/// An archive made or unpacked here holds no more.
const MOST: Limits = Limits {
    bytes: 512 << 20,
    inodes: 20_000,
};
/// Folders are followed no deeper.
const DEEPEST: usize = 80;

fn too_much() -> Failure {
    failure(
        FailureKind::Full,
        format!(
            "an archive is made or unpacked here up to {} and {} names; take parts of it, or deploy it as a release",
            Bytes(MOST.bytes),
            MOST.inodes
        ),
    )
}

/// Makes a zip archive.
pub fn pack(trees: &Trees, paths: &[SitePath], to: &SitePath) -> Outcome<Answer> {
    let invalid = |why: String| Err(failure(FailureKind::Invalid, why));
    if !to.as_str().ends_with(".zip") {
        return invalid(format!(
            "`{to}` is no name of a zip archive: end it in .zip"
        ));
    }
    if paths.is_empty() {
        return invalid("an archive of nothing is none; name what is to be in it".to_owned());
    }
    to.check_new()
        .map_err(|error| failure(FailureKind::Invalid, error.to_string()))?;
    let staged = fresh("pack");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let file = File::from(inside(&trees.tmp, &staged, flags).map_err(|error| told(error, to))?);
    let made = filled(trees, paths, file).and_then(|(file, taken)| {
        settle(trees, &file, &staged, to, &Expect::Nothing)?;
        Ok(taken)
    });
    if made.is_err() {
        let _ = unlinkat(&trees.tmp, &*staged, AtFlags::empty());
    }
    made.map(answer)
}

fn answer(taken: Taken) -> Answer {
    Answer::Uploaded {
        files: taken.files,
        bytes: Bytes(taken.bytes),
    }
}

fn filled(trees: &Trees, paths: &[SitePath], file: File) -> Outcome<(File, Taken)> {
    let mut packer = Packer {
        zip: ZipWriter::new(file),
        taken: Taken::default(),
        names: 0,
    };
    for path in paths {
        let (folder, name) = trees.place(path)?;
        packer
            .add(folder.as_fd(), name, name, 0)
            .map_err(|error| match error {
                Trouble::Kernel(error) => told(error, path),
                Trouble::Told(failure) => failure,
            })?;
    }
    let file = packer.zip.finish().doing("finish the archive")?;
    Ok((file, packer.taken))
}

enum Trouble {
    Kernel(Errno),
    Told(Failure),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Told(failure)
    }
}

struct Packer {
    zip: ZipWriter<File>,
    taken: Taken,
    names: u64,
}

impl Packer {
    /// Adds a file, or a folder with what is in it. Links and sockets are left out: an archive
    /// that leads somewhere else is of no use to whoever gets it.
    fn add(
        &mut self,
        folder: impl AsFd,
        name: &str,
        shown: &str,
        depth: usize,
    ) -> Result<(), Trouble> {
        self.names += 1;
        if self.names > MOST.inodes || depth > DEEPEST {
            return Err(too_much().into());
        }
        let Some(stat) = look(&folder, name)? else {
            return match depth {
                0 => Err(Errno::NOENT.into()),
                // It went away while the archive was made.
                _ => Ok(()),
            };
        };
        match kind(&stat) {
            FileKind::Folder => {
                let inner = inside(&folder, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.zip
                    .add_directory(shown, SimpleFileOptions::default())
                    .doing("write the archive")?;
                let (names, truncated) = names(&inner)?;
                if truncated {
                    return Err(too_much().into());
                }
                for name in names {
                    self.add(&inner, &name, &format!("{shown}/{name}"), depth + 1)?;
                }
                Ok(())
            }
            FileKind::File => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                self.file(inside(&folder, name, flags)?, shown)
            }
            FileKind::Link | FileKind::Other => Ok(()),
        }
    }

    fn file(&mut self, open: OwnedFd, shown: &str) -> Result<(), Trouble> {
        // Looked at again: it may be another one by now.
        let stat = fstat(&open)?;
        if kind(&stat) != FileKind::File {
            return Ok(());
        }
        let options = SimpleFileOptions::default().unix_permissions(stat.st_mode & 0o777);
        self.zip
            .start_file(shown, options)
            .doing("write the archive")?;
        let mut open = File::from(open);
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let count = open.read(&mut chunk).doing("read a file for the archive")?;
            if count == 0 {
                self.taken.files += 1;
                return Ok(());
            }
            self.taken.bytes += count as u64;
            if self.taken.bytes > MOST.bytes {
                return Err(too_much().into());
            }
            self.zip
                .write_all(&chunk[..count])
                .doing("write the archive")?;
        }
    }
}

/// How an archive is packed, by its name.
fn format_of(path: &SitePath) -> Outcome<ArchiveFormat> {
    let name = path.name().unwrap_or_default().to_ascii_lowercase();
    let known = [
        (".zip", ArchiveFormat::Zip),
        (".tar", ArchiveFormat::Tar),
        (".tar.gz", ArchiveFormat::TarGz),
        (".tgz", ArchiveFormat::TarGz),
        (".tar.zst", ArchiveFormat::TarZst),
    ];
    let found = known.into_iter().find(|(end, _)| name.ends_with(end));
    found.map(|(_, format)| format).ok_or_else(|| {
        failure(
            FailureKind::Invalid,
            format!("`{path}` is no archive by its name: .zip, .tar, .tar.gz, .tgz or .tar.zst"),
        )
    })
}

/// Unpacks an archive: first where the site's programs cannot enter, by the rules of releases,
/// then into the folder as the site's user, who can put nothing where it may not.
pub fn unpack(
    releases: &Releases,
    trees: &Trees,
    path: &SitePath,
    into: &SitePath,
) -> Outcome<Answer> {
    let format = format_of(path)?;
    let uid = releases.site.uid;
    let mut archive = as_user(uid, || {
        trees.folder(into)?;
        read::open(trees, path)
    })?;
    let room = releases.room();
    let limits = Limits {
        bytes: room.bytes.min(MOST.bytes),
        inodes: room.inodes.min(MOST.inodes),
    };
    let stage = releases.at.incoming().join(fresh("unpack"));
    let outcome = unpack::unpack(&mut archive, format, &stage, limits).and_then(|taken| {
        site::own_tree(&stage, uid, uid).doing("hand the files to the site's user")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(&stage, flags, rustix::fs::Mode::empty())
            .doing("open what was unpacked")?;
        as_user(uid, || {
            let target = trees.folder(into)?;
            merge(&open, &target, into)
        })?;
        files::sync_all_of(&releases.at.home).doing("write the files to disk")?;
        Ok(taken)
    });
    let _ = site::discard(releases.paths(), &stage);
    outcome.map(answer)
}

/// Moves everything of one folder into another; files of the same name are replaced.
fn merge(from: &OwnedFd, to: &OwnedFd, shown: &SitePath) -> Outcome<()> {
    let wrong = |error| told(error, shown);
    for name in names(from).map_err(wrong)?.0 {
        let path = shown
            .join(&name)
            .map_err(|error| failure(FailureKind::BadArchive, error.to_string()))?;
        let wrong = |error| told(error, &path);
        let Some(new) = look(from, &name).map_err(wrong)? else {
            continue;
        };
        let there = look(to, &name).map_err(wrong)?;
        match (kind(&new), there.as_ref().map(kind)) {
            (_, None) => renameat_with(from, &*name, to, &*name, RenameFlags::NOREPLACE),
            (FileKind::Folder, Some(FileKind::Folder)) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let inner = inside(from, &name, flags).map_err(wrong)?;
                let target = inside(to, &name, flags).map_err(wrong)?;
                merge(&inner, &target, &path)?;
                Ok(())
            }
            (FileKind::Folder, Some(_)) | (_, Some(FileKind::Folder)) => {
                return Err(failure(
                    FailureKind::Conflict,
                    format!("`{path}` is a folder on one side and none on the other"),
                ));
            }
            _ => renameat(from, &*name, to, &*name),
        }
        .map_err(wrong)?;
    }
    on_disk(to)
}
