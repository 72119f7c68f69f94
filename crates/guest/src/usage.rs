//! What each site uses, from its control group and its project quota.

use std::fs;
use std::path::Path;

use undine_api::guest::SiteUsage;
use undine_manifest::SiteSpec;
use undine_model::Bytes;

use crate::journal::Applied;
use crate::{sys, units};

/// Every site's use.
pub fn all(applied: Option<&Applied>, device: Option<&Path>) -> Vec<SiteUsage> {
    let sites = applied.iter().flat_map(|applied| applied.sites.values());
    sites.map(|site| one(site, device)).collect()
}

fn one(site: &SiteSpec, device: Option<&Path>) -> SiteUsage {
    let cgroup = units::site_cgroup(site.uid);
    let number = |file: &str| -> u64 {
        let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let quota = device
        .and_then(|device| sys::quota(device, site.uid).ok())
        .unwrap_or_default();
    SiteUsage {
        site: site.id,
        cpu_us: cpu(&fs::read_to_string(cgroup.join("cpu.stat")).unwrap_or_default()),
        memory: Bytes(number("memory.current")),
        disk: Bytes(quota.bytes),
        inodes: quota.inodes,
        processes: u32::try_from(number("pids.current")).unwrap_or(u32::MAX),
    }
}

fn cpu(stat: &str) -> u64 {
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_time_is_read_from_the_control_group() {
        assert_eq!(super::cpu("usage_usec 1234\nuser_usec 1\n"), 1234);
        assert_eq!(super::cpu(""), 0);
    }
}
