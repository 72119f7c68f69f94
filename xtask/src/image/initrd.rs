//! Assembles the initramfs: busybox, modules, the init script and the guest agent. Uncompressed,
//! because under emulation unpacking costs more than reading a few megabytes more.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use super::root::Finished;

const FOLDERS: &[&str] = &[
    "bin", "dev", "proc", "sys", "modules", "lower", "volatile", "root",
];

/// Reads the guest agent and refuses a program that could not run in a server.
pub fn read_agent(file: &Path) -> Result<Vec<u8>> {
    let agent = std::fs::read(file)
        .with_context(|| format!("the guest agent {} cannot be read", file.display()))?;
    check_agent(&agent)?;
    Ok(agent)
}

/// Writes an initramfs from a finished root's folder, the init script and the agent.
pub fn write(
    file: &Path,
    root: &Path,
    finished: &Finished,
    init: &Path,
    agent: &[u8],
) -> Result<()> {
    let init = std::fs::read(init)
        .with_context(|| format!("the init script {} cannot be read", init.display()))?;
    let mut archive = Archive::new(BufWriter::new(File::create(file)?));
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)?;
    archive.file("bin/busybox", true, &std::fs::read(root.join("busybox"))?)?;
    for name in &finished.module_order {
        let module = std::fs::read(root.join("modules").join(name))
            .with_context(|| format!("the module {name} is missing from the cache"))?;
        archive.file(&format!("modules/{name}"), false, &module)?;
    }
    let order = finished
        .module_order
        .iter()
        .fold(String::new(), |list, name| list + name + "\n");
    archive.file("modules/order", false, order.as_bytes())?;
    archive.file("undine-guest", true, agent)?;
    archive.file("init", true, &init)?;
    archive
        .finish()
        .context("the initramfs cannot be written")?;
    Ok(())
}

/// The root has its own C library of its own version: an agent that needs one might not start.
fn check_agent(agent: &[u8]) -> Result<()> {
    const INTERPRETER: u32 = 3;
    ensure!(
        agent.starts_with(b"\x7fELF\x02\x01"),
        "the guest agent is no 64-bit program"
    );
    let half = |at: usize| {
        agent
            .get(at..at + 2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    let entry_size = usize::from(half(54).context("the guest agent is cut off")?);
    let entries = usize::from(half(56).context("the guest agent is cut off")?);
    let table = agent
        .get(32..40)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .and_then(|offset| usize::try_from(offset).ok())
        .context("the guest agent is cut off")?;
    let is_dynamic = (0..entries).any(|index| {
        let at = table + index * entry_size;
        agent.get(at..at + 4) == Some(INTERPRETER.to_le_bytes().as_slice())
    });
    ensure!(
        !is_dynamic,
        "the guest agent is not static: it needs a loader that the root may lack"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn an_agent_that_needs_a_loader_is_refused() {
        assert!(check_agent(&elf(1)).is_ok());
        assert!(
            check_agent(&elf(3))
                .unwrap_err()
                .to_string()
                .contains("not static")
        );
        assert!(check_agent(b"#!/bin/sh").is_err());
        assert!(check_agent(&elf(1)[..20]).is_err());
    }
}
