//! Stopping the server: services first, then the data disk, then the power.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::fail::{Doing, Outcome};
use crate::files;
use crate::journal::Applied;
use crate::paths::{Paths, is_mounted};
use crate::units;

/// Stops all services and closes the data disk; what fails is no reason to keep the power on.
pub fn power_off(paths: &Paths, applied: Option<&Applied>) -> Outcome<()> {
    let services = applied.iter().flat_map(|applied| &applied.profile.services);
    let mut names: Vec<&str> = services.map(|service| service.unit.as_str()).collect();
    // All sites' processes are below this one.
    names.push("undine-site.slice");
    let _ = units::stop(&names);
    if is_mounted(&paths.data) {
        files::sync_all_of(&paths.data).doing("write the data disk")?;
        close(&paths.data);
    }
    std::thread::spawn(|| {
        // The answer needs a moment to leave.
        std::thread::sleep(std::time::Duration::from_millis(150));
        let _ = reboot(RebootCommand::PowerOff);
    });
    Ok(())
}

/// Unmounted, or at least read-only: either way the disk is clean.
fn close(data: &Path) {
    if unmount(data, UnmountFlags::empty()).is_err() {
        let _ = mount_remount(data, MountFlags::RDONLY, c"");
        let _ = unmount(data, UnmountFlags::DETACH);
    }
}
