//! What is in a folder, page by page.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags, Stat, fstat, readlinkat};
use std::os::fd::AsFd;
use undine_api::public::{FileEntry, FileKind, FilePage};
use undine_model::SitePath;

use super::trees::{Trees, inside, look, mark, told};
use crate::fail::Outcome;

/// More names than this in one folder are not looked at.
const MOST_NAMES: usize = 100_000;
/// More names than this are not sent at once.
const MOST_SENT: usize = 1_000;

/// One page of a folder.
pub fn list(trees: &Trees, path: &SitePath, after: Option<&str>, limit: u32) -> Outcome<FilePage> {
    if path.tree().is_none() {
        return top(trees);
    }
    let empty = |items| FilePage {
        path: path.clone(),
        items,
        next: None,
        truncated: false,
    };
    if path.as_str() == SitePath::CURRENT && !trees.has_content() {
        return Ok(empty(Vec::new()));
    }
    let folder = trees.folder(path)?;
    let (names, truncated) = names(&folder).map_err(|error| told(error, path))?;
    let limit = (limit as usize).clamp(1, MOST_SENT);
    let mut wanted = names
        .into_iter()
        .filter(|name| after.is_none_or(|after| name.as_str() > after));
    let mut items = Vec::new();
    let mut last = None;
    for name in wanted.by_ref().take(limit) {
        // What went away since is not there any more.
        if let Some(stat) = look(&folder, &name).unwrap_or(None) {
            items.push(entry(trees, &folder, path, &name, &stat));
        } else if name.contains(char::REPLACEMENT_CHARACTER) {
            items.push(unnameable(&name));
        }
        last = Some(name);
    }
    let next = last.filter(|_| wanted.next().is_some());
    Ok(FilePage {
        next,
        truncated,
        ..empty(items)
    })
}

fn top(trees: &Trees) -> Outcome<FilePage> {
    let mut items = Vec::new();
    for name in [SitePath::CURRENT, SitePath::SHARED] {
        let path: SitePath = SitePath::top().join(name).unwrap_or_default();
        let (mark, modified_at) = match trees.folder(&path) {
            Ok(folder) => {
                let stat = fstat(&folder).map_err(|error| told(error, &path))?;
                (mark(&stat), modified(&stat))
            }
            // Before the first release.
            Err(_) => (String::new(), 0),
        };
        items.push(FileEntry {
            name: name.to_owned(),
            path: Some(path),
            kind: FileKind::Folder,
            size: 0,
            modified_at,
            mark,
            leads_to: None,
        });
    }
    Ok(FilePage {
        path: SitePath::top(),
        items,
        next: None,
        truncated: false,
    })
}

/// A folder's names in their order; whether there are more than are looked at.
pub fn names(folder: impl AsFd) -> Result<(Vec<String>, bool), rustix::io::Errno> {
    // Another one of the same folder: reading moves a place that both ends would share.
    let own = inside(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    let mut truncated = false;
    for entry in Dir::new(own)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        if names.len() == MOST_NAMES {
            truncated = true;
            break;
        }
        names.push(name);
    }
    names.sort();
    Ok((names, truncated))
}

/// What something is.
pub fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Folder,
        FileType::RegularFile => FileKind::File,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

fn modified(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000)
        .saturating_add_unsigned(stat.st_mtime_nsec / 1_000_000)
}

/// A name in a folder, as people are told of it.
pub fn entry(
    trees: &Trees,
    folder: impl AsFd,
    path: &SitePath,
    name: &str,
    stat: &Stat,
) -> FileEntry {
    let kind = kind(stat);
    let leads_to = match kind {
        FileKind::Link => readlinkat(folder, name, Vec::new())
            .ok()
            .and_then(|target| leads_to(trees, path, target.to_str().ok()?)),
        _ => None,
    };
    FileEntry {
        name: name.to_owned(),
        path: path.join(name).ok(),
        kind,
        size: match kind {
            FileKind::File => stat.st_size.unsigned_abs(),
            _ => 0,
        },
        modified_at: modified(stat),
        mark: mark(stat),
        leads_to,
    }
}

/// A name that is no text: it is shown, and nothing can be done with it here.
fn unnameable(name: &str) -> FileEntry {
    FileEntry {
        name: name.to_owned(),
        path: None,
        kind: FileKind::Other,
        size: 0,
        modified_at: 0,
        mark: String::new(),
        leads_to: None,
    }
}

/// Where a link leads by its text alone, when that is among the site's files. Whoever goes there
/// goes by that path, and what is found on it is looked at as carefully as ever.
fn leads_to(trees: &Trees, folder: &SitePath, target: &str) -> Option<SitePath> {
    let start = match folder.tree()? {
        SitePath::SHARED => Path::new(SitePath::SHARED).to_owned(),
        _ => trees.live.clone(),
    };
    let mut parts: Vec<String> = Vec::new();
    let whole = match Path::new(target).strip_prefix(&trees.home) {
        Ok(within) => within.to_owned(),
        Err(_) => start.join(folder.within()).join(target),
    };
    for part in whole.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?.to_owned()),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let whole: PathBuf = parts.iter().collect();
    let text = match whole.strip_prefix(&trees.live) {
        Ok(within) if trees.has_content() => Path::new(SitePath::CURRENT).join(within),
        _ => whole,
    };
    text.to_str()?
        .parse()
        .ok()
        .filter(|it| *it != SitePath::top())
}
