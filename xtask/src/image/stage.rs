//! The one door to programs that write a new root as root: they run in a mount namespace of their
//! own with a `/dev` of their own, so that no package script can reach this machine's devices.
//!
//! `unshare` starts this program again inside the new namespace; it fills `/dev` and becomes the
//! program that was asked for.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The hidden first argument by which this program knows that it is inside.
pub const INSIDE: &str = "--with-private-dev";

const NODES: &[(&str, &str, &str)] = &[
    ("null", "1", "3"),
    ("zero", "1", "5"),
    ("full", "1", "7"),
    ("random", "1", "8"),
    ("urandom", "1", "9"),
    ("tty", "5", "0"),
];
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A command that will run `program` inside; further arguments are the program's.
pub fn command(this_program: &Path, program: &str) -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(this_program);
    command.args(["image", INSIDE, &namespace()?, program]);
    Ok(command)
}

/// Inside: fills `/dev` and becomes the program. Returns only when that fails.
pub fn enter(arguments: &[String]) -> Result<()> {
    let [outside, program, arguments @ ..] = arguments else {
        bail!("{INSIDE} needs the namespace outside and a program");
    };
    // Called by hand outside a namespace this would bury the machine's own /dev.
    ensure!(
        *outside != namespace()?,
        "{INSIDE} is for the image builder alone"
    );
    mount("tmpfs", "mode=0755,nosuid,size=1m", "/dev")?;
    for (name, major, minor) in NODES {
        let node = format!("/dev/{name}");
        tool("mknod", &["-m", "666", &node, "c", major, minor])?;
    }
    for (name, target) in LINKS {
        symlink(target, Path::new("/dev").join(name))?;
    }
    for folder in ["/dev/shm", "/dev/pts"] {
        std::fs::create_dir(folder)?;
    }
    mount("tmpfs", "mode=1777,nosuid,nodev", "/dev/shm")?;
    mount("devpts", "newinstance,ptmxmode=0666", "/dev/pts")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{program} cannot be started"))
}

fn mount(kind: &str, options: &str, target: &str) -> Result<()> {
    tool(
        "mount",
        &["-t", kind, "-o", options, "undine-image", target],
    )
}

fn tool(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    ensure!(
        status.success(),
        "{program} could not prepare the build's own /dev"
    );
    Ok(())
}

/// The name of the mount namespace that this program is in.
fn namespace() -> Result<String> {
    let name = std::fs::read_link("/proc/self/ns/mnt").context("/proc is not mounted")?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_namespace_nothing_is_mounted() {
        let error = enter(&[namespace().unwrap(), "true".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("image builder alone"), "{error}");
        assert!(enter(&[]).is_err());
    }
}
