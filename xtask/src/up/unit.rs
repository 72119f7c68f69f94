//! Reads the shipped systemd units, so that `up` runs the very command lines that real
//! installations run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::layout;

/// The words of a unit's `ExecStart=`, with its variables filled in as systemd does: `${NAME}`
/// stays one word, a bare `$NAME` becomes as many words as it has.
pub fn command_line(unit: &str, variables: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let text = read(unit)?;
    let line = setting(&text, "ExecStart").with_context(|| format!("{unit} has no ExecStart"))?;
    Ok(fill(line, variables))
}

/// The words that give a program the unit's `Nice=`, to stand before its own.
pub fn niceness(unit: &str) -> Result<Vec<String>> {
    let text = read(unit)?;
    Ok(setting(&text, "Nice").map_or_else(Vec::new, |value| {
        ["nice", "-n", value].map(str::to_owned).to_vec()
    }))
}

fn read(unit: &str) -> Result<String> {
    let path = layout::checkout().join("packaging/systemd").join(unit);
    std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn fill(line: &str, variables: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| variables.get(name).map_or("", String::as_str);
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        if let Some(name) = word
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
        {
            words.push(value(name).to_owned());
        } else if let Some(name) = word.strip_prefix('$') {
            words.extend(value(name).split_whitespace().map(str::to_owned));
        } else {
            words.push(word.to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_comes_before_the_servers_here_too() {
        assert_eq!(
            niceness("undine-guard.service").unwrap()[..2],
            ["nice", "-n"]
        );
        // What it starts would inherit it: virtual machines.
        assert!(niceness("undine-node.service").unwrap().is_empty());
    }

    #[test]
    fn variables_are_filled_in_as_systemd_does() {
        let variables = BTreeMap::from([
            ("STATE_DIR".to_owned(), "/a b".to_owned()),
            ("EXTRA".to_owned(), "--one --two".to_owned()),
        ]);
        let words = fill(
            "/usr/bin/x run --state-dir ${STATE_DIR} $EXTRA $NONE",
            &variables,
        );
        assert_eq!(
            words,
            ["/usr/bin/x", "run", "--state-dir", "/a b", "--one", "--two"]
        );
    }
}
