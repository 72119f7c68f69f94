//! Runs the building machine's programs: what is missing is said before work begins, output goes
//! to the build log, and a failure ends in one sentence.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program that the building machine needs, and the Debian package that brings it.
pub struct Tool {
    /// The program's name or, with a slash, a file's path.
    pub program: &'static str,
    /// Its package.
    pub package: &'static str,
    /// What it does here.
    pub why: &'static str,
}

/// Everything an image build calls.
pub const TOOLS: &[Tool] = &[
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
        why: "installs packages into a new root",
    },
    Tool {
        program: "mksquashfs",
        package: "squashfs-tools",
        why: "packs the read-only root",
    },
    Tool {
        program: "unshare",
        package: "util-linux",
        why: "keeps the build off this machine",
    },
    Tool {
        program: "mount",
        package: "mount",
        why: "gives the build its own /dev",
    },
    Tool {
        program: "mknod",
        package: "coreutils",
        why: "fills the build's own /dev",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
        why: "unpacks the kernel",
    },
    Tool {
        program: "apt-get",
        package: "apt",
        why: "finds and fetches packages",
    },
    Tool {
        program: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
        why: "proves that packages are Debian's",
    },
];

const NEEDED_BYTES: u64 = 3 << 30;

/// Everything that can be known to go wrong before anything is written.
pub fn check_machine(out: &Path) -> Result<()> {
    ensure!(
        rootly()?,
        "an image is built as root: its files belong to root and to system users"
    );
    let search = std::env::var_os("PATH").unwrap_or_default();
    for tool in TOOLS {
        let found = if tool.program.contains('/') {
            Path::new(tool.program).exists()
        } else {
            std::env::split_paths(&search).any(|folder| folder.join(tool.program).is_file())
        };
        ensure!(
            found,
            "{} is missing ({}): apt-get install {}",
            tool.program,
            tool.why,
            tool.package
        );
    }
    check_null_device()?;
    let free = free_bytes(out)?;
    ensure!(
        free >= NEEDED_BYTES,
        "{} has {} MiB free and an image build needs {} MiB",
        out.display(),
        free >> 20,
        NEEDED_BYTES >> 20
    );
    Ok(())
}

/// A build that was careless about device nodes leaves its mark on `/dev/null`.
pub fn check_null_device() -> Result<()> {
    let meta = std::fs::metadata("/dev/null").context("/dev/null is missing on this machine")?;
    let mode = meta.permissions().mode() & 0o777;
    ensure!(
        meta.file_type().is_char_device() && mode == 0o666,
        "this machine's /dev/null is damaged (mode {mode:03o}); repair it with \
         `rm -f /dev/null; mknod -m 666 /dev/null c 1 3`"
    );
    Ok(())
}

fn rootly() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")
        .context("/proc is not mounted")?
        .uid()
        == 0)
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let output = Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(folder)
        .output()
        .context("df cannot be started")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .with_context(|| format!("the free space of {} is unknown", folder.display()))
}

/// Runs a program to its end; every line goes to the log, and to `watch`.
pub fn run(
    name: &str,
    command: &mut Command,
    log: &Path,
    watch: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut log_file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("the log {} cannot be written", log.display()))?;
    writeln!(log_file, "$ {command:?}")?;
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    // The command holds the pipe's writing ends; without them the reader sees the end.
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut telling = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("the program's output cannot be read")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(log_file, "{line}")?;
        if is_progress(&line) {
            telling.clear();
        } else if is_telling(&line) {
            telling.push(line.trim().to_owned());
        }
        watch(&line);
    }
    let status = child.wait().with_context(|| format!("{name} was lost"))?;
    if !status.success() {
        bail!("{}", explain(name, &telling, log));
    }
    Ok(())
}

/// mmdebstrap's steps; what went wrong stands after the last of them.
fn is_progress(line: &str) -> bool {
    line.starts_with("I: ") && !line.contains("received signal")
}

/// Whether a line is likely to hold the reason of a failure.
fn is_telling(line: &str) -> bool {
    line.starts_with("E: ")
        || line.starts_with("Err:")
        || [
            "error",
            "Error",
            "No space left",
            "Could not",
            "FATAL",
            "annot ",
            "failed",
            "No such file",
        ]
        .iter()
        .any(|mark| line.contains(mark))
}

/// What a mirror that does not answer makes apt say.
const UNREACHABLE: &[&str] = &[
    "Could not connect",
    "Could not resolve",
    "Temporary failure",
    "Unable to connect",
    "timed out",
    "Failed to fetch",
];

/// One clear sentence out of a program's telling lines.
fn explain(name: &str, telling: &[String], log: &Path) -> String {
    let log = log.display();
    let with = |mark: &str| telling.iter().find(|line| line.contains(mark));
    if with("No space left").is_some() {
        return format!("the disk is full ({name} stopped; log: {log})");
    }
    if let Some(line) = UNREACHABLE.iter().find_map(|mark| with(mark)) {
        return format!("the package mirror is out of reach: {line} (log: {log})");
    }
    match telling.first() {
        Some(line) => format!("{name} failed: {line} (log: {log})"),
        None => format!("{name} failed without a reason (log: {log})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_explained_by_its_own_words() {
        let folder = std::env::temp_dir().join(format!("xtask-tools-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        let mut lines = Vec::new();
        let mut command = Command::new("ls");
        command.arg("/nonexistent-of-this-test").env("LC_ALL", "C");
        let error = run("ls", &mut command, &log, &mut |line| {
            lines.push(line.to_owned());
        })
        .unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        assert_eq!(lines.len(), 1);
        assert!(
            std::fs::read_to_string(&log)
                .unwrap()
                .contains("nonexistent")
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_full_disk_and_a_silent_mirror_are_told_apart() {
        let log = Path::new("build.log");
        let of = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            explain("apt-get", &lines, log)
        };
        let full = of(&["E: a step failed", "write: No space left on device"]);
        assert!(full.contains("the disk is full"), "{full}");
        let silent = of(&["Err:1 http://m bookworm", "E: Could not connect to m:80"]);
        assert!(
            silent.starts_with("the package mirror is out of reach: E: Could not"),
            "{silent}"
        );
        assert!(of(&["E: no such package"]).contains("no such package"));
        assert!(of(&[]).contains("without a reason"));
    }
}
