//! Processes as the kernel shows them: who they are, what memory they hold.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::command::{command, output};

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Memory {
    /// What is in RAM.
    pub rss_kib: u64,
    /// The same, each shared page divided among its users.
    pub pss_kib: u64,
    /// What no other process shares and no file holds.
    pub anonymous_kib: u64,
}

/// Memory of a process; none when it is gone.
pub fn memory(pid: u32) -> Option<Memory> {
    Some(rollup(
        &fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?,
    ))
}

fn rollup(text: &str) -> Memory {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or(0, kib)
    };
    Memory {
        rss_kib: field("Rss:"),
        pss_kib: field("Pss:"),
        anonymous_kib: field("Anonymous:"),
    }
}

fn kib(rest: &str) -> u64 {
    rest.trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap_or(0)
}

/// Its command line.
pub fn words(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The processes of a network namespace whose program has this name.
pub fn in_namespace(namespace: &str, program: &str) -> Result<Vec<u32>> {
    let text = output(&mut command("ip", ["netns", "pids", namespace]))
        .with_context(|| format!("the processes of {namespace}"))?;
    let runs = |pid: &u32| {
        words(*pid)
            .first()
            .is_some_and(|word| word.rsplit('/').next() == Some(program))
    };
    let mut pids: Vec<u32> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(runs)
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// What QEMU holds in KiB: its guest's memory, and beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Qemu {
    /// The guest's memory that is in RAM.
    pub guest_rss_kib: u64,
    /// Everything else that is in RAM.
    pub overhead_rss_kib: u64,
    /// Everything else, each shared page divided among its users.
    pub overhead_pss_kib: u64,
}

/// Takes QEMU's mappings apart: the one as large as its guest's memory is the guest's.
pub fn qemu(pid: u32, guest_mib: u64) -> Option<Qemu> {
    Some(split(
        &fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?,
        guest_mib * 1024,
    ))
}

fn split(smaps: &str, guest_kib: u64) -> Qemu {
    let mut all = Qemu::default();
    let mut is_guest = false;
    for line in smaps.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        match name {
            // A mapping may be cut in pieces; none of QEMU's own is half as large.
            "Size" => is_guest = kib(rest) >= guest_kib / 2,
            "Rss" if is_guest => all.guest_rss_kib += kib(rest),
            "Rss" => all.overhead_rss_kib += kib(rest),
            "Pss" if !is_guest => all.overhead_pss_kib += kib(rest),
            _ => {}
        }
    }
    all
}

/// The value after this option of a command line.
pub fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).map(String::as_str)
}

/// Resident memory by process name, out of many `/proc/PID/status` in one text.
pub fn statuses(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Name:") {
            name = rest.trim();
        } else if let Some(rest) = line.strip_prefix("VmRSS:") {
            *found.entry(name.to_owned()).or_default() += kib(rest);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read_by_its_names() {
        let text = "00400000-7fff r--p 00000000 00:00 0 [rollup]\nRss:   2000 kB\nPss:   1500 kB\nPss_Anon:   9 kB\nAnonymous:   700 kB\n";
        assert_eq!(
            rollup(text),
            Memory {
                rss_kib: 2000,
                pss_kib: 1500,
                anonymous_kib: 700
            }
        );
    }

    #[test]
    fn the_guests_memory_is_told_from_qemus_own() {
        let text = "7f00-7f40 rw-p 00000000 00:00 0 \nSize:  393216 kB\nRss:  200000 kB\nPss:  200000 kB\n\
                    5500-5600 r-xp 00000000 fe:01 5 /usr/bin/qemu\nSize:  7000 kB\nRss:  5000 kB\nPss:  1000 kB\n\
                    7e00-7e40 rwxp 00000000 00:00 0 \nSize:  65536 kB\nRss:  30000 kB\nPss:  30000 kB\n";
        assert_eq!(
            split(text, 393_216),
            Qemu {
                guest_rss_kib: 200_000,
                overhead_rss_kib: 35_000,
                overhead_pss_kib: 31_000
            }
        );
    }

    #[test]
    fn statuses_are_summed_by_name() {
        let text = "Name:\tnginx\nVmRSS:\t 100 kB\nName:\tnginx\nVmRSS:\t 50 kB\nName:\tkthread\nName:\tundine-guest\nVmRSS:\t 7 kB\n";
        let found = statuses(text);
        assert_eq!((found["nginx"], found["undine-guest"]), (150, 7));
        assert!(!found.contains_key("kthread"));
    }

    #[test]
    fn an_options_value_is_the_word_after_it() {
        let words = ["qemu", "-m", "384"].map(str::to_owned);
        assert_eq!(option(&words, "-m"), Some("384"));
        assert_eq!(option(&words, "-smp"), None);
    }
}
