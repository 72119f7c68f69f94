//! The commands of a guide, read from its text, so that guide and tests cannot drift apart.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result};

/// A guide of `docs/guides`.
pub struct Guide {
    commands: Vec<String>,
    taken: RefCell<BTreeSet<usize>>,
}

impl Guide {
    /// Reads the guide of this name.
    pub fn read(name: &str) -> Result<Self> {
        let path = crate::summary::checkout().join("docs/guides").join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Self {
            commands: commands(&text),
            taken: RefCell::default(),
        })
    }

    /// The words of the one command that begins so, with its placeholders replaced.
    pub fn command(&self, begins: &str, placeholders: &[(&str, &str)]) -> Result<Vec<String>> {
        let found = self.commands.iter().position(|it| it.starts_with(begins));
        let index = found.with_context(|| format!("the guide has no command `{begins} …`"))?;
        self.taken.borrow_mut().insert(index);
        let mut text = self.commands[index].clone();
        for (placeholder, value) in placeholders {
            text = text.replace(placeholder, value);
        }
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The commands that nobody asked for yet.
    pub fn left(&self) -> Vec<&str> {
        let taken = self.taken.borrow();
        let left = self.commands.iter().enumerate();
        left.filter(|(index, _)| !taken.contains(index))
            .map(|(_, command)| command.as_str())
            .collect()
    }
}

/// Commands stand in indented blocks, with `\` at the end of lines that go on, and as code within
/// sentences when they begin with one of our programs and have a word more.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut begun = String::new();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            let spans = line.split('`').skip(1).step_by(2);
            let ours = spans.filter(|span| span.starts_with("undine") && span.contains(' '));
            found.extend(ours.map(str::to_owned));
            continue;
        };
        let line = line.split(" # ").next().unwrap_or_default().trim();
        begun.push_str(line.trim_end_matches('\\'));
        if !line.ends_with('\\') && !begun.is_empty() {
            found.push(std::mem::take(&mut begun));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_blocks_and_in_sentences() {
        let text = "On control: `undine-control token node`.\nSee `undine`.\n\n    \
                    apt install \\\n      ./a.deb\n    undine node list      # all ready\n";
        assert_eq!(
            commands(text),
            [
                "undine-control token node",
                "apt install ./a.deb",
                "undine node list"
            ]
        );
    }
}
