//! zip archives.

use std::io::{Read, Seek};

use zip::ZipArchive;

use super::bad;
use super::tree::Tree;
use crate::fail::Outcome;

const S_IFMT: u32 = 0o170_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// Unpacks a zip file.
pub fn unpack(file: impl Read + Seek, tree: &mut Tree) -> Outcome<()> {
    let unreadable = |error| bad(format!("the archive cannot be read: {error}"));
    let mut archive = ZipArchive::new(file).map_err(unreadable)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(unreadable)?;
        let name = entry.name_raw().to_vec();
        let mode = entry.unix_mode().unwrap_or(0);
        match mode & S_IFMT {
            _ if entry.is_dir() => tree.add_folder(&name)?,
            0 | S_IFREG => tree.add_file(&name, mode & 0o100 != 0, &mut entry)?,
            S_IFDIR => tree.add_folder(&name)?,
            S_IFLNK => {
                let mut target = Vec::new();
                entry
                    .by_ref()
                    .take(4096)
                    .read_to_end(&mut target)
                    .map_err(|error| bad(format!("a link cannot be read: {error}")))?;
                tree.add_link(&name, &target)?;
            }
            _ => {
                return Err(bad(format!(
                    "{} is neither file, folder nor link",
                    String::from_utf8_lossy(&name)
                )));
            }
        }
    }
    Ok(())
}
