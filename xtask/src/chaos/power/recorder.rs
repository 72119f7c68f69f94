//! What agents of a trial start instead of the storage daemon: it notes what the image is now,
//! begins a log, puts `blklogwrites` between the image's format and its file, and becomes the real
//! daemon.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::log::copy_sparse;
use super::{DAEMON, LOGS, NO_FLUSH, Recording};

/// When this program goes by the storage daemon's name: becomes it, and does not return but when
/// that fails.
pub fn run_if_called_so() -> Option<ExitCode> {
    let own = std::env::current_exe().ok()?;
    if own.file_name()? != DAEMON {
        return None;
    }
    let error = match become_daemon(&own) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("{DAEMON}: {error:#}");
    Some(ExitCode::FAILURE)
}

fn become_daemon(own: &Path) -> Result<std::convert::Infallible> {
    let folder = own.parent().context("no folder")?;
    let (logs, flushes) = (folder.join(LOGS), !folder.join(NO_FLUSH).exists());
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let image = words.iter().find_map(|word| image_file(word.to_str()?));
    if let Some(image) = image {
        let recording = Recording::of(Path::new(&image), &logs);
        begin(&recording).with_context(|| format!("no log for {image}"))?;
        for word in &mut words {
            if let Some(told) = word.to_str().and_then(|it| logged(it, &recording, flushes)) {
                *word = told.into();
            }
        }
    }
    let error = Command::new(Path::new("/usr/bin").join(DAEMON))
        .args(words)
        .exec();
    Err(error).context("the real daemon could not be started")
}

/// The image of a block node that is a file.
fn image_file(word: &str) -> Option<String> {
    let node: Value = serde_json::from_str(word).ok()?;
    let name = node["filename"].as_str()?;
    (node["driver"] == "file").then(|| name.to_owned())
}

/// The same node, if it is the image's format, with a log between it and its file.
fn logged(word: &str, recording: &Recording, flushes: bool) -> Option<String> {
    let mut node: Value = serde_json::from_str(word).ok()?;
    let file = node["file"].as_str()?.to_owned();
    node["file"] = json!({
        "driver": "blklogwrites", "discard": "unmap", "file": file,
        "log": {"driver": "file", "filename": recording.log},
    });
    if !flushes {
        node["cache"]["no-flush"] = true.into();
    }
    Some(node.to_string())
}

/// What an earlier daemon logged is over: its image's state is the new beginning.
fn begin(recording: &Recording) -> Result<()> {
    for path in [&recording.base, &recording.log] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    copy_sparse(
        &mut File::open(&recording.image)?,
        &mut File::create(&recording.base)?,
    )?;
    File::create(&recording.log).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_images_format_gets_a_log() {
        let recording = Recording::of(Path::new("/a/image.qcow2"), Path::new("/logs"));
        let file = r#"{"driver":"file","node-name":"image-file","filename":"/a/image.qcow2"}"#;
        assert_eq!(image_file(file).as_deref(), Some("/a/image.qcow2"));
        assert_eq!(logged(file, &recording, true), None);
        let format = r#"{"driver":"qcow2","node-name":"image","file":"image-file"}"#;
        let node = |flushes| -> Value {
            serde_json::from_str(&logged(format, &recording, flushes).unwrap()).unwrap()
        };
        assert_eq!(node(false)["cache"]["no-flush"], true);
        let told = node(true);
        assert!(told["cache"].is_null());
        assert_eq!(told["file"]["driver"], "blklogwrites");
        assert_eq!(told["file"]["file"], "image-file");
        assert_eq!(told["node-name"], "image");
        assert_eq!(image_file("--blockdev"), None);
    }
}
