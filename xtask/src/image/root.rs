//! Builds the expensive half of an image, kept by the hash of its inputs: the squashfs root, the
//! kernel, and what the initramfs takes from Debian's packages.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::apt::{Apt, Package};
use super::definition::Definition;
use super::modules::Modules;
use super::{stage, tools, trim, vmlinux};

/// Package scripts that ask for the time are given this one.
const BUILD_TIME: &str = "1700000000";
/// The only variables of this machine that the build may see.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "no_proxy"];

/// What stands beside a finished root, in `root.json`: its presence means that all is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    /// The kernel's release, as in `uname -r`.
    pub kernel_release: String,
    /// File names below `modules/`, in load order.
    pub module_order: Vec<String>,
    /// Every package of the root and its version.
    pub packages: Vec<Package>,
}

/// Everything one root is built from.
pub struct Job<'a> {
    /// The recipe.
    pub definition: &'a Definition,
    /// The recipe's folder.
    pub folder: &'a Path,
    /// `sources.list` lines.
    pub sources: Vec<String>,
    /// The package lists.
    pub apt: &'a Apt,
    /// This program, to be started inside the build's namespace.
    pub program: &'a Path,
    /// Where output goes.
    pub log: &'a Path,
}

impl Job<'_> {
    /// Builds into an empty folder.
    pub fn build(&self, out: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let tree = out.join("tree");
        progress("installing packages into a new root (about two minutes)");
        self.install(&tree, progress)?;
        progress("taking the kernel out of its package");
        let (kernel_release, modules) = self.kernel(out)?;
        let module_order = keep_modules(&modules, &self.definition.kernel.initrd_modules, out)?;
        progress("trimming the root and laying the overlay over it");
        let packages = installed_packages(&tree)?;
        let time = newest_package(&tree)?;
        self.root_modules(&tree, &modules, &out.join("kernel"), &kernel_release)?;
        trim::apply(&tree, self.definition, self.folder)?;
        progress("packing the root");
        self.pack(&tree, &out.join("root.squashfs"), time)?;
        for folder in ["tree", "kernel", "busybox-package"] {
            std::fs::remove_dir_all(out.join(folder))?;
        }
        let finished = Finished {
            kernel_release,
            module_order,
            packages,
        };
        std::fs::write(out.join("root.json"), serde_json::to_vec_pretty(&finished)?)?;
        Ok(())
    }

    fn install(&self, tree: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let mut command = stage::command(self.program, "mmdebstrap")?;
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs(
                PROXIES
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("LC_ALL", "C")
            .env("SOURCE_DATE_EPOCH", BUILD_TIME)
            .env("TMPDIR", tree.parent().context("a root without a folder")?)
            .args(["--mode=root", "--variant=minbase", "--format=directory"])
            .arg(format!("--architectures={}", self.definition.architecture))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg("--aptopt=Acquire::Retries \"2\"")
            .arg("--aptopt=Acquire::http::Timeout \"20\"")
            .arg("--dpkgopt=force-unsafe-io")
            .arg(format!("--include={}", self.definition.packages.join(",")));
        let trim = &self.definition.trim;
        command.args(
            trim.exclude
                .iter()
                .map(|pattern| format!("--dpkgopt=path-exclude={pattern}")),
        );
        command.args(
            trim.include
                .iter()
                .map(|pattern| format!("--dpkgopt=path-include={pattern}")),
        );
        let hook = self.folder.join("hooks/essential");
        if hook.exists() {
            let hook = hook.canonicalize()?;
            command.arg(format!("--essential-hook={}", hook.display()));
        }
        command
            .arg(&self.definition.release)
            .arg(tree)
            .args(&self.sources);
        tools::run("mmdebstrap", &mut command, self.log, &mut |line| {
            if let Some(step) = line.strip_prefix("I: ") {
                progress(&format!("  {step}"));
            }
        })
    }

    /// Unpacks kernel and busybox; returns the kernel's release and its modules.
    fn kernel(&self, out: &Path) -> Result<(String, Modules)> {
        let kernel = &self.definition.kernel;
        let found = self.apt.resolve(&[&kernel.package, &kernel.busybox])?;
        let image = found
            .iter()
            .find(|(name, _)| *name != kernel.package && name.starts_with("linux-image-"))
            .or_else(|| found.iter().find(|(name, _)| *name == kernel.package))
            .with_context(|| format!("{} brings no kernel", kernel.package))?;
        let unpacked = out.join("kernel");
        self.apt.unpack(image, &unpacked)?;
        let busybox = found.iter().find(|(name, _)| *name == kernel.busybox);
        let busybox = busybox.with_context(|| format!("no package {}", kernel.busybox))?;
        self.apt.unpack(busybox, &out.join("busybox-package"))?;
        let program = ["bin/busybox", "usr/bin/busybox"]
            .map(|path| out.join("busybox-package").join(path))
            .into_iter()
            .find(|path| path.exists())
            .context("the busybox package holds no busybox")?;
        std::fs::copy(program, out.join("busybox"))?;
        let image = only_file(&unpacked.join("boot"), "vmlinuz-")?;
        let release = file_name(&image).trim_start_matches("vmlinuz-").to_owned();
        std::fs::write(
            out.join("vmlinux"),
            vmlinux::extract(&std::fs::read(&image)?)?,
        )?;
        let modules = Modules::find(&unpacked.join("lib/modules").join(&release))?;
        Ok((release, modules))
    }

    /// Puts the chosen modules into the root, with the index that modprobe reads.
    fn root_modules(
        &self,
        tree: &Path,
        all: &Modules,
        unpacked: &Path,
        release: &str,
    ) -> Result<()> {
        let kernel = &self.definition.kernel;
        let wanted: Vec<String> = kernel
            .initrd_modules
            .iter()
            .chain(&kernel.root_modules)
            .cloned()
            .collect();
        let from = unpacked.join("lib/modules").join(release);
        let to = tree.join("usr/lib/modules").join(release);
        let indexes = [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ];
        let files = all.in_load_order(&wanted)?;
        for source in files.into_iter().chain(indexes.map(|name| from.join(name))) {
            let target = to.join(source.strip_prefix(&from)?);
            std::fs::create_dir_all(target.parent().context("a module without a folder")?)?;
            std::fs::copy(&source, &target).context("a module cannot be copied")?;
        }
        let mut depmod = stage::command(self.program, "chroot")?;
        depmod.arg(tree).args(["/usr/sbin/depmod", "-a", release]);
        tools::run("depmod", &mut depmod, self.log, &mut |_| {})
    }

    fn pack(&self, tree: &Path, file: &Path, time: i64) -> Result<()> {
        let mut command = Command::new("mksquashfs");
        command
            // Newer times are set back to this one, so that build times leave no trace.
            .env("SOURCE_DATE_EPOCH", time.to_string())
            .arg(tree)
            .arg(file)
            // LZ4: a first start of PHP costs a third less CPU than with zstd, for 40 MB more on disk.
            .args(["-comp", "lz4", "-Xhc", "-noappend"])
            .args(["-no-xattrs", "-no-progress", "-quiet"]);
        tools::run("mksquashfs", &mut command, self.log, &mut |_| {})
    }
}

