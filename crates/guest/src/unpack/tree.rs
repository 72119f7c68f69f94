//! The tree that an archive becomes, with the rules that it must keep.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use undine_api::guest::FailureKind;
use undine_model::Bytes;

use super::{Limits, Taken, bad};
use crate::fail::{Doing, Outcome, failure};

/// Longer names serve nobody and break tools.
const LONGEST: usize = 1_000;
const DEEPEST: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
    Link,
}

/// The tree so far. Names are looked up here, never on disk: no link is ever followed.
pub struct Tree {
    folder: PathBuf,
    known: BTreeMap<PathBuf, Kind>,
    limits: Limits,
    taken: Taken,
    written: u64,
}

impl Tree {
    /// An empty tree in an empty folder.
    pub fn new(folder: &Path, limits: Limits) -> Outcome<Self> {
        fs::create_dir_all(folder).doing("make a folder for the release")?;
        Ok(Self {
            folder: folder.to_owned(),
            known: BTreeMap::new(),
            limits,
            taken: Taken::default(),
            written: 0,
        })
    }

    /// What has been taken so far.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// Adds a folder.
    pub fn add_folder(&mut self, name: &[u8]) -> Outcome<()> {
        match clean(name)? {
            Some(path) => self.folders(&path),
            None => Ok(()),
        }
    }

    /// Adds a file with what can be read from `content`.
    pub fn add_file(
        &mut self,
        name: &[u8],
        executable: bool,
        content: &mut dyn Read,
    ) -> Outcome<()> {
        let path = self.leaf(name)?;
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.folder.join(&path))
            .doing("make a file of the release")?;
        self.copy(content, &mut file, &path)?;
        self.known.insert(path, Kind::File);
        self.taken.files += 1;
        Ok(())
    }

    /// Adds a symbolic link; its target must lie in the release.
    pub fn add_link(&mut self, name: &[u8], target: &[u8]) -> Outcome<()> {
        let path = self.leaf(name)?;
        let target = text(target)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        if !stays_inside(parent, &target) {
            return Err(bad(format!(
                "the link {} leads out of the archive, to {target}",
                path.display()
            )));
        }
        symlink(&target, self.folder.join(&path)).doing("make a link of the release")?;
        self.known.insert(path, Kind::Link);
        self.taken.files += 1;
        Ok(())
    }

    /// Adds a second name for a file that came before.
    pub fn add_hard_link(&mut self, name: &[u8], target: &[u8]) -> Outcome<()> {
        let target = clean(target)?.unwrap_or_default();
        if self.known.get(&target) != Some(&Kind::File) {
            return Err(bad(format!(
                "a hard link leads to {}, which is no file before it in the archive",
                target.display()
            )));
        }
        let path = self.leaf(name)?;
        fs::hard_link(self.folder.join(&target), self.folder.join(&path))
            .doing("make a hard link of the release")?;
        self.known.insert(path, Kind::File);
        self.taken.files += 1;
        Ok(())
    }

    /// A clean path for something new: its folders made, its own name free.
    fn leaf(&mut self, name: &[u8]) -> Outcome<PathBuf> {
        let path = clean(name)?.ok_or_else(|| bad("the archive has a file without a name"))?;
        self.folders(path.parent().unwrap_or(Path::new("")))?;
        match self.known.get(&path) {
            // As tar itself does: of two files with one name the later one counts.
            Some(Kind::File | Kind::Link) => {
                fs::remove_file(self.folder.join(&path)).doing("replace a file of the release")?;
            }
            Some(Kind::Folder) => {
                return Err(bad(format!(
                    "{} is a folder and a file in the archive",
                    path.display()
                )));
            }
            None => self.count()?,
        }
        Ok(path)
    }

    fn folders(&mut self, path: &Path) -> Outcome<()> {
        let mut so_far = PathBuf::new();
        for part in path {
            so_far.push(part);
            match self.known.get(&so_far) {
                Some(Kind::Folder) => {}
                Some(Kind::File | Kind::Link) => {
                    return Err(bad(format!(
                        "{} is used as a folder, but is a file or a link",
                        so_far.display()
                    )));
                }
                None => {
                    self.count()?;
                    let folder = self.folder.join(&so_far);
                    rustix::fs::mkdir(&folder, rustix::fs::Mode::from_raw_mode(0o755))
                        .doing("make a folder of the release")?;
                    self.known.insert(so_far.clone(), Kind::Folder);
                }
            }
        }
        Ok(())
    }

    fn count(&self) -> Outcome<()> {
        if self.known.len() as u64 >= self.limits.inodes {
            return Err(failure(
                FailureKind::Full,
                format!(
                    "the archive has more than the {} files and folders that the site has room for",
                    self.limits.inodes
                ),
            ));
        }
        Ok(())
    }

    fn copy(&mut self, content: &mut dyn Read, file: &mut File, path: &Path) -> Outcome<()> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let count = match content.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(bad(format!("{} cannot be read: {error}", path.display())));
                }
            };
            self.written += count as u64;
            if self.written > self.limits.bytes {
                return Err(failure(
                    FailureKind::Full,
                    format!(
                        "the archive unpacks to more than the {} that the site has room for",
                        Bytes(self.limits.bytes)
                    ),
                ));
            }
            self.taken.bytes += count as u64;
            file.write_all(&chunk[..count])
                .doing("write a file of the release")?;
        }
    }
}

fn text(bytes: &[u8]) -> Outcome<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("a name in the archive is not UTF-8"))?;
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(bad(
            "a name in the archive is too long or has control characters",
        ));
    }
    Ok(text.to_owned())
}

/// A name from the archive as a path below the release; none for the release itself.
fn clean(name: &[u8]) -> Outcome<Option<PathBuf>> {
    let name = text(name)?;
    if name.starts_with('/') || name.contains('\\') {
        return Err(bad(format!("{name} is not a name below the site's folder")));
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(bad(format!("{name} leads out of the archive"))),
            part if part.len() > 255 => return Err(bad("a name in the archive is too long")),
            part => path.push(part),
        }
    }
    if path.components().count() > DEEPEST {
        return Err(bad("the archive has folders nested too deeply"));
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Does a link in `parent` with this target end inside the release, by its text alone?
fn stays_inside(parent: &Path, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') {
        return false;
    }
    let mut depth = parent.components().count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // Through another link the way up might be a different one: only leading `..` are
            // taken, where the folders are known to be real.
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    let after_first_name = target
        .split('/')
        .skip_while(|part| matches!(*part, "" | "." | ".."));
    !after_first_name.into_iter().any(|part| part == "..")
}
