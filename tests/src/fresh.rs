//! Fresh machines on this one: each with its own network, processes, host name and control
//! groups, and with this machine's files under a layer of its own, so that a package is installed
//! into it by Debian's own tools and nothing of this machine changes.
//!
//! A machine's first process ends with its [`Machine`], also when the test is killed; every other
//! process in it, every mount and every interface ends with the first process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::groups;
use crate::lab::Lab;
use crate::unit::Unit;

const PATIENCE: Duration = Duration::from_secs(60);

/// A fresh machine.
pub struct Machine {
    name: String,
    lab: PathBuf,
    holder: Child,
    first: u32,
    services: Vec<(String, Child)>,
}

impl Machine {
    /// Starts one with no interface but loopback, and with these files beside this machine's.
    pub fn start(lab: &Lab, name: &str, files: &[(&str, &str)]) -> Result<Self> {
        let lab = lab.folder.clone();
        for part in ["upper", "work", "root", "notify"] {
            fs::create_dir_all(lab.join(name).join(part))?;
        }
        for (path, text) in files {
            let path = lab.join(name).join("upper").join(path);
            fs::create_dir_all(path.parent().context("a file's folder")?)?;
            fs::write(path, text)?;
        }
        let words = "--pdeathsig KILL unshare --net --mount --uts --pid --fork --kill-child \
                     -- sleep infinity";
        let holder = Command::new("setpriv")
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .spawn()?;
        let mut machine = Self {
            name: name.to_owned(),
            lab,
            first: 0,
            holder,
            services: Vec::new(),
        };
        machine.first = until(|| machine.find_first())?;
        machine.mount()?;
        machine.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(machine)
    }

