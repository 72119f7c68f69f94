//! Stops sites' workers that nobody uses; their sockets start them again.
//!
//! A worker is idle when only its master process is left: PHP-FPM ends its children ten seconds
//! after their last request, and this looks more often than that.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{logs, units};

const LOOK: Duration = Duration::from_secs(5);
/// How long a worker may idle, and how long when memory is short.
const IDLE: Duration = Duration::from_secs(300);
const IDLE_WHEN_SHORT: Duration = Duration::from_secs(20);
/// How often logs are looked at.
const LOGS: Duration = Duration::from_secs(60);

/// Looks after workers and logs for as long as the agent runs.
pub fn watch(sites: &Path) {
    let mut busy = BTreeMap::new();
    let mut logs_at = Instant::now();
    loop {
        std::thread::sleep(LOOK);
        let slices = Path::new("/sys/fs/cgroup/undine.slice/undine-site.slice");
        let idle = look(slices, &mut busy, Instant::now(), limit());
        let names: Vec<&str> = idle.iter().map(String::as_str).collect();
        if !names.is_empty() {
            // Requests in progress are answered first, later ones wait in the socket.
            let _ = units::stop(&names);
        }
        if logs_at.elapsed() > LOGS {
            logs_at = Instant::now();
            logs::bound(sites);
        }
    }
}

fn limit() -> Duration {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |key: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    match (number("MemAvailable:"), number("MemTotal:")) {
        (Some(free), Some(all)) if free * 100 < all * 12 => IDLE_WHEN_SHORT,
        _ => IDLE,
    }
}

/// Notes which workers are busy now and returns those that have been idle for the limit.
fn look(
    slices: &Path,
    busy: &mut BTreeMap<String, Instant>,
    now: Instant,
    limit: Duration,
) -> Vec<String> {
    let mut seen = BTreeMap::new();
    for slice in fs::read_dir(slices).into_iter().flatten().flatten() {
        for unit in fs::read_dir(slice.path()).into_iter().flatten().flatten() {
            let name = unit.file_name().to_string_lossy().into_owned();
            // Only template instances are socket-activated workers; installers are not.
            if !name.ends_with(".service") || !name.contains('@') {
                continue;
            }
            let processes = fs::read_to_string(unit.path().join("cgroup.procs"));
            let count = processes.map_or(0, |text| text.lines().count());
            let last = if count > 1 {
                now
            } else {
                busy.get(&name).copied().unwrap_or(now)
            };
            if count > 0 {
                seen.insert(name, last);
            }
        }
    }
    *busy = seen;
    busy.iter()
        .filter(|(_, last)| now.duration_since(**last) >= limit)
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_without_children_for_long_enough_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir
            .path()
            .join("undine-site-20001.slice/undine-php@20001.service");
        fs::create_dir_all(&unit).unwrap();
        let mut busy = BTreeMap::new();
        let start = Instant::now();
        let limit = Duration::from_secs(60);
        let mut after = |seconds, processes: &str| {
            fs::write(unit.join("cgroup.procs"), processes).unwrap();
            look(
                dir.path(),
                &mut busy,
                start + Duration::from_secs(seconds),
                limit,
            )
        };
        assert!(after(0, "10\n").is_empty());
        assert!(after(50, "10\n11\n").is_empty());
        assert!(after(100, "10\n").is_empty());
        assert_eq!(after(110, "10\n"), ["undine-php@20001.service"]);
    }
}