fn keep_modules(all: &Modules, wanted: &[String], out: &Path) -> Result<Vec<String>> {
    let folder = out.join("modules");
    std::fs::create_dir(&folder)?;
    let mut order = Vec::new();
    for file in all.in_load_order(wanted)? {
        let name = file_name(&file);
        std::fs::copy(&file, folder.join(&name)).context("a module cannot be copied")?;
        order.push(name);
    }
    Ok(order)
}

/// The time of the newest package: control files keep the time at which Debian built them. A fixed
/// time for all would let a web server take an updated file for the old one.
fn newest_package(tree: &Path) -> Result<i64> {
    let mut newest = 0;
    for entry in std::fs::read_dir(tree.join("var/lib/dpkg/info")).context("no package database")? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "md5sums") {
            newest = newest.max(path.metadata()?.mtime());
        }
    }
    ensure!(newest > 0, "the new root holds no packages");
    Ok(newest)
}

fn installed_packages(tree: &Path) -> Result<Vec<Package>> {
    let status = std::fs::read_to_string(tree.join("var/lib/dpkg/status"))
        .context("the new root has no package database")?;
    let packages = read_status(&status);
    ensure!(!packages.is_empty(), "the new root holds no packages");
    Ok(packages.into_iter().collect())
}

fn read_status(status: &str) -> BTreeMap<String, String> {
    let field = |block: &str, key: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::to_owned)
    };
    status
        .split("\n\n")
        .filter(|block| block.contains("\nStatus: install ok installed"))
        .filter_map(|block| Some((field(block, "Package: ")?, field(block, "Version: ")?)))
        .collect()
}

fn only_file(folder: &Path, start: &str) -> Result<PathBuf> {
    std::fs::read_dir(folder)
        .with_context(|| format!("{} is missing", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| file_name(path).starts_with(start))
        .with_context(|| format!("no {start}* in {}", folder.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_fully_installed_count() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
                      Package: b\nStatus: deinstall ok config-files\nVersion: 2\n";
        let found: Vec<_> = read_status(status).into_iter().collect();
        assert_eq!(found, [("a".to_owned(), "1".to_owned())]);
    }
}
