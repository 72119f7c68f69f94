//! Being written.

use anyhow::{Result, bail};

/// The command.
pub fn run(_: &[String]) -> Result<()> {
    bail!("not there yet")
}
