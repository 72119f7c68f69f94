//! `down`: removes every process, namespace, interface, control group and file that `up` made,
//! also after a crash half-way. Each step finds what there is and needs no record of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{ask, command, output};
use crate::machine::require_root;
use crate::up::{layout, network, supervise};

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        bail!("`down` takes no options, `{word}` neither");
    }
    require_root("to remove namespaces")?;
    if !Path::new(layout::RUNTIME).exists()
        && !Path::new(layout::STATE).exists()
        && network::namespaces()?.is_empty()
    {
        println!("nothing is up");
        return Ok(());
    }
    println!("stopping programs");
    supervise::stop_all()?;
    println!("stopping servers");
    end_inhabitants()?;
    remove_groups()?;
    println!("removing networks and files");
    network::remove()?;
    unmount()?;
    for folder in [
        Path::new(layout::RUNTIME),
        Path::new(layout::STATE),
        &layout::target(),
    ] {
        if folder.exists() {
            std::fs::remove_dir_all(folder)
                .with_context(|| format!("{} could not be removed", folder.display()))?;
        }
    }
    println!("everything is gone");
    Ok(())
}

/// Takes down file systems below the state: `chaos` gives a node a small disk.
fn unmount() -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let below = table.lines().filter_map(|line| line.split(' ').nth(1));
    for path in below.filter(|path| Path::new(path).starts_with(layout::STATE)) {
        ask("umount", &[path])?;
    }
    Ok(())
}

/// Ends what still lives in the namespaces: servers and their storage daemons outlive their agent.
fn end_inhabitants() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let pids = inhabitants()?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {} will not end", pids.join(", "));
        }
        let mut arguments = vec!["-s", "KILL"];
        arguments.extend(pids.iter().map(String::as_str));
        // One may end between the look and the signal.
        let _ = ask("kill", &arguments);
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn inhabitants() -> Result<Vec<String>> {
    let mut pids = Vec::new();
    for namespace in network::namespaces()? {
        let text = output(&mut command("ip", ["netns", "pids", &namespace]))?;
        pids.extend(text.split_whitespace().map(str::to_owned));
    }
    Ok(pids)
}

/// Removes the control groups below ours, the innermost first, in every hierarchy.
fn remove_groups() -> Result<()> {
    for mount in [
        "", "unified", "cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "freezer", "devices",
    ] {
        let group = Path::new("/sys/fs/cgroup").join(mount).join(layout::CGROUP);
        if group.is_dir() {
            remove_group(&group)
                .with_context(|| format!("{} could not be removed", group.display()))?;
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}
