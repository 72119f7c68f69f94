//! What the machine is made of. Read again while the agent runs: a bigger machine is noticed.

use std::path::{Path, PathBuf};

use undine_api::node::Inventory;
use undine_model::{Bytes, MilliCpu};

use crate::settings::Declared;

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// QEMU's version.
    pub qemu: String,
}

/// Reads the inventory; declared amounts stand before measured ones.
pub fn read(declared: &Declared, state_dir: &Path, fixed: &Fixed) -> Inventory {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
        .max(1);
    let (size, used) = disk(state_dir);
    Inventory {
        cpu: declared
            .cpu
            .unwrap_or(MilliCpu(u32::try_from(cpus * 1000).unwrap_or(u32::MAX))),
        memory: declared
            .memory
            .unwrap_or(memory_field(&meminfo, "MemTotal:")),
        disk: declared.disk.unwrap_or(size),
        disk_used: used,
        cpu_model: cpu_model(&cpuinfo),
        accelerator: fixed.accelerator.clone(),
        accelerator_reason: fixed.accelerator_reason.clone(),
        qemu: fixed.qemu.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
    }
}

/// A field of `/proc/meminfo`.
pub fn memory_field(meminfo: &str, name: &str) -> Bytes {
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix(name)?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    Bytes(kib.unwrap_or(0) * 1024)
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Size of the file system that holds the state folder, and the bytes that the node's own files
/// take up there.
pub fn disk(state_dir: &Path) -> (Bytes, Bytes) {
    let size = rustix::fs::statvfs(state_dir).map_or(0, |stat| stat.f_blocks * stat.f_frsize);
    (Bytes(size), Bytes(used_below(state_dir.to_owned())))
}

/// Bytes that a folder's files really take up: disks are sparse.
fn used_below(folder: PathBuf) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut folders = vec![folder];
    let mut blocks = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => blocks += meta.blocks(),
                Err(_) => {}
            }
        }
    }
    blocks * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Fixed {
        Fixed {
            accelerator: "tcg".into(),
            accelerator_reason: "a test".into(),
            qemu: "10.0.2".into(),
        }
    }

    #[test]
    fn this_machine_has_cpus_memory_and_disk() {
        let found = read(&Declared::default(), Path::new("/tmp"), &fixed());
        assert!(found.cpu.0 >= 1000 && found.memory.0 > 0 && found.disk.0 > 0);
        assert!(!found.kernel.is_empty());
    }

    #[test]
    fn what_the_operator_declared_stands_before_what_was_measured() {
        let declared = Declared {
            cpu: Some(MilliCpu(4000)),
            memory: Some(Bytes::gib(8)),
            disk: Some(Bytes::gib(100)),
        };
        let found = read(&declared, Path::new("/tmp"), &fixed());
        assert_eq!(
            (found.cpu, found.memory, found.disk),
            (MilliCpu(4000), Bytes::gib(8), Bytes::gib(100))
        );
    }

    #[test]
    fn fields_of_meminfo_are_kibibytes() {
        assert_eq!(
            memory_field("MemTotal:  16 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Bytes(16384)
        );
        assert_eq!(memory_field("", "MemTotal:"), Bytes(0));
    }
}
