//! What a site's processes may use, as properties of its slice.
//!
//! The first time they are written as a drop-in, which systemd reads when it meets the slice: no
//! reload, so one more site costs the same however many there are. Later changes are told to
//! systemd at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use undine_manifest::Caps;

use crate::fail::Outcome;
use crate::files;
use crate::units;

/// The slice of a site.
pub fn slice(uid: u32) -> String {
    format!("undine-site-{uid}.slice")
}

fn drop_in(units: &Path, uid: u32) -> PathBuf {
    units.join(format!("{}.d", slice(uid))).join("caps.conf")
}

/// The properties; `device` is the disk whose use is limited.
fn properties(caps: &Caps, device: &Path) -> Vec<String> {
    let device = device.display();
    // One percent of one CPU is a tenth of a thousandth.
    let percent = (caps.cpu.0 / 10).max(1);
    let high = caps.memory.0 / 10 * 9;
    vec![
        format!("CPUQuota={percent}%"),
        format!("MemoryHigh={high}"),
        format!("MemoryMax={}", caps.memory.0),
        "MemorySwapMax=0".to_owned(),
        format!("TasksMax={}", caps.processes.max(4)),
        format!(
            "IOReadBandwidthMax={device} {}",
            caps.io_bytes_per_s.0.max(65_536)
        ),
        format!(
            "IOWriteBandwidthMax={device} {}",
            caps.io_bytes_per_s.0.max(65_536)
        ),
        format!("IOReadIOPSMax={device} {}", caps.iops.max(10)),
        format!("IOWriteIOPSMax={device} {}", caps.iops.max(10)),
    ]
}

/// Makes these caps hold, for processes that run and those to come.
pub fn ensure(unit_folder: &Path, uid: u32, caps: &Caps, device: &Path) -> Outcome<()> {
    use crate::fail::Doing;
    let file = drop_in(unit_folder, uid);
    let properties = properties(caps, device);
    let text = format!("[Slice]\n{}\n", properties.join("\n"));
    let known = file.exists();
    let changed = files::replace_if_changed(&file, &text, 0o644).doing("write a site's caps")?;
    if known && changed {
        units::set_properties(&slice(uid), &properties)?;
    }
    Ok(())
}

/// Removes a site's caps.
pub fn remove(unit_folder: &Path, uid: u32) -> io::Result<()> {
    match fs::remove_dir_all(unit_folder.join(format!("{}.d", slice(uid)))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undine_model::{Bytes, MilliCpu};

    #[test]
    fn caps_become_properties_of_the_slice() {
        let caps = Caps {
            cpu: MilliCpu(500),
            memory: Bytes::mib(100),
            processes: 30,
            io_bytes_per_s: Bytes::mib(10),
            iops: 200,
            disk: Bytes::gib(1),
            inodes: 1000,
        };
        let text = properties(&caps, Path::new("/dev/vdb")).join("\n");
        assert!(text.contains("CPUQuota=50%\n"));
        assert!(text.contains("MemoryMax=104857600\n"));
        assert!(text.contains("TasksMax=30\n"));
        assert!(text.contains("IOWriteIOPSMax=/dev/vdb 200"));
    }
}
