//! Whether this host can run guests on its processor: found out by running one.
//!
//! That `/dev/kvm` opens proves nothing: there are hosts where it opens and guests hang, or QEMU
//! aborts. So the probe boots the real kernel without a root file system and counts only the
//! kernel's own complaint about that as success.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

pub use crate::command::Accel;

/// The longest that a probe takes; a guest on a real processor needs one or two seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// A kernel that comes up talks all the time; one that says nothing for so long hangs.
const SILENCE_DEADLINE: Duration = Duration::from_secs(4);
/// `earlyprintk` makes it talk from its first moments on.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 earlyprintk=ttyS0 reboot=t panic=-1";
/// What a kernel says when it came all the way up and found no root file system.
const CAME_UP: &str = "Unable to mount root fs";
/// A kernel says a few hundred lines; more is not kept.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;

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
        Ok(Ok(Guest::Ended(output))) if output.contains(CAME_UP) => {
            let reason = "a guest started under KVM".into();
            Probe {
                accel: Accel::Kvm,
                reason,
            }
        }
        Ok(Ok(Guest::Ended(output))) => tcg(format!(
            "a guest under KVM ended early: {}",
            last_line(&output)
        )),
        Ok(Err(error)) => tcg(format!("a guest under KVM could not be started: {error}")),
        Ok(Ok(Guest::Silent)) | Err(_) => tcg("a guest under KVM hung".into()),
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

/// How the guest's try went.
enum Guest {
    /// QEMU ended; console and its own words.
    Ended(String),
    /// Nothing came from it for [`SILENCE_DEADLINE`].
    Silent,
}

/// Boots the kernel until QEMU ends or falls silent.
async fn run_guest(qemu: &Path, kernel: &Path, machine: &str, cpu: &str) -> std::io::Result<Guest> {
    let mut child = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", machine, "-accel", "kvm", "-cpu", cpu])
        .args(["-m", "128", "-no-reboot", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", KERNEL_ARGUMENTS])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let missing = || std::io::Error::other("its output cannot be read");
    let console = child.stdout.take().ok_or_else(missing)?;
    let mut words = child.stderr.take().ok_or_else(missing)?;
    let Some(mut output) = listen(console).await? else {
        return Ok(Guest::Silent);
    };
    words.read_to_end(&mut output).await?;
    child.wait().await?;
    Ok(Guest::Ended(String::from_utf8_lossy(&output).into_owned()))
}

/// Collects what a console says until its end; `None` when it falls silent before.
async fn listen(mut console: impl AsyncRead + Unpin) -> std::io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let Ok(read) = timeout(SILENCE_DEADLINE, console.read(&mut piece)).await else {
            return Ok(None);
        };
        match read? {
            0 => return Ok(Some(output)),
            length if output.len() < OUTPUT_LIMIT_BYTES => output.extend(&piece[..length]),
            _ => {}
        }
    }
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
        probe_device(
            device,
            &qemu,
            &qemu,
            "pc-q35-10.0",
            "qemu64",
            PROBE_DEADLINE,
        )
        .await
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
    async fn a_guest_that_hangs_means_emulation_before_the_deadline() {
        let started = std::time::Instant::now();
        let probe = probed("SeaBIOS", 30).await;
        assert!(started.elapsed() < PROBE_DEADLINE);
        assert_eq!(probe.accel, Accel::Tcg);
        assert_eq!(probe.reason, "a guest under KVM hung");
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
