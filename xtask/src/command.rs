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
        bail!("{shown} failed: {}", reason(&words));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What a program said when it failed: from its last `error:` on, else its last line.
fn reason(words: &str) -> &str {
    let words = words.trim();
    let from = words
        .rfind("error: ")
        .or_else(|| words.rfind('\n').map(|at| at + 1));
    match &words[from.unwrap_or(0)..] {
        "" => "no reason given",
        reason => reason.trim_start_matches("error: "),
    }
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

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        assert_eq!(
            reason("step 1\nerror: no room\n  what to do: make some\n"),
            "no room\n  what to do: make some"
        );
        assert_eq!(reason("one\ntwo\n"), "two");
        assert_eq!(reason(" \n"), "no reason given");
    }
}
