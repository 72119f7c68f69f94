//! Reads the shipped systemd units, so that `up` runs the very command lines that real
//! installations run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::layout;

/// The words of a unit's `ExecStart=`, with its variables filled in as systemd does: `${NAME}`
/// stays one word, a bare `$NAME` becomes as many words as it has.
pub fn command_line(unit: &str, variables: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let path = layout::checkout().join("packaging/systemd").join(unit);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .with_context(|| format!("{} has no ExecStart", path.display()))?;
    Ok(fill(line, variables))
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
