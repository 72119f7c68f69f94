//! The worked example of the README, run as it stands there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::process::Command;

const README: &str = include_str!("../README.md");

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split(begin).nth(1).unwrap().split(end).next().unwrap()
}

#[test]
fn the_worked_example_says_what_the_readme_says() {
    let json = between(README, "<<'JSON'\n", "\nJSON\n");
    let wanted = between(README, "```text\n", "```");
    let path = std::env::temp_dir().join(format!("undine-readme-{}.json", std::process::id()));
    std::fs::write(&path, json).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_undine-placement"))
        .args(["balance", "--snapshot"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(wanted), "{said}");
}
