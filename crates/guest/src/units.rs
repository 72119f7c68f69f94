//! systemd's units, by its own control program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use undine_api::guest::FailureKind;

use crate::command;
use crate::fail::{Outcome, failure};

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

/// Lets a unit read its files again, and waits until nobody serves by the old ones.
pub fn reload_and_wait(unit: &str) -> Outcome<()> {
    let workers = workers_of(unit);
    systemctl(&["reload-or-restart"], &[unit])?;
    // nginx answers the signal before its new workers are there.
    let deadline = Instant::now() + Duration::from_secs(10);
    while workers.iter().any(|worker| is_worker(worker)) {
        if Instant::now() > deadline {
            return Err(failure(
                FailureKind::Internal,
                format!("{unit} goes on with its old files; see its log"),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn workers_of(unit: &str) -> Vec<String> {
    let processes = fs::read_to_string(service_cgroup(unit).join("cgroup.procs"));
    let processes = processes.unwrap_or_default();
    processes
        .lines()
        .filter(|process| is_worker(process))
        .map(str::to_owned)
        .collect()
}

/// Does this process serve visitors of nginx, and will it go on to?
fn is_worker(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|title| {
        title.starts_with("nginx: worker process") && !title.contains("shutting down")
    })
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

fn service_cgroup(unit: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/system.slice").join(unit)
}

/// Is a service of the whole server up?
pub fn service_runs(unit: &str) -> bool {
    fs::read_to_string(service_cgroup(unit).join("cgroup.procs"))
        .is_ok_and(|processes| !processes.is_empty())
}
