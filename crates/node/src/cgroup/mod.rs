//! Control groups: one a server and one a storage daemon, below the node's own.
//!
//! Debian mounts version 2; machines with the version 1 controllers (also beside a controllerless
//! version 2 tree, which still has pressure figures) work alike. The files differ, the meaning
//! does not: `v1` and `v2` name them, this module writes and reads them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use undine_model::{Bytes, MilliCpu};

use crate::usage::pressure;

/// Where the kernel's control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// One tree with all controllers.
    V2(PathBuf),
    /// A tree a controller; perhaps a version 2 tree for pressure figures.
    V1 {
        /// Controller name and mount point.
        controllers: Vec<(&'static str, PathBuf)>,
        /// The version 2 tree.
        unified: Option<PathBuf>,
    },
}

/// What a group may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time at most.
    pub cpu: Option<MilliCpu>,
    /// CPU time that it gets when all want more than there is: its weight against the others.
    pub reserved: Option<MilliCpu>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub tasks: u32,
}

/// Control groups could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No control groups are mounted.
    #[error(
        "no control groups are mounted; mount cgroup2 at /sys/fs/cgroup (systemd does) or the version 1 controllers"
    )]
    NotMounted,
    /// A file of a group could not be written.
    #[error("cannot write {value} to {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// A group could not be made.
    #[error("cannot make the control group {path}")]
    Make {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

const V1_CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
const PERIOD_US: u64 = 100_000;

impl Mounts {
    /// Reads `/proc/self/mountinfo`. Version 2 counts when it carries the CPU controller.
    pub fn parse(mountinfo: &str, unified_controllers: &str) -> Option<Self> {
        let mut controllers = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => unified = Some(PathBuf::from(point)),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    for name in V1_CONTROLLERS {
                        if options.split(',').any(|option| option == name) {
                            controllers.push((name, PathBuf::from(point)));
                        }
                    }
                }
                _ => {}
            }
        }
        let has_cpu = unified_controllers.split_whitespace().any(|c| c == "cpu");
        match unified {
            Some(root) if has_cpu => Some(Self::V2(root)),
            unified if !controllers.is_empty() => Some(Self::V1 {
                controllers,
                unified,
            }),
            _ => None,
        }
    }

    /// Finds them on this machine.
    ///
    /// # Errors
    /// None are mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let unified = mountinfo.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right
                .starts_with("cgroup2 ")
                .then(|| left.split(' ').nth(4))?
        });
        let controllers = unified
            .and_then(|point| {
                std::fs::read_to_string(Path::new(point).join("cgroup.controllers")).ok()
            })
            .unwrap_or_default();
        Self::parse(&mountinfo, &controllers).ok_or(CgroupError::NotMounted)
    }

    fn trees(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::V2(root) => vec![("unified", root.as_path())],
            Self::V1 {
                controllers,
                unified,
            } => controllers
                .iter()
                .map(|(name, path)| (*name, path.as_path()))
                .chain(unified.as_deref().map(|path| ("unified", path)))
                .collect(),
        }
    }
}

/// One group, whether or not it exists yet.
#[derive(Debug, Clone)]
pub struct Cgroup {
    mounts: Mounts,
    path: String,
}

impl Cgroup {
    /// The group of this path, such as `undine/node-1/vm-…`.
    pub fn new(mounts: Mounts, path: impl Into<String>) -> Self {
        Self {
            mounts,
            path: path.into(),
        }
    }

