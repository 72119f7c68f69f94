//! systemd's units, by its own control program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use undine_api::guest::FailureKind;

use crate::command;
use crate::fail::{Outcome, failure};
use crate::files;

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

/// Starts many units in one job of systemd, by a target that wants them all: after a restart of a
/// server one call does for hundreds of sites what would be a call and some messages for each.
/// Returns those that are not up; what cannot be done this way counts as not up.
pub fn start_many(units: &[&str]) -> Vec<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "undine-start-{}-{}.target",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let file = Path::new("/run/systemd/system").join(&name);
    // A name that systemd has never met is read without a reload.
    let started = files::replace(&file, target_of(units).as_bytes(), 0o644)
        .map_err(drop)
        .and_then(|()| systemctl(&["start"], &[&name]).map_err(drop));
    let listed = started.and_then(|()| command::run(SYSTEMCTL, &UP).map_err(drop));
    let _ = stop(&[&name]);
    let _ = files::remove(&file);
    not_among(units, &listed.unwrap_or_default())
}

/// Lists what is up, one unit a line.
const UP: [&str; 5] = [
    "list-units",
    "--state=active,activating",
    "--plain",
    "--no-legend",
    "--no-pager",
];

fn target_of(units: &[&str]) -> String {
    let mut text =
        "[Unit]\nDescription=Sites that start together\nDefaultDependencies=no\n".to_owned();
    // Long lines have an end in systemd.
    for part in units.chunks(20) {
        let names = part.join(" ");
        text += &format!("Wants={names}\nAfter={names}\n");
    }
    text
}

fn not_among(units: &[&str], listed: &str) -> Vec<String> {
    let up: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let down = units.iter().filter(|unit| !up.contains(**unit));
    down.map(ToString::to_string).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_wants_every_unit_and_waits_for_it() {
        let names: Vec<String> = (0..45)
            .map(|uid| format!("undine-php@{uid}.socket"))
            .collect();
        let units: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = target_of(&units);
        for unit in units {
            let lines = text
                .lines()
                .filter(|line| line.split([' ', '=']).any(|word| word == unit));
            assert_eq!(lines.count(), 2, "{unit}");
        }
        assert!(text.lines().all(|line| line.len() < 1_000));
    }

    #[test]
    fn what_is_not_listed_as_up_is_started_apart() {
        let listed = "undine-php@1.socket loaded active running PHP of site 1\nother.service x\n";
        let units = ["undine-php@1.socket", "undine-php@2.socket"];
        assert_eq!(not_among(&units, listed), ["undine-php@2.socket"]);
        assert_eq!(not_among(&units, "").len(), 2);
    }
}
