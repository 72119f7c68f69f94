//! `client`: writes the public API's client from its description, one method an operation. The
//! types are those of `undine_api`, found by their schemas' names, so a client can never say
//! something else than control; `tidy` holds the written file to the description.

mod operation;
mod write;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::up::layout::checkout;

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        bail!("`client` takes no options, `{word}` neither");
    }
    let path = written();
    fs::write(&path, fresh()?).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Is the client in the tree the one that the description makes?
pub fn is_fresh() -> Result<bool> {
    Ok(fs::read_to_string(written()).is_ok_and(|text| fresh().is_ok_and(|fresh| fresh == text)))
}

fn written() -> PathBuf {
    checkout().join("crates/client/src/generated.rs")
}

fn fresh() -> Result<String> {
    let path = checkout().join("openapi/v1.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let document: Value = serde_json::from_str(&text)?;
    formatted(&write::client(&operation::all(&document)?))
}

/// As `cargo fmt` would leave it.
fn formatted(code: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--quiet"])
        .current_dir(checkout())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("rustfmt does not start; rustup component add rustfmt")?;
    let mut input = child.stdin.take().context("rustfmt takes no input")?;
    input.write_all(code.as_bytes())?;
    drop(input);
    let done = child.wait_with_output()?;
    ensure!(
        done.status.success(),
        "rustfmt refused the generated client"
    );
    Ok(String::from_utf8(done.stdout)?)
}
