//! Keeps the cluster's programs running on this machine, as systemd does on real ones: starts
//! them, starts them again when they end, and adopts the ones that outlived a supervisor.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::RUNTIME;
use crate::command::{ask, command};

const POLL: Duration = Duration::from_millis(200);
const GRACE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A program to keep running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its name, such as `node-1-agent`.
    pub name: String,
    /// The network namespace that it runs in; none is this machine's own.
    pub namespace: Option<String>,
    /// The Unix user that it runs as; none is root.
    pub user: Option<String>,
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its environment, beside ours.
    pub environment: BTreeMap<String, String>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A process that was started: its number, and its start time to know it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its number.
    pub pid: u32,
    /// Clock ticks from the machine's boot to its start.
    pub start_ticks: u64,
}

impl Started {
    fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: start_ticks(pid)?,
        })
    }

    /// Is it still this process, and not a zombie or another one with its number?
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends it a signal; a process that is gone needs none.
    pub fn signal(&self, signal: &str) {
        if self.is_alive() {
            let _ = ask("kill", &["-s", signal, &self.pid.to_string()]);
        }
    }
}

fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn plan_file() -> PathBuf {
    Path::new(RUNTIME).join("processes.json")
}
fn stop_file() -> PathBuf {
    Path::new(RUNTIME).join("stop")
}
fn pid_file(name: &str) -> PathBuf {
    Path::new(RUNTIME).join("pids").join(format!("{name}.json"))
}

fn hold_file(name: &str) -> PathBuf {
    Path::new(RUNTIME).join("held").join(name)
}

/// From now on a program that ends is not started again, until it is released.
pub fn hold(name: &str) -> Result<()> {
    write_whole(&hold_file(name), b"")
}

/// It may be started again; so may one that was not held.
pub fn release(name: &str) {
    let _ = std::fs::remove_file(hold_file(name));
}

/// Whatever a trial that was broken off has left held may be started again.
pub fn release_all() {
    let _ = std::fs::remove_dir_all(Path::new(RUNTIME).join("held"));
}

/// The programs to keep running.
pub fn plan() -> Vec<Process> {
    std::fs::read(plan_file())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Adds programs to the plan (or changes ones of the same name) and sees to it that a supervisor
/// runs.
pub fn keep(processes: &[Process]) -> Result<()> {
    let mut all = plan();
    for process in processes {
        all.retain(|known| known.name != process.name);
        all.push(process.clone());
    }
    write_whole(&plan_file(), &serde_json::to_vec_pretty(&all)?)?;
    ensure_supervisor()
}

fn ensure_supervisor() -> Result<()> {
    if started("supervisor").is_some_and(|it| it.is_alive()) {
        return Ok(());
    }
    let log = log(&Path::new(RUNTIME).join("supervisor.log"))?;
    let this = std::env::current_exe()?;
    // A copy: cargo may replace the original while it runs.
    let copy = Path::new(RUNTIME).join("undine-supervisor");
    let _ = std::fs::remove_file(&copy);
    std::fs::copy(this, &copy)?;
    command("setsid", ["--fork", &copy.to_string_lossy(), "supervise"])
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("the supervisor could not be started")?;
    Ok(())
}

/// What runs under this name, as far as was written down.
pub fn started(name: &str) -> Option<Started> {
    serde_json::from_slice(&std::fs::read(pid_file(name)).ok()?).ok()
}

/// The number of the process that runs under this name.
pub fn pid(name: &str) -> Option<u32> {
    started(name).filter(Started::is_alive).map(|it| it.pid)
}

/// Stops everything: through the supervisor, and whatever it left by ourselves.
pub fn stop_all() -> Result<()> {
    if !Path::new(RUNTIME).exists() {
        return Ok(());
    }
    std::fs::write(stop_file(), b"")?;
    let deadline = Instant::now() + GRACE + GRACE;
    while started("supervisor").is_some_and(|it| it.is_alive()) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    if let Some(it) = started("supervisor") {
        it.signal("KILL");
    }
    let names: Vec<String> = plan().into_iter().map(|process| process.name).collect();
    let left: Vec<Started> = names.iter().filter_map(|name| started(name)).collect();
    stop(&left);
    Ok(())
}

fn stop(processes: &[Started]) {
    for process in processes {
        process.signal("TERM");
    }
    let deadline = Instant::now() + GRACE;
    while processes.iter().any(Started::is_alive) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    for process in processes {
        process.signal("KILL");
    }
}

/// The supervisor itself: `cargo xtask supervise`, started by `up`.
pub fn run(_: &[String]) -> Result<()> {
    let me = Started::of(std::process::id()).context("/proc cannot be read")?;
    write_whole(&pid_file("supervisor"), &serde_json::to_vec(&me)?)?;
    let mut kept: Vec<String> = Vec::new();
    while !stop_file().exists() {
        for process in plan() {
            if !kept.contains(&process.name) {
                kept.push(process.name.clone());
                thread::spawn(move || keep_running(&process.name));
            }
        }
        thread::sleep(POLL);
    }
    // Doors first, control last: nobody meets a half-stopped house.
    kept.sort_by_key(|name| match name.split('-').next() {
        Some("edge") => 0,
        Some("node") => 1,
        Some("control") => 2,
        _ => 3,
    });
    for name in kept {
        stop(&started(&name).into_iter().collect::<Vec<_>>());
    }
    Ok(())
}

/// Adopts what runs, then starts it again whenever it ends.
fn keep_running(name: &str) {
    if let Some(running) = started(name) {
        while running.is_alive() {
            thread::sleep(POLL);
        }
    }
    let mut pause = POLL;
    while !stop_file().exists() {
        if hold_file(name).exists() {
            thread::sleep(POLL);
            continue;
        }
        // Read anew: `up` may have changed the command line.
        let Some(process) = plan().into_iter().find(|process| process.name == name) else {
            return;
        };
        let begun = Instant::now();
        match start(&process) {
            Ok(mut child) => {
                let ended = child.wait();
                println!("{name} ended: {ended:?}");
            }
            Err(error) => println!("{name} could not be started: {error:#}"),
        }
        let steady = begun.elapsed() > LONGEST_PAUSE;
        pause = if steady {
            POLL
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        thread::sleep(pause);
    }
}

fn start(process: &Process) -> Result<Child> {
    let mut words: Vec<String> = Vec::new();
    if let Some(namespace) = &process.namespace {
        // Not `ip netns exec`: that hides the control groups.
        words.extend([
            "nsenter".to_owned(),
            format!("--net=/run/netns/{namespace}"),
            "--".to_owned(),
        ]);
    }
    if let Some(user) = &process.user {
        words.extend(
            [
                "setpriv",
                "--reuid",
                user,
                "--regid",
                user,
                "--init-groups",
                "--",
            ]
            .map(str::to_owned),
        );
    }
    words.extend(process.words.iter().cloned());
    let log = log(&process.log)?;
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .envs(&process.environment)
        .stdin(Stdio::null());
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    if let Some(started) = Started::of(child.id()) {
        write_whole(&pid_file(&process.name), &serde_json::to_vec(&started)?)?;
    }
    Ok(child)
}

fn log(path: &Path) -> Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}
