//! What this machine has and lacks: system, rights, packages, room on disk.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{ask, command, output, run};

/// A Debian package and why it is wanted.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What it brings.
    pub why: &'static str,
    /// A file that is there once it is installed.
    pub proof: &'static str,
}

const fn package(name: &'static str, why: &'static str, proof: &'static str) -> Package {
    Package { name, why, proof }
}

/// What `up` needs.
pub const FOR_UP: &[Package] = &[
    package(
        "qemu-system-x86",
        "runs the servers",
        "/usr/bin/qemu-system-x86_64",
    ),
    package(
        "qemu-utils",
        "makes and exports their disks",
        "/usr/bin/qemu-storage-daemon",
    ),
    package(
        "cmake",
        "builds the edge's compression library",
        "/usr/bin/cmake",
    ),
    package(
        "mmdebstrap",
        "builds the server image from Debian packages",
        "/usr/bin/mmdebstrap",
    ),
    package(
        "squashfs-tools",
        "packs the server image",
        "/usr/bin/mksquashfs",
    ),
    package("iproute2", "makes the nodes' networks", "/usr/sbin/ip"),
    package(
        "nftables",
        "filters and translates the servers' traffic",
        "/usr/sbin/nft",
    ),
    package(
        "unbound",
        "answers the servers' name look-ups",
        "/usr/sbin/unbound",
    ),
    package(
        "e2fsprogs",
        "checks the servers' file systems",
        "/usr/sbin/mke2fs",
    ),
    package(
        "util-linux",
        "starts programs as other users",
        "/usr/bin/setpriv",
    ),
    package(
        "busybox-static",
        "is the first RAM disk's tool box",
        "/usr/bin/busybox",
    ),
    package("zstd", "compresses", "/usr/bin/zstd"),
    package(
        "debian-archive-keyring",
        "proves that packages are Debian's",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
];

/// What `up --store postgres` needs beside.
pub const FOR_POSTGRES: &[Package] = &[package(
    "postgresql",
    "keeps control's records",
    "/usr/share/postgresql-common/pg_wrapper",
)];

/// What `test` needs beside.
pub const FOR_TEST: &[Package] = &[
    package(
        "postgresql",
        "the store's tests run on it",
        "/usr/share/postgresql-common/pg_wrapper",
    ),
    package(
        "chromium",
        "the browser tests drive it",
        "/usr/bin/chromium",
    ),
    package(
        "chromium-driver",
        "drives the browser",
        "/usr/bin/chromedriver",
    ),
    package(
        "npm",
        "fetches what looks at every page of the panel for barriers",
        "/usr/bin/npm",
    ),
    package(
        "curl",
        "a visitor on a fresh machine asks with it",
        "/usr/bin/curl",
    ),
];

/// What `bench panel` needs.
pub const FOR_PANEL: &[Package] = &[package("wrk", "asks for pages", "/usr/bin/wrk")];

/// What the placement library's bench needs.
pub const FOR_PLACEMENT: &[Package] = &[package(
    "ganeti-htools",
    "the placement library is judged beside it",
    "/usr/bin/hbal",
)];

/// The oldest QEMU whose behaviour the disk protocol was seen to rely on.
const QEMU_MAJOR: u32 = 10;

/// Says what is missing and, unless told not to, installs it.
pub fn provide(wanted: &[&[Package]], install: bool) -> Result<()> {
    let release = debian_release()?;
    let missing: Vec<&Package> = wanted
        .iter()
        .flat_map(|list| list.iter())
        .filter(|package| !Path::new(package.proof).exists() || is_too_old(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("  missing {:24} {}", package.name, package.why);
    }
    let mut names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    names.dedup();
    if !install {
        bail!(
            "install these packages, or run without --no-install: {}",
            names.join(" ")
        );
    }
    require_root("to install packages")?;
    install_packages(release, &names)
}

fn is_too_old(package: &Package) -> bool {
    let program = match package.name {
        "qemu-system-x86" => "qemu-system-x86_64",
        "qemu-utils" => "qemu-img",
        _ => return false,
    };
    let version = ask(program, &["--version"]).unwrap_or_default();
    let major = version
        .split_whitespace()
        .filter_map(|word| word.split('.').next()?.parse::<u32>().ok())
        .next();
    major.is_none_or(|major| major < QEMU_MAJOR)
}

/// Debian's release number; other systems are refused in one sentence.
fn debian_release() -> Result<u32> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("")
            .trim_matches('"')
    };
    let release = field("VERSION_ID=").parse().unwrap_or(0);
    ensure!(
        field("ID=") == "debian" && (12..=13).contains(&release),
        "this machine runs {}; Undine's nodes run Debian 12 or 13",
        match field("PRETTY_NAME=") {
            "" => "an unknown system",
            name => name,
        }
    );
    Ok(release)
}

fn install_packages(release: u32, names: &[&str]) -> Result<()> {
    println!("  apt-get install {}", names.join(" "));
    let (newer, plain): (Vec<&str>, Vec<&str>) = names
        .iter()
        .partition(|name| release == 12 && name.starts_with("qemu-"));
    if !newer.is_empty() {
        add_backports()?;
    }
    apt(&["update"])?;
    for (names, suite) in [(newer, Some("bookworm-backports")), (plain, None)] {
        if names.is_empty() {
            continue;
        }
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(suite.iter().flat_map(|suite| ["-t", suite]));
        arguments.extend(names);
        apt(&arguments)?;
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = command("apt-get", arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut command)
        .map(drop)
        .context("Debian's packages could not be had; is the package mirror within reach?")
}

/// QEMU 10 comes from this suite of the same mirror on Debian 12.
fn add_backports() -> Result<()> {
    if ask("apt-cache", &["policy"])?.contains("bookworm-backports") {
        return Ok(());
    }
    let path = "/etc/apt/sources.list.d/undine-backports.sources";
    let text = format!(
        "Types: deb\nURIs: {}\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        debian_mirror()
    );
    std::fs::write(path, text).with_context(|| format!("{path} could not be written"))
}

/// The mirror that this machine uses already.
fn debian_mirror() -> String {
    let policy = ask("apt-cache", &["policy"]).unwrap_or_default();
    policy
        .split_whitespace()
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .unwrap_or("http://deb.debian.org/debian")
        .to_owned()
}

/// Refuses anybody but root, saying what for.
pub fn require_root(what_for: &str) -> Result<()> {
    let id = ask("id", &["-u"])?;
    ensure!(
        id.trim() == "0",
        "root is needed {what_for}: run the command with sudo"
    );
    Ok(())
}

/// Refuses when there is less room than this where the path is (or will be).
pub fn require_room(path: &Path, gib: u64) -> Result<()> {
    let there = path
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let text = output(&mut command(
        "df",
        ["--output=avail", "-B1", &there.to_string_lossy()],
    ))?;
    let free: u64 = text
        .lines()
        .nth(1)
        .unwrap_or("")
        .trim()
        .parse()
        .unwrap_or(0);
    ensure!(
        free >= gib << 30,
        "{} has {:.1} GiB of room, {gib} GiB are needed: free some or choose another disk",
        there.display(),
        free as f64 / f64::from(1 << 30)
    );
    Ok(())
}

/// Memory of the machine in MiB.
pub fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .unwrap_or("0 kB");
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse::<u64>()
        .unwrap_or(0)
        / 1024
}

/// Runs cargo with its progress on the terminal.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    // The cargo that runs us, where one does: it knows its toolchain.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run(&mut command(&cargo, arguments))
}
