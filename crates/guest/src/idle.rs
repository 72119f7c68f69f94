//! Stops sites' workers that nobody uses; their sockets start them again.
//!
//! A worker is idle while its master's children are the same ones and none of them has run: a
//! child that waits for a request sleeps in one system call. The master itself wakes up every
//! second to look around, which says nothing.

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
    let mut seen = BTreeMap::new();
    let mut logs_at = Instant::now();
    loop {
        std::thread::sleep(LOOK);
        let slices = Path::new("/sys/fs/cgroup/undine.slice/undine-site.slice");
        let idle = look(slices, &mut seen, switches, Instant::now(), limit());
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

/// How often a process has been put on a CPU.
fn switches(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once("ctxt_switches:"))
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .sum()
}

/// A worker as it was last seen.
struct Seen {
    /// Its children, and how often each has run.
    children: BTreeMap<u32, u64>,
    /// When that was last different.
    busy: Instant,
}

/// Notes which workers have worked and returns those that have been idle for the limit.
fn look(
    slices: &Path,
    seen: &mut BTreeMap<String, Seen>,
    switches: impl Fn(u32) -> u64,
    now: Instant,
    limit: Duration,
) -> Vec<String> {
    let mut present = BTreeMap::new();
    for slice in fs::read_dir(slices).into_iter().flatten().flatten() {
        for unit in fs::read_dir(slice.path()).into_iter().flatten().flatten() {
            let name = unit.file_name().to_string_lossy().into_owned();
            // Only template instances are socket-activated workers; installers are not.
            if !name.ends_with(".service") || !name.contains('@') {
                continue;
            }
            let text = fs::read_to_string(unit.path().join("cgroup.procs")).unwrap_or_default();
            let mut pids: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
            pids.sort_unstable();
            // The first of them started the others.
            let Some((_, children)) = pids.split_first() else {
                continue;
            };
            let children = children.iter().map(|pid| (*pid, switches(*pid))).collect();
            let busy = match seen.get(&name) {
                Some(before) if before.children == children => before.busy,
                _ => now,
            };
            present.insert(name, Seen { children, busy });
        }
    }
    *seen = present;
    seen.iter()
        .filter(|(_, worker)| now.duration_since(worker.busy) >= limit)
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_whose_children_sleep_for_long_enough_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir
            .path()
            .join("undine-site-20001.slice/undine-php@20001.service");
        fs::create_dir_all(&unit).unwrap();
        let mut seen = BTreeMap::new();
        let start = Instant::now();
        let limit = Duration::from_secs(60);
        // The master (10) always runs; what the child (11) did is told each time.
        let mut after = |seconds, processes: &str, ran| {
            fs::write(unit.join("cgroup.procs"), processes).unwrap();
            let switches = |pid| if pid == 10 { seconds } else { ran };
            let now = start + Duration::from_secs(seconds);
            look(dir.path(), &mut seen, switches, now, limit)
        };
        assert!(after(0, "11\n10\n", 5).is_empty());
        assert!(after(50, "11\n10\n", 6).is_empty());
        assert!(after(100, "11\n10\n", 6).is_empty());
        assert_eq!(after(110, "11\n10\n", 6), ["undine-php@20001.service"]);
        assert!(after(120, "12\n10\n", 6).is_empty());
        assert!(after(130, "", 6).is_empty());
    }

    #[test]
    fn a_process_that_runs_is_seen_to_run() {
        let me = std::process::id();
        let before = switches(me);
        std::thread::sleep(Duration::from_millis(5));
        // The counts are the first thread's, which may be another test's: it never runs backwards.
        assert!(before > 0 && switches(me) >= before);
    }
}
