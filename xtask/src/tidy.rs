//! `tidy`: the house rules that a program can check. The arrows between crates stand in
//! ARCHITECTURE.md, in the block that begins with `arrows`; this holds the code to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::ask;
use crate::up::layout::checkout;

/// What pure crates must not mention: the clock, the environment, tasks.
const IMPURE: [&str; 6] = [
    "tokio::",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::net::Tcp",
];
const PURE: [&str; 4] = ["model", "placement", "manifest", "failover"];
/// Production lines after which a file needs a reason in its first comment.
const LONG_FILE: usize = 500;

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        bail!("`tidy` takes no options, `{word}` neither");
    }
    let mut faults = Vec::new();
    arrows(&mut faults)?;
    sources(&mut faults)?;
    units(&mut faults)?;
    if !crate::client::is_fresh()? {
        faults.push(
            "crates/client/src/generated.rs is not what openapi/v1.json makes; cargo xtask client"
                .to_owned(),
        );
    }
    if faults.is_empty() {
        println!("tidy");
        return Ok(());
    }
    bail!(
        "{} things are not tidy:\n  {}",
        faults.len(),
        faults.join("\n  ")
    )
}

/// Every dependency between our crates must be an arrow of ARCHITECTURE.md.
fn arrows(faults: &mut Vec<String>) -> Result<()> {
    let allowed = allowed_arrows(&fs::read_to_string(checkout().join("ARCHITECTURE.md"))?)?;
    let metadata: Value = serde_json::from_str(&ask(
        "cargo",
        &["metadata", "--no-deps", "--format-version", "1"],
    )?)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or(""));
        if package["manifest_path"]
            .as_str()
            .is_some_and(|path| path.contains("/xtask/"))
        {
            continue;
        }
        let Some(targets) = allowed.get(name) else {
            faults.push(format!(
                "crate {name} has no line among the arrows of ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or("");
            let is_ours = target.starts_with("undine-");
            let is_for_tests = dependency["kind"] == "dev";
            if is_ours && !is_for_tests && !targets.iter().any(|it| it == short(target)) {
                faults.push(format!("{name} must not depend on {}", short(target)));
            }
        }
    }
    Ok(())
}

fn short(name: &str) -> &str {
    name.trim_start_matches("undine-")
}

/// The lines `name -> name name` of the block that begins with `arrows`.
fn allowed_arrows(text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let block = text
        .split("```")
        .find_map(|block| block.strip_prefix("arrows\n"))
        .context("ARCHITECTURE.md has no block of arrows")?;
    Ok(block
        .lines()
        .filter_map(|line| line.split_once("->"))
        .map(|(from, to)| {
            (
                from.trim().to_owned(),
                to.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect())
}

fn sources(faults: &mut Vec<String>) -> Result<()> {
    for path in rust_files()? {
        let text = fs::read_to_string(&path)?;
        let shown = path
            .strip_prefix(checkout())
            .unwrap_or(&path)
            .display()
            .to_string();
        if !text.starts_with("//!") && !text.starts_with("// @generated") {
            faults.push(format!("{shown} does not open with what it is for"));
        }
        for bad in ["/work/", "/root/", "#[ignore"] {
            if text.contains(bad) && !shown.starts_with("xtask/src/tidy") {
                faults.push(format!("{shown} has `{bad}`"));
            }
        }
        let production = text
            .split("#[cfg(test)]")
            .next()
            .unwrap_or("")
            .lines()
            .count();
        let opening = text.lines().take(12).collect::<String>();
        let is_test =
            shown.contains("/tests/") || shown.contains("tests.rs") || shown.starts_with("tests/");
        if production > LONG_FILE
            && !is_test
            && !opening.contains("Long because")
            && !opening.contains("@generated")
        {
            faults.push(format!(
                "{shown} has {production} lines and no `Long because …` in its first comment"
            ));
        }
        if PURE
            .iter()
            .any(|name| shown.starts_with(&format!("crates/{name}/src")))
            && !shown.contains("/bin/")
            && !shown.ends_with("main.rs")
        {
            let code = text.split("#[cfg(test)]").next().unwrap_or("");
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                for bad in IMPURE.iter().filter(|bad| line.contains(**bad)) {
                    faults.push(format!("{shown}: a pure crate mentions `{bad}`"));
                }
            }
        }
        if shown.starts_with("crates/")
            && !shown.starts_with("crates/store")
            && !shown.starts_with("crates/testkit")
            && text.contains("use sea_orm")
        {
            faults.push(format!("{shown}: SQL stands in the store alone"));
        }
    }
    Ok(())
}

/// Every crate takes the workspace's lints; every unit has a command line.
fn units(faults: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(checkout().join("crates"))? {
        let manifest = entry?.path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        if !text.contains("[lints]\nworkspace = true") {
            faults.push(format!(
                "{} does not take the workspace's lints",
                manifest.display()
            ));
        }
    }
    for entry in fs::read_dir(checkout().join("packaging/systemd"))? {
        let path = entry?.path();
        if !fs::read_to_string(&path)?.contains("\nExecStart=") {
            faults.push(format!("{} has no ExecStart", path.display()));
        }
    }
    Ok(())
}

fn rust_files() -> Result<Vec<PathBuf>> {
    let root = checkout();
    let listed = ask(
        "git",
        &[
            "-C",
            &root.to_string_lossy(),
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ],
    )?;
    Ok(listed
        .lines()
        .map(|line| Path::new(&root).join(line))
        .filter(|path| path.exists())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_are_read_from_the_plan() {
        let plan = "text\n```arrows\nmodel ->\napi -> model manifest\n```\nmore";
        let arrows = allowed_arrows(plan).unwrap();
        assert_eq!(arrows["api"], ["model", "manifest"]);
        assert!(arrows["model"].is_empty());
        assert!(allowed_arrows("none").is_err());
    }
}
