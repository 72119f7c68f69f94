//! A tiny guest for tests, built once from Debian's cloud kernel and busybox and kept in `target`.

#![allow(clippy::unwrap_used, reason = "test support")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use undine_qemu::command::Boot;

/// In the order in which they must be loaded.
const MODULES: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_console",
    "virtio_net",
    "virtio_blk",
];

/// What the guest boots from; `None`, with the reason printed, where there is no kernel to be had.
pub fn boot() -> Option<Boot> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("qemu-guest");
    match build(&folder) {
        Ok(()) => Some(Boot {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.cpio"),
            root_image: folder.join("root.img"),
            cmdline: "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check \
                      mitigations=off random.trust_cpu=on"
                .into(),
        }),
        Err(reason) => {
            println!("skipped: no guest kernel: {reason}");
            None
        }
    }
}

fn build(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    // Tests run side by side; the first one builds.
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let recipe = include_str!("init");
    if fs::read_to_string(folder.join("built-from")).is_ok_and(|built| built == recipe) {
        return Ok(());
    }
    let tree = folder.join("packages");
    download(folder, &tree)?;
    assemble(folder, &tree, recipe)
        .and_then(|()| fs::remove_dir_all(&tree))
        .and_then(|()| fs::write(folder.join("built-from"), recipe))
        .map_err(|error| format!("the packages could not be used: {error}"))
}

fn download(folder: &Path, tree: &Path) -> Result<(), String> {
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let kernel = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.ok_or("apt knows no cloud kernel")?.to_owned();
    let mut get = Command::new("apt-get");
    run(get
        .args(["download", "-qq", "busybox-static", &kernel])
        .current_dir(folder))?;
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(tree))?;
            fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn assemble(folder: &Path, tree: &Path, init: &str) -> std::io::Result<()> {
    let files = walk(tree)?;
    let named = |name: &str| {
        let found = files.iter().find(|path| path.ends_with(name));
        found.ok_or_else(|| std::io::Error::other(format!("{name} is missing")))
    };
    let starts = |path: &&PathBuf| path.to_string_lossy().contains("/boot/vmlinuz-");
    let kernel = files
        .iter()
        .find(starts)
        .ok_or(std::io::ErrorKind::NotFound)?;
    fs::copy(kernel, folder.join("vmlinuz"))?;
    fs::write(folder.join("root.img"), vec![0; 1 << 20])?;
    let mut archive = Archive(Vec::new());
    for name in ["proc", "sys", "dev", "bin", "modules"] {
        archive.entry(name, 0o040_755, &[]);
    }
    archive.entry("init", 0o100_755, init.as_bytes());
    archive.entry("bin/busybox", 0o100_755, &fs::read(named("bin/busybox")?)?);
    for module in MODULES {
        let file = format!("{module}.ko");
        archive.entry(
            &format!("modules/{file}"),
            0o100_644,
            &fs::read(named(&file)?)?,
        );
    }
    let order = MODULES.map(|module| format!("{module}.ko\n")).concat();
    archive.entry("modules/order", 0o100_644, order.as_bytes());
    archive.entry("TRAILER!!!", 0, &[]);
    File::create(folder.join("initrd.cpio"))?.write_all(&archive.0)
}

fn walk(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(walk(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// A cpio archive in the form that kernels unpack; several behind one another are one.
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let number = u32::try_from(self.0.len()).unwrap() + 1;
        let size = u32::try_from(content.len()).unwrap();
        let name_size = u32::try_from(name.len()).unwrap() + 1;
        let links = 1;
        self.0.extend(b"070701");
        for field in [number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.0.extend(format!("{field:08X}").bytes());
        }
        self.0.extend(name.bytes().chain([0]));
        self.pad();
        self.0.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The host's end of the guest's port.
pub struct Agent(BufReader<UnixStream>);

impl Agent {
    pub async fn connect(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).await.unwrap()))
    }

    pub async fn hear(&mut self) -> String {
        let mut line = String::new();
        timeout(Duration::from_secs(60), self.0.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        line.trim().to_owned()
    }

    pub async fn say(&mut self, line: &str) {
        self.0
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    pub async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.hear().await
    }

    /// Asks again until the answer holds `wanted`: a hot-plugged device takes a moment to show.
    pub async fn ask_until(&mut self, line: &str, wanted: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.ask(line).await;
            if answer.contains(wanted) {
                return;
            }
            assert!(Instant::now() < until, "{line}: {answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}