    /// The first process, once it is itself: its mounts are private from then on.
    fn find_first(&self) -> Option<u32> {
        let pid = child_of(self.holder.id())?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "sleep").then_some(pid)
    }

    fn folder(&self) -> PathBuf {
        self.lab.join(&self.name)
    }

    fn mount(&self) -> Result<()> {
        let folder = self.folder();
        let root = folder.join("root").display().to_string();
        let layers = format!(
            "lowerdir=/,upperdir={0}/upper,workdir={0}/work",
            folder.display()
        );
        self.outside(&["mount", "-t", "overlay", "overlay", "-o", &layers, &root])?;
        let at = |path: &str| format!("{root}{path}");
        self.outside(&["mount", "-t", "proc", "proc", &at("/proc")])?;
        self.outside(&["mount", "--bind", "/sys", &at("/sys")])?;
        self.outside(&["mount", "--rbind", "/dev", &at("/dev")])?;
        for folder in ["/run", "/tmp"] {
            self.outside(&[
                "mount",
                "-t",
                "tmpfs",
                "-o",
                "mode=1777",
                "tmpfs",
                &at(folder),
            ])?;
        }
        let notify = folder.join("notify");
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o777))?;
        self.outside(&["mount", "--bind", &notify.to_string_lossy(), &at("/mnt")])?;
        // What lasts lies on a real file system: databases and disks do.
        for part in ["control", "node", "edge"] {
            let state = folder.join("state").join(part);
            fs::create_dir_all(&state)?;
            let path = at(&format!("/var/lib/undine-{part}"));
            self.outside(&["mkdir", "-p", &path])?;
            self.outside(&["mount", "--bind", &state.to_string_lossy(), &path])?;
        }
        self.mount_groups(&root)
    }

    /// The machine sees a control group of its own as the top of every tree.
    fn mount_groups(&self, root: &str) -> Result<()> {
        for (kind, point) in groups::mounts()? {
            let to = format!("{root}{}", point.display());
            if kind == "tmpfs" {
                self.outside(&["mount", "-t", "tmpfs", "tmpfs", &to])?;
                continue;
            }
            let lab = self.lab.file_name().context("a lab has a name")?;
            let group = groups::make(&kind, &point, Path::new(lab), &self.name)?;
            self.outside(&["mkdir", "-p", &to])?;
            self.outside(&["mount", "--bind", &group.to_string_lossy(), &to])?;
        }
        Ok(())
    }

    /// Shows one of this machine's folders in it.
    pub fn share(&self, folder: &Path, at: &str) -> Result<()> {
        let to = format!("{}{at}", self.folder().join("root").display());
        self.outside(&["mkdir", "-p", &to])?;
        self.outside(&["mount", "--bind", &folder.to_string_lossy(), &to])
            .map(drop)
    }

    /// A cable from a new interface to a port of a switch's bridge.
    pub fn plug(&self, interface: &str, switch: &Self, bridge: &str) -> Result<()> {
        let (here, there) = (self.first.to_string(), switch.first.to_string());
        let port = format!("{}-{interface}", self.name);
        let made = Command::new("ip")
            .args(["link", "add", interface, "netns", &here, "type", "veth"])
            .args(["peer", "name", &port, "netns", &there])
            .output()?;
        ensure!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        switch.run(&["ip", "link", "set", &port, "master", bridge, "up"])?;
        self.run(&["ip", "link", "set", interface, "up"])?;
        Ok(())
    }

    /// Gives an interface an address.
    pub fn address(&self, interface: &str, address: &str) -> Result<()> {
        let mut words = vec!["ip", "addr", "add", address, "dev", interface];
        if address.contains(':') {
            words.push("nodad");
        }
        self.run(&words).map(drop)
    }

    /// A command in it, with nothing of our environment.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let mut command = self.enter();
        command.arg("chroot").arg(self.folder().join("root"));
        command.args(words.iter().map(AsRef::as_ref));
        command
    }

    /// Runs to its end and answers what it printed.
    pub fn run<S: AsRef<str>>(&self, words: &[S]) -> Result<String> {
        output(&mut self.command(words)).with_context(|| format!("on {}", self.name))
    }

    /// In its namespaces, but with this machine's files.
    fn outside(&self, words: &[&str]) -> Result<String> {
        output(self.enter().args(words))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.first.to_string()])
            .args(["--mount", "--net", "--uts", "--pid", "--"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/root")
            .stdin(Stdio::null());
        command
    }

    /// Plays systemd: starts an installed unit as it says and waits until it is ready.
    pub fn start_unit(&mut self, name: &str) -> Result<()> {
        let file = format!("{name}.service");
        let complaints = self.run(&["systemd-analyze", "verify", &file])?;
        ensure!(complaints.trim().is_empty(), "{complaints}");
        let unit = Unit::parse(&self.run(&["cat", &format!("/usr/lib/systemd/system/{file}")])?);
        for path in &unit.needs {
            self.run(&["test", "-e", path])
                .with_context(|| format!("{file} would be skipped: {path} is not there"))?;
        }
        ensure!(unit.notifies, "{file} does not tell when it is ready");
        let socket = self.folder().join("notify").join(name);
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        notified.set_read_timeout(Some(Duration::from_millis(500)))?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.lab.join(format!("logs/{}-{name}.log", self.name)))?;
        let mut command = self.command(&unit.privileges());
        let child = command
            .args(&unit.words)
            .envs(&unit.environment)
            .env("NOTIFY_SOCKET", format!("/mnt/{name}"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.services.push((name.to_owned(), child));
        self.wait_for_ready(name, &notified)
    }

    fn wait_for_ready(&mut self, name: &str, notified: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = [0; 512];
        while Instant::now() < deadline {
            let length = notified.recv(&mut told).unwrap_or(0);
            if told[..length].starts_with(b"READY=1") {
                return Ok(());
            }
            if let Some((_, child)) = self.services.last_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("{name} on {} ended: {status}", self.name);
            }
        }
        bail!("{name} on {} was not ready in {PATIENCE:?}", self.name)
    }

    /// Kills a unit's own process, and nothing that it started, as `KillMode=process` does.
    pub fn kill_unit(&mut self, name: &str) -> Result<()> {
        let at = self.services.iter().position(|(known, _)| known == name);
        let (_, mut child) = self.services.remove(at.context("it was started")?);
        let pid = child_of(child.id()).context("it runs")?;
        output(Command::new("kill").args(["-s", "KILL", &pid.to_string()]))?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for (_, service) in &mut self.services {
            let _ = service.wait();
        }
    }
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("a fresh machine does not come up")
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        done.status.success(),
        "{command:?} failed: {}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    Ok(text(&done.stdout))
}
