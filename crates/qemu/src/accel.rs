//! Whether this host can run guests on its processor: found out by running one.
//!
//! That `/dev/kvm` opens proves nothing: there are hosts where it opens and guests hang, or QEMU
//! aborts. So the probe boots the real kernel without a root file system and counts only the
//! kernel's own complaint about that as success.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

pub use crate::command::Accel;

/// The longest that a probe takes; a guest on a real processor needs one or two seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// What a kernel says when it came all the way up and found no root file system.
const CAME_UP: &str = "Unable to mount root fs";
/// A kernel says a few hundred lines; more is not read.
const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;

/// How guests are to be run here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How.
    pub accel: Accel,
    /// Why, in words for an operator.
    pub reason: String,
}

/// Finds out by starting `kernel` under KVM with the processor model that servers get. Takes at
/// most [`PROBE_DEADLINE`]; whatever happens the answer is usable, and nothing is left running
/// once the future is dropped.
pub async fn probe(qemu: &Path, kernel: &Path, machine: &str, cpu: &str) -> Probe {
    probe_device(
        Path::new("/dev/kvm"),
        qemu,
        kernel,
        machine,
        cpu,
        PROBE_DEADLINE,
    )
    .await
}

async fn probe_device(
    device: &Path,
    qemu: &Path,
    kernel: &Path,
    machine: &str,
    cpu: &str,
    deadline: Duration,
) -> Probe {
    if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
        return tcg(format!("{} does not open: {error}", device.display()));
    }
    if !kernel.exists() {
        return tcg(format!(
            "there is no kernel at {} to try with",
            kernel.display()
        ));
    }
    match timeout(deadline, run_guest(qemu, kernel, machine, cpu)).await {
        Ok(Ok(output)) if output.contains(CAME_UP) => Probe {
            accel: Accel::Kvm,
            reason: "a guest started under KVM".into(),
        },
        Ok(Ok(output)) => tcg(format!(
            "a guest under KVM ended early: {}",
            last_line(&output)
        )),
        Ok(Err(error)) => tcg(format!("a guest under KVM could not be started: {error}")),
        Err(_) => tcg(format!(
            "a guest under KVM hung for {} s",
            deadline.as_secs_f32()
        )),
    }
}

fn tcg(reason: String) -> Probe {
    Probe {
        accel: Accel::Tcg,
        reason,
    }
}

fn last_line(output: &str) -> &str {
    output
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no word")
}

/// Boots the kernel until QEMU ends; console and QEMU's own words come back together.
async fn run_guest(
    qemu: &Path,
    kernel: &Path,
    machine: &str,
    cpu: &str,
) -> std::io::Result<String> {
    let mut child = Command::new(qemu)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-machine", machine, "-accel", "kvm", "-cpu", cpu, "-m", "128",
        ])
        .arg("-kernel")
        .arg(kernel)
        .args([
            "-append",
            "console=ttyS0 reboot=t panic=-1",
            "-serial",
            "stdio",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = Vec::new();
    let mut words = Vec::new();
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        let (mut out, mut err) = (out.take(OUTPUT_LIMIT_BYTES), err.take(OUTPUT_LIMIT_BYTES));
        tokio::try_join!(out.read_to_end(&mut output), err.read_to_end(&mut words))?;
    }
    child.wait().await?;
    output.extend(words);
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A program in QEMU's place that prints `says` and then runs `sleep` for some seconds.
    fn fake(dir: &Path, says: &str, sleep_s: u32) -> PathBuf {
        let path = dir.join("qemu");
        let script = format!("#!/bin/sh\necho '{says}'\nexec sleep {sleep_s}\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn probed(says: &str, sleep_s: u32) -> Probe {
        let dir = tempfile::tempdir().unwrap();
        let qemu = fake(dir.path(), says, sleep_s);
        let device = Path::new("/dev/null");
        let deadline = Duration::from_secs(if sleep_s == 0 { 10 } else { 1 });
        probe_device(device, &qemu, &qemu, "pc-q35-10.0", "qemu64", deadline).await
    }

    #[tokio::test]
    async fn a_kernel_that_comes_up_means_kvm() {
        let probe = probed(
            "Kernel panic: VFS: Unable to mount root fs on unknown-block",
            0,
        )
        .await;
        assert_eq!(probe.accel, Accel::Kvm);
    }

    #[tokio::test]
    async fn a_guest_that_hangs_means_emulation_within_the_deadline() {
        let probe = probed("SeaBIOS", 30).await;
        assert_eq!(probe.accel, Accel::Tcg);
        assert_eq!(probe.reason, "a guest under KVM hung for 1 s");
    }

    #[tokio::test]
    async fn a_qemu_that_aborts_means_emulation_with_its_last_words() {
        let probe = probed("failed to set MSR 0x10a", 0).await;
        assert_eq!(probe.accel, Accel::Tcg);
        assert_eq!(
            probe.reason,
            "a guest under KVM ended early: failed to set MSR 0x10a"
        );
    }

    #[tokio::test]
    async fn a_host_without_the_device_is_told_so() {
        let none = Path::new("/nonexistent/kvm");
        let probe = probe_device(none, none, none, "m", "c", PROBE_DEADLINE).await;
        assert_eq!(probe.accel, Accel::Tcg);
        assert!(probe.reason.starts_with("/nonexistent/kvm does not open"));
    }
}