    /// A group inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self::new(self.mounts.clone(), format!("{}/{name}", self.path))
    }

    /// A group beside this one, named after it.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self::new(self.mounts.clone(), format!("{}-{name}", self.path))
    }

    /// Makes it with these limits; again when it exists.
    ///
    /// # Errors
    /// A folder or file could not be written.
    pub fn make(&self, limits: Limits) -> Result<(), CgroupError> {
        for (_, root) in self.mounts.trees() {
            self.make_folders(root)?;
        }
        let period = PERIOD_US;
        let quota = limits.cpu.map(|cpu| u64::from(cpu.0) * period / 1000);
        match &self.mounts {
            Mounts::V2(root) => {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                self.write(root, "cpu.max", &format!("{quota} {period}"))?;
                let memory = limits
                    .memory
                    .map_or("max".to_owned(), |memory| memory.0.to_string());
                self.write(root, "memory.max", &memory)?;
                self.write(root, "pids.max", &limits.tasks.to_string())?;
            }
            Mounts::V1 { controllers, .. } => {
                for (name, root) in controllers {
                    match *name {
                        "cpu" => {
                            self.write(root, "cpu.cfs_period_us", &period.to_string())?;
                            let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
                            self.write(root, "cpu.cfs_quota_us", &quota)?;
                        }
                        "memory" => {
                            let most = limits
                                .memory
                                .map_or("-1".to_owned(), |memory| memory.0.to_string());
                            self.write(root, "memory.limit_in_bytes", &most)?;
                        }
                        "pids" => self.write(root, "pids.max", &limits.tasks.to_string())?,
                        _ => {}
                    }
                }
            }
        }
        limits
            .reserved
            .map_or(Ok(()), |reserved| self.weigh(reserved))
    }

    /// Sets its weight against the others.
    ///
    /// # Errors
    /// It is not there.
    pub fn weigh(&self, reserved: MilliCpu) -> Result<(), CgroupError> {
        match &self.mounts {
            Mounts::V2(root) => {
                // A whole core weighs 100, the kernel's default.
                let weight = (reserved.0 / 10).clamp(1, 10_000);
                self.write(root, "cpu.weight", &weight.to_string())
            }
            Mounts::V1 { controllers, .. } => {
                // A whole core weighs 1024, the kernel's default.
                let shares = (u64::from(reserved.0) * 1024 / 1000).max(2);
                let mut cpu = controllers.iter().filter(|(name, _)| *name == "cpu");
                cpu.try_for_each(|(_, root)| self.write(root, "cpu.shares", &shares.to_string()))
            }
        }
    }

    fn make_folders(&self, root: &Path) -> Result<(), CgroupError> {
        let mut folder = root.to_owned();
        for part in self.path.split('/').filter(|part| !part.is_empty()) {
            if matches!(self.mounts, Mounts::V2(_)) {
                // Children get a controller only when the parent hands it down.
                for controller in ["+cpu", "+memory", "+pids"] {
                    let _ = std::fs::write(folder.join("cgroup.subtree_control"), controller);
                }
            }
            folder.push(part);
            match std::fs::create_dir(&folder) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(CgroupError::Make {
                        path: folder,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, root: &Path, name: &str) -> PathBuf {
        root.join(self.path.trim_start_matches('/')).join(name)
    }

    fn write(&self, root: &Path, name: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.file(root, name);
        std::fs::write(&path, value).map_err(|source| CgroupError::Write {
            path,
            value: value.to_owned(),
            source,
        })
    }

    /// The files into which a process writes its id to join the group.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.mounts
            .trees()
            .into_iter()
            .map(|(_, root)| self.file(root, "cgroup.procs"))
            .collect()
    }

    /// Puts a running process into the group.
    ///
    /// # Errors
    /// The process is gone, or the group is.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.mounts
            .trees()
            .into_iter()
            .try_for_each(|(_, root)| self.write(root, "cgroup.procs", &pid.to_string()))
    }

    /// CPU time that its processes have used.
    pub fn cpu_time(&self) -> Option<Duration> {
        match &self.mounts {
            Mounts::V2(root) => {
                let text = std::fs::read_to_string(self.file(root, "cpu.stat")).ok()?;
                let micros = text
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "))?;
                Some(Duration::from_micros(micros.parse().ok()?))
            }
            Mounts::V1 { controllers, .. } => {
                let (_, root) = controllers.iter().find(|(name, _)| *name == "cpuacct")?;
                let text = std::fs::read_to_string(self.file(root, "cpuacct.usage")).ok()?;
                Some(Duration::from_nanos(text.trim().parse().ok()?))
            }
        }
    }

    /// Share of the last ten seconds in which something in it waited for CPU.
    pub fn cpu_pressure(&self) -> f64 {
        let unified = match &self.mounts {
            Mounts::V2(root) => Some(root),
            Mounts::V1 { unified, .. } => unified.as_ref(),
        };
        unified
            .and_then(|root| std::fs::read_to_string(self.file(root, "cpu.pressure")).ok())
            .map_or(0.0, |text| pressure::some_avg10(&text))
    }

    /// Removes it, once it is empty.
    pub fn remove(&self) {
        for (_, root) in self.mounts.trees() {
            let _ = std::fs::remove_dir(self.file(root, ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        32 24 0:28 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
        33 24 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 24 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        35 24 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn debian_s_single_tree_is_version_2() {
        let found = Mounts::parse(V2, "cpuset cpu io memory pids");
        assert_eq!(found, Some(Mounts::V2("/sys/fs/cgroup".into())));
    }

    #[test]
    fn a_version_2_tree_without_controllers_only_serves_pressure() {
        let Some(Mounts::V1 {
            controllers,
            unified,
        }) = Mounts::parse(HYBRID, "hugetlb")
        else {
            panic!("not found");
        };
        let names: Vec<_> = controllers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cpu", "cpuacct", "memory"]);
        assert_eq!(unified, Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_machine_without_control_groups_is_told_so() {
        assert_eq!(Mounts::parse("", ""), None);
        assert_eq!(
            Mounts::parse("36 24 0:1 / /proc rw - proc proc rw\n", ""),
            None
        );
    }

    #[test]
    fn a_weight_is_changed_alone_and_never_makes_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let group = Cgroup::new(Mounts::V2(dir.path().to_owned()), "undine/vm");
        assert!(group.weigh(MilliCpu(500)).is_err());
        assert!(!dir.path().join("undine").exists());
        let limits = Limits {
            cpu: None,
            reserved: Some(MilliCpu(4_000)),
            memory: None,
            tasks: 64,
        };
        group.make(limits).unwrap();
        let read =
            |name: &str| std::fs::read_to_string(dir.path().join("undine/vm").join(name)).unwrap();
        assert_eq!(read("cpu.weight"), "400");
        std::fs::write(dir.path().join("undine/vm/pids.max"), "7").unwrap();
        group.weigh(MilliCpu(500)).unwrap();
        assert_eq!(
            (read("cpu.weight"), read("pids.max")),
            ("50".into(), "7".into())
        );
    }

    #[test]
    fn limits_are_written_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let limits = Limits {
            cpu: Some(MilliCpu(1500)),
            reserved: Some(MilliCpu(500)),
            memory: Some(Bytes::mib(600)),
            tasks: 64,
        };
        Cgroup::new(Mounts::V2(root.clone()), "undine/n/vm")
            .make(limits)
            .unwrap();
        let read =
            |name: &str| std::fs::read_to_string(root.join("undine/n/vm").join(name)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), "629145600");
        assert_eq!(read("cpu.weight"), "50");

        let controllers = vec![("cpu", root.join("cpu")), ("memory", root.join("memory"))];
        for (_, path) in &controllers {
            std::fs::create_dir(path).unwrap();
        }
        let group = Cgroup::new(
            Mounts::V1 {
                controllers,
                unified: None,
            },
            "/undine",
        )
        .child("vm");
        group.make(limits).unwrap();
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(read("cpu/undine/vm/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("cpu/undine/vm/cpu.shares"), "512");
        assert_eq!(read("memory/undine/vm/memory.limit_in_bytes"), "629145600");
        assert_eq!(
            group.procs_files(),
            [
                root.join("cpu/undine/vm/cgroup.procs"),
                root.join("memory/undine/vm/cgroup.procs"),
            ]
        );
    }
}
