//! A site's files, for people: looked at, sent, taken, renamed, removed, packed and unpacked.
//!
//! Nothing here trusts a path. The trees are opened by the agent from names that only root can
//! change; everything below them is found from there by `openat2`, which follows no link and
//! leaves no tree, however fast the site's own programs rename things meanwhile; and it is done
//! with the rights of the site's user, so that the kernel itself refuses what that user may not
//! do and counts what it may store.

mod archive;
mod as_user;
mod change;
mod list;
mod read;
mod trees;
mod upload;

use undine_api::guest::{Answer, FileTask};

use crate::fail::Outcome;
use crate::release::Releases;
use as_user::as_user;
use trees::Trees;

/// Does it.
pub fn run(releases: &Releases, task: FileTask) -> Outcome<Answer> {
    let trees = Trees::open(&releases.at)?;
    let uid = releases.site.uid;
    match task {
        FileTask::Remove { path, mark } => {
            as_user(uid, || change::put_aside(&trees, &path, mark.as_deref()))?;
            change::forget(releases)
        }
        FileTask::Unpack { path, into } => archive::unpack(releases, &trees, &path, &into),
        task => as_user(uid, || as_the_site(&trees, task)),
    }
}

fn as_the_site(trees: &Trees, task: FileTask) -> Outcome<Answer> {
    match task {
        FileTask::List { path, after, limit } => {
            list::list(trees, &path, after.as_deref(), limit).map(Answer::Listed)
        }
        FileTask::Read { path, offset, mark } => {
            read::piece(trees, &path, offset, mark.as_deref()).map(Answer::Piece)
        }
        FileTask::Piece {
            upload,
            offset,
            data,
        } => upload::piece(trees, upload, offset, &data),
        FileTask::Put(put) => upload::put(trees, &put).map(Answer::File),
        FileTask::Forget { upload } => upload::forget(trees, upload),
        FileTask::Folder { path } => change::folder(trees, &path).map(Answer::File),
        FileTask::Move { from, to } => change::rename(trees, &from, &to).map(Answer::File),
        FileTask::Pack { paths, to } => archive::pack(trees, &paths, &to),
        FileTask::Remove { .. } | FileTask::Unpack { .. } => Ok(Answer::Done),
    }
}

#[cfg(test)]
mod tests;
