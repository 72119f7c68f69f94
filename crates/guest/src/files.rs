//! Small file operations that are whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};

/// The name beside `path` under which its successor is written.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".undine-new-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Replaces a file by rename; readers see the old text or the new one.
pub fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    replace_owned(path, text, mode, None)
}

/// Replaces a file by rename and gives it an owner and a group.
pub fn replace_owned(
    path: &Path,
    text: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let new = beside(path);
    let _ = fs::remove_file(&new);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner {
        chown(&new, Some(uid), Some(gid))?;
    }
    fs::rename(&new, path)
}

/// Replaces a file and has it on disk, with its folder, before it returns.
pub fn replace_durably(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path);
    let _ = fs::remove_file(&new);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Has a folder's names on disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file only when its text differs; says whether it did.
pub fn replace_if_changed(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    replace(path, text.as_bytes(), mode)?;
    Ok(true)
}

/// Makes a folder, or corrects owner and mode of the one that is there. A link in its place is
/// not followed but refused.
pub fn folder(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&open)?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        rustix::fs::fchown(&open, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    if stat.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(&open, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

/// Points a symbolic link to a target by rename; says whether anything changed.
pub fn link(path: &Path, target: &Path) -> io::Result<bool> {
    if fs::read_link(path).is_ok_and(|old| old == target) {
        return Ok(false);
    }
    let new = beside(path);
    let _ = fs::remove_file(&new);
    symlink(target, &new)?;
    fs::rename(&new, path)?;
    Ok(true)
}

/// Removes a file or link; one that is not there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a file or link itself an owner.
pub fn own_link(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::chownat(
        CWD,
        path,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Has everything of the file system that holds `path` on disk.
pub fn sync_all_of(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_switched_and_a_same_one_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        assert!(link(&path, Path::new("releases/a")).unwrap());
        assert!(!link(&path, Path::new("releases/a")).unwrap());
        assert!(link(&path, Path::new("releases/b")).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("releases/b"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_where_a_folder_belongs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc", dir.path().join("logs")).unwrap();
        let me = rustix::process::getuid().as_raw();
        assert!(folder(&dir.path().join("logs"), me, me, 0o700).is_err());
    }
}
