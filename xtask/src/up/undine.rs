//! Calls the command line `undine` as the provider.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{cluster, layout};
use crate::command::{command, output};

/// Runs `undine WORDS --json` and reads its answer.
pub fn undine(words: &[&str]) -> Result<Value> {
    let program = layout::program("undine");
    let mut command = command(&program.to_string_lossy(), words);
    command
        .arg("--json")
        .env("UNDINE_API", format!("http://{}", cluster::api_address(1)))
        .env("UNDINE_TOKEN_FILE", cluster::token_file());
    let text = output(&mut command)?;
    serde_json::from_str(text.trim())
        .with_context(|| format!("undine {} answered no JSON", words.join(" ")))
}

/// The items of a list.
pub fn list(words: &[&str]) -> Result<Vec<Value>> {
    let answer = undine(words)?;
    let items = answer.get("items").unwrap_or(&answer);
    Ok(items.as_array().cloned().unwrap_or_default())
}

/// A text field of an answer.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}
