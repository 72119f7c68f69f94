//! systemd's units, by its own control program.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command;
use crate::fail::Outcome;

const SYSTEMCTL: &str = "/usr/bin/systemctl";

fn systemctl(verb: &[&str], units: &[&str]) -> Outcome<()> {
    // Many at once in one call, but never so many that the argument list is refused.
    for part in units.chunks(200) {
        let args: Vec<&str> = verb.iter().chain(part).copied().collect();
        command::run(SYSTEMCTL, &args)?;
    }
    Ok(())
}

/// Starts units and waits until they are up.
pub fn start(units: &[&str]) -> Outcome<()> {
    systemctl(&["start"], units)
}

/// Stops units and waits until they are down.
pub fn stop(units: &[&str]) -> Outcome<()> {
    systemctl(&["stop"], units)
}

/// Lets a unit read its files again, or starts it.
pub fn reload(unit: &str) -> Outcome<()> {
    systemctl(&["reload-or-restart"], &[unit])
}

/// Lets systemd read unit files again.
pub fn daemon_reload() -> Outcome<()> {
    command::run(SYSTEMCTL, &["daemon-reload"]).map(drop)
}

/// Sets properties of a unit at once.
pub fn set_properties(unit: &str, properties: &[String]) -> Outcome<()> {
    let mut args = vec![
        "set-property".to_owned(),
        "--runtime".to_owned(),
        unit.to_owned(),
    ];
    args.extend_from_slice(properties);
    command::run(SYSTEMCTL, &args).map(drop)
}

/// The control group of a site's slice.
pub fn site_cgroup(uid: u32) -> PathBuf {
    Path::new("/sys/fs/cgroup/undine.slice/undine-site.slice")
        .join(format!("undine-site-{uid}.slice"))
}

/// Does a unit of a site have processes? Looked up in the control groups, without asking systemd.
pub fn site_unit_runs(uid: u32, unit: &str) -> bool {
    fs::read_to_string(site_cgroup(uid).join(unit).join("cgroup.procs"))
        .is_ok_and(|processes| !processes.is_empty())
}

/// Is a service of the whole server up?
pub fn service_runs(unit: &str) -> bool {
    let cgroup = Path::new("/sys/fs/cgroup/system.slice").join(unit);
    fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
}
