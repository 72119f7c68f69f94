//! Running other programs: typed arguments, and one sentence when one fails.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command with its arguments, shown as a person would type it.
pub fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs to its end and answers what it printed; when it fails, its last words are the error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let done = command
        .output()
        .with_context(|| format!("{shown} could not be started"))?;
    if !done.status.success() {
        let words = String::from_utf8_lossy(&done.stderr);
        let last = words
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no reason given");
        bail!("{shown} failed: {}", last.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs to its end with its output on ours.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("{shown} could not be started"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Program and arguments, on one line.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Shorthand for [`output`] of a program with plain arguments.
pub fn ask(program: &str, arguments: &[&str]) -> Result<String> {
    output(&mut command(program, arguments))
}
