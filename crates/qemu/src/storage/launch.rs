//! A daemon's command line, its first moments, and why it may end in them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::{ALWAYS_BITMAP, Bitmap, IMAGE_NODE, NbdAddress, StorageError};
use crate::command::{escaped, server_socket, text};
use crate::files::RunDir;
use crate::process::{Exit, ProcessId};
use crate::qmp::Qmp;

/// Granularity of the persistent bitmap: one qcow2 cluster.
pub(super) const BITMAP_GRANULARITY_BYTES: u64 = 64 << 10;

pub(super) fn find(run_dir: &RunDir) -> Result<Option<ProcessId>, StorageError> {
    Ok(ProcessId::find("--pidfile", &run_dir.pid_file())?)
}

/// Lets the daemon's group connect: the VM is another user of the same group.
pub(super) fn open_to_group(socket: &Path) -> Result<(), StorageError> {
    match std::fs::set_permissions(socket, Permissions::from_mode(0o660)) {
        // It serves on the network.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

pub(super) async fn query_nodes(qmp: &Qmp) -> Result<Vec<Value>, StorageError> {
    let nodes = qmp
        .execute("query-named-block-nodes", json!({"flat": true}))
        .await?;
    serde_json::from_value(nodes).map_err(|_| StorageError::Unexpected {
        what: "the list of block nodes is unreadable",
    })
}

/// Makes sure that the persistent bitmap is there and recording.
pub(super) async fn ensure_bitmap(qmp: &Qmp) -> Result<Bitmap, StorageError> {
    let nodes = query_nodes(qmp).await?;
    let node = nodes.iter().find(|node| node["node-name"] == IMAGE_NODE);
    let node = node.ok_or(StorageError::Unexpected {
        what: "the daemon has no image",
    })?;
    let bitmaps = node["dirty-bitmaps"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let names = json!({"node": IMAGE_NODE, "name": ALWAYS_BITMAP});
    match bitmaps
        .iter()
        .find(|bitmap| bitmap["name"] == ALWAYS_BITMAP)
    {
        Some(bitmap) if bitmap["inconsistent"] != true => return Ok(Bitmap::Kept),
        // A crash left it half written; QEMU allows nothing but its removal.
        Some(_) => drop(
            qmp.execute("block-dirty-bitmap-remove", names.clone())
                .await?,
        ),
        None => {}
    }
    let mut fresh = names;
    fresh["persistent"] = true.into();
    fresh["granularity"] = BITMAP_GRANULARITY_BYTES.into();
    qmp.execute("block-dirty-bitmap-add", fresh).await?;
    Ok(Bitmap::Fresh)
}

pub(super) fn arguments(
    run_dir: &RunDir,
    image: &Path,
    listen: &NbdAddress,
    psk: Option<&Path>,
) -> Result<Vec<String>, StorageError> {
    let pid_file = run_dir.pid_file();
    let file = json!({"driver": "file", "node-name": "image-file", "discard": "unmap",
        "filename": text(image, "the image's path")?});
    let qcow2 = json!({"driver": "qcow2", "node-name": IMAGE_NODE, "file": "image-file",
        "discard": "unmap"});
    let server = match listen {
        NbdAddress::Unix(path) => {
            let path = escaped(
                text(path, "the NBD socket's path")?,
                "the NBD socket's path",
            )?;
            format!("addr.type=unix,addr.path={path}")
        }
        NbdAddress::Inet(address) => {
            format!(
                "addr.type=inet,addr.host={},addr.port={}",
                address.ip(),
                address.port()
            )
        }
    };
    let (credentials, server) = match psk {
        Some(folder) => {
            let folder = escaped(text(folder, "the key's folder")?, "the key's folder")?;
            let object = format!("tls-creds-psk,id=tls,endpoint=server,dir={folder}");
            (Some(object), format!("{server},tls-creds=tls"))
        }
        None => (None, server),
    };
    let mut args = vec![
        "--pidfile".into(),
        text(&pid_file, "the run folder")?.into(),
        "--chardev".into(),
        server_socket("qmp", &run_dir.qmp())?,
        "--monitor".into(),
        "chardev=qmp".into(),
        "--blockdev".into(),
        file.to_string(),
        "--blockdev".into(),
        qcow2.to_string(),
    ];
    if let Some(object) = credentials {
        args.extend(["--object".into(), object]);
    }
    args.extend(["--nbd-server".into(), server]);
    Ok(args)
}

/// Says why a daemon ended before it was up.
pub(super) fn failed(exit: Exit, run_dir: &RunDir, image: &Path) -> StorageError {
    let words = run_dir.last_words();
    let image = image.to_owned();
    if words.contains("lock") && words.contains("Failed to get") {
        StorageError::Busy { image }
    } else if words.contains("image-file") && words.contains("No such file") {
        StorageError::Lost { image }
    } else if words.contains("Address already in use") {
        StorageError::AddressInUse
    } else {
        StorageError::Ended { exit, words }
    }
}
