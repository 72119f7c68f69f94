//! Creating a data disk's image: the only place where one ever comes into being.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Deserialize;
use tokio::process::Command;

use super::StorageError;
use crate::files::{Owner, beside, folder_of, sync_folder};

/// Whether there was anything to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The image is new.
    New,
    /// It was there already, of the same size.
    Existed,
}

/// Creates an empty qcow2 image of `size_bytes` owned by `owner`, never replacing one.
///
/// An image appears under its name only when whole and flushed; dying inside leaves at most
/// `<image>.partial`, which the next call replaces. It has no file system: the guest makes that.
pub async fn create_image(
    qemu_img: &Path,
    image: &Path,
    size_bytes: u64,
    owner: Option<Owner>,
) -> Result<Created, StorageError> {
    if tokio::fs::try_exists(image).await? {
        let have = virtual_size(qemu_img, image).await?;
        if have != size_bytes {
            let image = image.to_owned();
            return Err(StorageError::OtherSize {
                image,
                have,
                want: size_bytes,
            });
        }
        return Ok(Created::Existed);
    }
    let partial = beside(image, "partial");
    let mut command = Command::new(qemu_img);
    command.args(["create", "-q", "-f", "qcow2", "-o", "compat=1.1"]);
    command.arg(&partial).arg(size_bytes.to_string());
    run(command, "create an image").await?;
    let image = image.to_owned();
    tokio::task::spawn_blocking(move || {
        if let Some(owner) = owner {
            owner.take(&partial)?;
        }
        let file = fs::File::open(&partial)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.sync_all()?;
        renameat_with(CWD, &partial, CWD, &image, RenameFlags::NOREPLACE)?;
        sync_folder(folder_of(&image))
    })
    .await
    .map_err(io::Error::other)??;
    Ok(Created::New)
}

/// The size of the disk inside an image, in bytes; also while a daemon has it open.
pub async fn virtual_size(qemu_img: &Path, image: &Path) -> Result<u64, StorageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        virtual_size: u64,
    }
    if !tokio::fs::try_exists(image).await? {
        return Err(StorageError::Lost {
            image: image.to_owned(),
        });
    }
    let mut command = Command::new(qemu_img);
    command
        .args(["info", "-U", "-f", "qcow2", "--output=json"])
        .arg(image);
    let output = run(command, "read an image").await?;
    let info: Info = serde_json::from_slice(&output).map_err(|_| StorageError::Unexpected {
        what: "qemu-img info is unreadable",
    })?;
    Ok(info.virtual_size)
}

async fn run(mut command: Command, what: &'static str) -> Result<Vec<u8>, StorageError> {
    let output = command.kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(StorageError::Image { what, words })
}
