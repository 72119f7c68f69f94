//! `test`: every check and test, as CI and a newcomer run them, the quick ones first.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{ask, command, run as call};
use crate::machine::{self, cargo};
use crate::{down, package, tidy, up};

const USAGE: &str = "usage: cargo xtask test [--only STAGE] [--no-install]

stages: format, tidy, deny, lint, unit, vm";

/// One stage and what it runs.
type Stage = (&'static str, fn() -> Result<()>);

const STAGES: [Stage; 6] = [
    ("format", format),
    ("tidy", || tidy::run(&[])),
    ("deny", deny),
    ("lint", lint),
    ("unit", unit),
    ("vm", vm),
];

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let (mut only, mut install) = (None, true);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => only = Some(words.next().context(USAGE)?.clone()),
            "--no-install" => install = false,
            _ => bail!("{USAGE}"),
        }
    }
    if let Some(name) = &only
        && !STAGES.iter().any(|(stage, _)| stage == name)
    {
        bail!("there is no stage `{name}`\n{USAGE}");
    }
    let wanted = [machine::FOR_UP, machine::FOR_TEST, machine::FOR_PLACEMENT];
    machine::provide(&wanted, install)?;
    provide_cargo_tools(install)?;
    let begun = Instant::now();
    for (name, stage) in STAGES {
        if only.as_ref().is_none_or(|wanted| wanted == name) {
            println!("\n== {name} ({:.0} s)", begun.elapsed().as_secs_f64());
            stage().with_context(|| format!("stage {name}"))?;
        }
    }
    println!(
        "\n== everything passed ({:.0} s)",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn provide_cargo_tools(install: bool) -> Result<()> {
    for (tool, more) in [
        ("cargo-nextest", None),
        ("cargo-deny", Some("--no-default-features")),
    ] {
        if ask(tool, &["--version"]).is_ok() || ask("cargo", &[&tool[6..], "--version"]).is_ok() {
            continue;
        }
        if !install {
            bail!("{tool} is missing; cargo install --locked {tool}");
        }
        println!("  cargo install {tool}");
        let mut words = vec!["install", "--locked", "--quiet", tool];
        words.extend(more);
        cargo(&words)?;
    }
    Ok(())
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])
}

fn deny() -> Result<()> {
    cargo(&[
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ])?;
    // Its database is fetched; where it cannot be, that is said, never passed over.
    let words = ["deny", "--log-level", "error", "check", "advisories"];
    let checked = command("cargo", words)
        .output()
        .context("cargo deny could not be started")?;
    let told = String::from_utf8_lossy(&checked.stderr);
    if told.contains("failed to fetch advisory database") {
        println!("the advisories could NOT be checked: their database is out of reach here");
        return Ok(());
    }
    ensure!(checked.status.success(), "advisories: {told}");
    println!("no advisories");
    Ok(())
}

fn lint() -> Result<()> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}

/// Everything that needs no cluster; the end-to-end tests come after, on one that is up.
fn unit() -> Result<()> {
    cargo(&["nextest", "run", "--workspace", "--exclude", "undine-e2e"])
}

/// Brings a cluster up as a user does, tests it from outside, takes it down again whatever came
/// of it.
fn vm() -> Result<()> {
    let tested = bring_up_and_test();
    if tested.is_err() {
        show_logs();
    }
    let removed = down::run(&[]);
    tested.and(removed)
}

fn bring_up_and_test() -> Result<()> {
    down::run(&[])?;
    // What was begun stays until its logs have been shown.
    up::run(&["--detach", "--keep-failed"].map(str::to_owned))?;
    // The install guide is walked with real packages; the image's would be big and adds nothing.
    package::run(&["--debug", "--no-image"].map(str::to_owned))?;
    // One after the other on the one cluster. A second try is told as FLAKY, never silently:
    // under emulation a busy machine can be slower than any patience.
    let words = "nextest run --package undine-e2e --test-threads 1 --retries 1";
    cargo(&words.split(' ').collect::<Vec<_>>())
}

/// The last words of every program, for whoever reads the failure.
fn show_logs() {
    let folder = up::layout::target().join("logs");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        println!("\n---- {}", entry.path().display());
        let _ = call(&mut command(
            "tail",
            ["-n", "25", &entry.path().to_string_lossy()],
        ));
    }
}
