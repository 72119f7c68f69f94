//! hbal as a process: its own run on a file, and its score of a state that we made.

use std::path::Path;
use std::process::{Command, Stdio};

/// What one run of hbal printed and cost.
pub(crate) struct HbalRun {
    /// Score before and after.
    pub first: f64,
    pub last: f64,
    pub moves: usize,
    pub cpu_seconds: f64,
}

/// CPU seconds of this process and of its children that ended.
pub(crate) fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name, which may itself hold spaces.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |k: usize| {
        fields
            .get(k)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (
        (ticks(11) + ticks(12)) / 100.0,
        (ticks(13) + ticks(14)) / 100.0,
    )
}

/// The most memory that this process ever had, MiB.
pub(crate) fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Runs hbal for at most `most` moves; `None` when there is no hbal or it fails.
pub(crate) fn run(hbal: &str, data: &Path, load: &Path, most: Option<usize>) -> Option<HbalRun> {
    let mut command = Command::new("nice");
    command
        .args(["-n", "15", hbal, "-v", "-t"])
        .arg(data)
        .arg("-U")
        .arg(load);
    if let Some(most) = most {
        command.args(["-l", &most.to_string()]);
    }
    let before = cpu_seconds().1;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let cpu_seconds = cpu_seconds().1 - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first: f64 = text
        .lines()
        .find_map(|l| l.strip_prefix("Initial score: "))?
        .trim()
        .parse()
        .ok()?;
    let steps: Vec<f64> = text.lines().filter_map(step_score).collect();
    Some(HbalRun {
        first,
        last: steps.last().copied().unwrap_or(first),
        moves: steps.len(),
        cpu_seconds,
    })
}

/// The score in a line such as `  12. vm3 node1 => node2 1.23456789 a=fa:node2`.
fn step_score(line: &str) -> Option<f64> {
    let (number, rest) = line.trim_start().split_once(". ")?;
    number.parse::<usize>().ok()?;
    let before_action = rest.split(" a=").next()?;
    before_action.split_whitespace().next_back()?.parse().ok()
}
