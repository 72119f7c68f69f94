//! The data disk: found by its serial number, checked, formatted once, mounted.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use undine_api::guest::{AttachData, DATA_DISK, FailureKind};

use crate::command;
use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::identity::rescan;
use crate::paths::{Paths, is_mounted};

/// How long the disk may take to appear after it was plugged in.
const DISK_WAIT: Duration = Duration::from_secs(20);

/// Finds, checks and mounts the data disk; returns its device. Safe to repeat.
pub fn attach(paths: &Paths, ask: &AttachData) -> Outcome<PathBuf> {
    let device = wait_for_disk(DISK_WAIT)?;
    if !is_mounted(&paths.data) {
        prepare(&device, ask)?;
        fs::create_dir_all(&paths.data).doing("make the mount point")?;
        mount_data(&device, &paths.data)?;
    }
    check_format(paths, ask.data_format)?;
    skeleton(paths)?;
    Ok(device)
}

/// The device that is mounted, for an agent that was restarted.
pub fn device() -> Option<PathBuf> {
    find_disk(Path::new("/sys/block"))
}

fn wait_for_disk(limit: Duration) -> Outcome<PathBuf> {
    let deadline = Instant::now() + limit;
    let mut rescan_at = Instant::now() + limit / 4;
    loop {
        if let Some(device) = device().filter(|device| device.exists()) {
            return Ok(device);
        }
        if Instant::now() > rescan_at {
            rescan_at += limit;
            rescan();
        }
        if Instant::now() > deadline {
            return Err(failure(
                FailureKind::NotReady,
                format!("no disk with the serial number {DATA_DISK} appeared"),
            ));
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}

fn find_disk(block: &Path) -> Option<PathBuf> {
    fs::read_dir(block).ok()?.flatten().find_map(|entry| {
        let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
        (serial.trim() == DATA_DISK).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

fn prepare(device: &Path, ask: &AttachData) -> Outcome<()> {
    let name = device.to_string_lossy();
    let head = head(device)?;
    if head.iter().all(|byte| *byte == 0) {
        if !ask.create_if_blank {
            return Err(failure(
                FailureKind::Invalid,
                "the data disk is blank, but this server has written to it before: the wrong disk was attached",
            ));
        }
        // Tables and journal are zeroed later, in the background: a new server starts at once.
        let options = "quotatype=prjquota,lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let args = [
            "-q",
            "-F",
            "-O",
            "quota,project",
            "-E",
            options,
            "-m",
            "1",
            "-L",
            "undine-data",
            &name,
        ];
        return command::run("/usr/sbin/mkfs.ext4", &args).map(drop);
    }
    if unclean(&head) {
        // Exit codes 1 and 2 mean repaired; only what -p dares not repair alone is a failure.
        let result = command::run("/usr/sbin/e2fsck", &["-p", &name]);
        return match result {
            Err(failed) if !failed.message.contains("exit status: 1:") => Err(failed),
            _ => Ok(()),
        };
    }
    Ok(())
}

/// The first 4 KiB; a blank disk is all zero here, and ext4's superblock lies inside.
fn head(device: &Path) -> Outcome<[u8; 4096]> {
    let mut head = [0; 4096];
    File::open(device)
        .and_then(|mut file| file.read_exact(&mut head))
        .doing("read the data disk")?;
    Ok(head)
}

/// Does ext4's superblock record errors? A journal that only needs replay is no error: mounting
/// replays it, and a full check would cost a crashed server seconds.
fn unclean(head: &[u8; 4096]) -> bool {
    const STATE: usize = 1024 + 0x3a;
    const ERRORS: u16 = 2;
    u16::from_le_bytes([head[STATE], head[STATE + 1]]) & ERRORS != 0
}

fn mount_data(device: &Path, target: &Path) -> Outcome<()> {
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    mount(device, target, "ext4", flags, Some(c"prjquota")).doing("mount the data disk")
}

fn check_format(paths: &Paths, ours: u32) -> Outcome<()> {
    let file = paths.own().join("format");
    let Ok(text) = fs::read_to_string(&file) else {
        fs::create_dir_all(paths.own()).doing("make the agent's folder")?;
        return files::replace_durably(&file, format!("{ours}\n").as_bytes(), 0o644)
            .doing("write the data format");
    };
    let found: u32 = text.trim().parse().doing("read the data format")?;
    if found > ours {
        return Err(failure(
            FailureKind::Newer,
            format!(
                "the data disk has format {found}, and this image reads up to {ours}: start the server from a newer image"
            ),
        ));
    }
    if found < ours {
        return files::replace_durably(&file, format!("{ours}\n").as_bytes(), 0o644)
            .doing("write the data format");
    }
    Ok(())
}

/// The folders that are on every data disk.
pub fn skeleton(paths: &Paths) -> Outcome<()> {
    for (folder, mode) in [
        (paths.own(), 0o700),
        (paths.trash(), 0o700),
        (paths.sites(), 0o755),
        (paths.by_host(), 0o755),
    ] {
        files::folder(&folder, 0, 0, mode).doing(format_args!("make {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &Path) -> Paths {
        Paths {
            root: dir.join("root"),
            data: dir.join("srv"),
            run: dir.join("run"),
        }
    }

    #[test]
    fn a_disk_from_a_newer_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        fs::create_dir_all(paths.own()).unwrap();
        check_format(&paths, 1).unwrap();
        check_format(&paths, 2).unwrap();
        let refused = check_format(&paths, 1).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Newer);
        assert!(refused.message.contains("format 2"));
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number_alone() {
        let dir = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", "undine-root"), ("vdb", "undine-data\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("serial"), serial).unwrap();
        }
        assert_eq!(find_disk(dir.path()), Some(PathBuf::from("/dev/vdb")));
    }
}
