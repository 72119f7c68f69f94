//! `bench placement`: the placement library beside hbal. It measures itself; this names the
//! machine in its file.

use anyhow::{Context, Result};
use serde_json::Value;

use super::report::{self, Machine};
use crate::machine::{self, cargo};
use crate::up::layout;

/// The command; what it is given goes to `undine-placement bench`.
pub fn run(arguments: &[String]) -> Result<()> {
    machine::provide(&[machine::FOR_PLACEMENT], true)?;
    let out = layout::checkout().join("target/bench/placement.json");
    std::fs::create_dir_all(layout::checkout().join("target/bench"))?;
    let file = out.to_string_lossy();
    let mut words = vec![
        "run",
        "--quiet",
        "--package",
        "undine-placement",
        "--release",
        "--bin",
        "undine-placement",
        "--",
        "bench",
        "--out",
        &file,
    ];
    words.extend(arguments.iter().map(String::as_str));
    cargo(&words)?;
    let bytes = std::fs::read(&out).with_context(|| format!("{} is not there", out.display()))?;
    let told: Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} cannot be read", out.display()))?;
    let result = if told.is_object() {
        told
    } else {
        serde_json::json!({ "cases": told })
    };
    report::write("placement", &Machine::of("not used"), &result)
}
