//! Control groups of fresh machines, whichever version this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What is handed down in a version 2 tree. Without its controllers the tree is a version 1
/// machine's, and needs none.
const CONTROLLERS: &str = "+cpu +memory +pids";

/// Makes a machine's own group in the tree that is mounted here.
pub fn make(kind: &str, point: &Path, lab: &Path, machine: &str) -> Result<PathBuf> {
    let group = point.join(lab).join(machine);
    fs::create_dir_all(&group)?;
    if kind == "cgroup2" {
        for above in [point.to_path_buf(), point.join(lab)] {
            let _ = fs::write(above.join("cgroup.subtree_control"), CONTROLLERS);
        }
    }
    Ok(group)
}

/// Kind and mount point of everything at and below `/sys/fs/cgroup`.
pub fn mounts() -> Result<Vec<(String, PathBuf)>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        let kind = right.split(' ').next()?;
        point
            .starts_with("/sys/fs/cgroup")
            .then(|| (kind.to_owned(), PathBuf::from(point)))
    });
    Ok(mounts.collect())
}

/// Removes a lab's control groups; their processes have just been killed.
pub fn remove(lab: &str) {
    for (kind, point) in mounts().unwrap_or_default() {
        let group = point.join(lab);
        if kind == "tmpfs" || !group.exists() {
            continue;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while remove_group(&group).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
