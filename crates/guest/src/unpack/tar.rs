//! tar archives, packed in whatever way.

use std::io::Read;

use tar::{Archive, Entry, EntryType};

use super::bad;
use super::tree::Tree;
use crate::fail::Outcome;

/// Unpacks a tar stream.
pub fn unpack(stream: impl Read, tree: &mut Tree) -> Outcome<()> {
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(|error| unreadable(&error))?;
    for entry in entries {
        one(&mut entry.map_err(|error| unreadable(&error))?, tree)?;
    }
    Ok(())
}

fn unreadable(error: &std::io::Error) -> undine_api::guest::Failure {
    bad(format!("the archive cannot be read: {error}"))
}

fn one(entry: &mut Entry<'_, impl Read>, tree: &mut Tree) -> Outcome<()> {
    let name = entry.path_bytes().into_owned();
    let kind = entry.header().entry_type();
    match kind {
        EntryType::Directory => tree.add_folder(&name),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
            tree.add_file(&name, executable, entry)
        }
        EntryType::Symlink => tree.add_link(&name, &target(entry)?),
        EntryType::Link => tree.add_hard_link(&name, &target(entry)?),
        // Notes for the whole archive, such as the commit that git writes.
        EntryType::XGlobalHeader => Ok(()),
        _ => Err(bad(format!(
            "{} is neither file, folder nor link",
            String::from_utf8_lossy(&name)
        ))),
    }
}

fn target(entry: &Entry<'_, impl Read>) -> Outcome<Vec<u8>> {
    entry
        .link_name_bytes()
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| bad("the archive has a link without a target"))
}
