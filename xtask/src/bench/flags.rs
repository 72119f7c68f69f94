//! The options of a bench: `--name value`, or `--name` alone.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What the command line says.
#[derive(Debug)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Reads `--name value` for the names in `valued` and `--name` for those in `plain`.
    pub fn read(arguments: &[String], valued: &[&str], plain: &[&str]) -> Result<Self> {
        let mut found = BTreeMap::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or_default();
            if valued.contains(&name) {
                let value = words
                    .next()
                    .with_context(|| format!("{word} needs a value"))?;
                found.insert(name.to_owned(), value.clone());
            } else if plain.contains(&name) {
                found.insert(name.to_owned(), String::new());
            } else {
                bail!("`{word}` is not an option of this bench");
            }
        }
        Ok(Self(found))
    }

    /// A number, or what it is unless said otherwise.
    pub fn number<T: FromStr>(&self, name: &str, usual: T) -> Result<T> {
        match self.0.get(name) {
            None => Ok(usual),
            Some(text) => text
                .parse()
                .ok()
                .with_context(|| format!("--{name} takes a number, not `{text}`")),
        }
    }

    /// A text, if it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Was it given?
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::read(&words, &["runs"], &["keep"])
    }

    #[test]
    fn what_is_not_given_has_its_usual_value() {
        let flags = read("--runs 5 --keep").unwrap();
        assert_eq!(flags.number("runs", 30).unwrap(), 5);
        assert!(flags.has("keep"));
        let flags = read("").unwrap();
        assert_eq!(flags.number("runs", 30).unwrap(), 30);
        assert!(!flags.has("keep") && flags.text("runs").is_none());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for bad in ["--fast", "runs 5", "--runs"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let flags = read("--runs many").unwrap();
        let said = flags.number("runs", 30).unwrap_err().to_string();
        assert!(said.contains("--runs") && said.contains("many"), "{said}");
    }
}
