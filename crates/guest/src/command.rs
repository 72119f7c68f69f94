//! Runs programs of the server: typed arguments, never a shell; what they said becomes the error.

use std::io::Write;
use std::process::{Command, Stdio};

use undine_api::guest::FailureKind;

use crate::fail::{Doing, Outcome, failure};

/// Runs a program to its end and returns what it printed.
pub fn run<S: AsRef<str>>(program: &str, args: &[S]) -> Outcome<String> {
    run_with(program, args, None)
}

/// Runs a program with this on its standard input.
pub fn run_with<S: AsRef<str>>(program: &str, args: &[S], input: Option<&str>) -> Outcome<String> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let mut child = Command::new(program)
        .args(args.iter().map(AsRef::as_ref))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format_args!("start {name}"))?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends early does not read on; its exit code tells the story.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .doing(format_args!("wait for {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    let end = said.char_indices().rev().nth(1_500).map_or(0, |(at, _)| at);
    Err(failure(
        FailureKind::Internal,
        format!("{name} ended with {}: {}", output.status, &said[end..]),
    ))
}
