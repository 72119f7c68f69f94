//! A path among a site's files, checked once, at the door: it can lead nowhere else by its text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longer paths serve nobody and break tools.
const LONGEST: usize = 1_000;
const LONGEST_NAME: usize = 255;
const DEEPEST: usize = 60;

/// Why a path was refused and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is no path among a site's files: {reason}")]
pub struct InvalidPath {
    /// What was given, shortened and made visible.
    pub path: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

/// A path among a site's files: empty for the top, else `current` (what visitors see now) or
/// `shared` (what outlives releases) and what is below it, such as `current/css/site.css`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "current/index.html"))]
#[serde(try_from = "String", into = "String")]
pub struct SitePath(String);

impl SitePath {
    /// The live release.
    pub const CURRENT: &'static str = "current";
    /// What outlives releases.
    pub const SHARED: &'static str = "shared";

    /// The top, where the trees are.
    pub fn top() -> Self {
        Self::default()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, from the top.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// Which tree it is in; none for the top.
    pub fn tree(&self) -> Option<&str> {
        self.names().next()
    }

    /// What follows the tree's name; empty for the tree itself.
    pub fn within(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// Its last name; none for the top.
    pub fn name(&self) -> Option<&str> {
        self.names().last()
    }

    /// The folder that it is in; the top's is the top.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.rsplit_once('/').map_or("", |(up, _)| up).to_owned())
    }

    /// Something in this folder.
    ///
    /// # Errors
    /// The name is none, or the path becomes too long.
    pub fn join(&self, name: &str) -> Result<Self, InvalidPath> {
        if name.is_empty() || name.contains('/') {
            return Err(refused(name, "a name is not empty and has no `/`"));
        }
        match self.0.is_empty() {
            true => name.parse(),
            false => format!("{}/{name}", self.0).parse(),
        }
    }

    /// Is the other one this one, or in it?
    pub fn holds(&self, other: &Self) -> bool {
        self == other
            || self.0.is_empty()
            || other
                .0
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// May something new have this path? Strange names that are there already can be looked at,
    /// moved and removed, but nothing new gets one.
    ///
    /// # Errors
    /// It is a tree itself, or its last name is one that would fool people or programs.
    pub fn check_new(&self) -> Result<(), InvalidPath> {
        let wrong = |reason| Err(refused(&self.0, reason));
        let Some(name) = self.name().filter(|_| !self.within().is_empty()) else {
            return wrong("`current` and `shared` are made by the server; write a name below them");
        };
        if name.chars().any(is_strange) || name.contains('\\') {
            return wrong("a new name has no control characters and no backslash");
        }
        if name.trim() != name {
            return wrong("a new name neither begins nor ends with a space");
        }
        if name.starts_with(".undine-") {
            return wrong("names that begin with `.undine-` are the server's own");
        }
        Ok(())
    }
}

/// Does this letter hide, or turn round what stands beside it?
fn is_strange(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A name as people may be shown it: what would hide, move a terminal's cursor or turn the text
/// round is written out.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_strange(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

fn refused(path: &str, reason: &'static str) -> InvalidPath {
    let path: String = path.chars().take(120).collect();
    InvalidPath {
        path: visible(&path),
        reason,
    }
}

impl FromStr for SitePath {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let wrong = |reason| Err(refused(text, reason));
        let path = text.strip_prefix('/').unwrap_or(text);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self::top());
        }
        if path.len() > LONGEST || path.contains('\0') {
            return wrong("it has more than 1,000 bytes, or one that no path can have");
        }
        let mut depth = 0;
        for name in path.split('/') {
            depth += 1;
            match name {
                "" | "." => return wrong("between two `/` stands a name"),
                ".." => return wrong("`..` leads nowhere here"),
                name if name.len() > LONGEST_NAME => return wrong("a name has at most 255 bytes"),
                name if depth == 1 && name != Self::CURRENT && name != Self::SHARED => {
                    return wrong("it begins with `current` or `shared`");
                }
                _ => {}
            }
        }
        if depth > DEEPEST {
            return wrong("folders are nested at most 60 deep");
        }
        Ok(Self(path.to_owned()))
    }
}

impl TryFrom<String> for SitePath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<SitePath> for String {
    fn from(path: SitePath) -> Self {
        path.0
    }
}

impl fmt::Display for SitePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SitePath {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_knows_its_parts() {
        let it = path("/current/css/site.css");
        assert_eq!(it.as_str(), "current/css/site.css");
        assert_eq!(it.tree(), Some("current"));
        assert_eq!(it.within(), "css/site.css");
        assert_eq!(it.name(), Some("site.css"));
        assert_eq!(it.parent(), path("current/css"));
        assert_eq!(path("shared").parent(), SitePath::top());
        assert_eq!(SitePath::top().join("shared").unwrap(), path("shared/"));
        assert!(path("current/css").holds(&it) && SitePath::top().holds(&it));
        assert!(!path("current/cs").holds(&it));
    }

    #[test]
    fn nothing_leads_out_by_its_text() {
        for text in [
            "..",
            "current/..",
            "current/../../etc",
            "current/./a",
            "current//a",
            "//current",
            "etc/passwd",
            "releases/x",
            "current/a\0b",
            "curren",
        ] {
            assert!(text.parse::<SitePath>().is_err(), "{text:?}");
        }
        assert!(
            format!("current/{}", "a".repeat(256))
                .parse::<SitePath>()
                .is_err()
        );
        assert!(
            format!("current{}", "/a".repeat(60))
                .parse::<SitePath>()
                .is_err()
        );
        for name in ["", "a/b", "..", "."] {
            assert!(path("current").join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn nothing_new_gets_a_name_that_fools() {
        for text in [
            "",
            "current",
            "shared/",
            "current/a\nb",
            "current/a\u{202e}gpj.exe",
            "current/a\\b",
            "current/ a",
            "current/.undine-x",
        ] {
            assert!(path(text).check_new().is_err(), "{text:?}");
        }
        for text in [
            "current/a",
            "shared/Über uns.html",
            "current/.htaccess",
            "current/<b>.txt",
        ] {
            path(text).check_new().unwrap();
        }
    }

    #[test]
    fn strange_letters_are_written_out() {
        assert_eq!(visible("a\u{202e}b\u{1b}[2J\n"), "a\\u{202e}b\\u{1b}[2J\\n");
        assert_eq!(visible("Grüße <b>"), "Grüße <b>");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_has_only_plain_names(text in "[a-z./\\\\]{0,30}") {
            let text = format!("current/{text}");
            if let Ok(path) = text.parse::<SitePath>() {
                proptest::prop_assert!(path.names().all(|name| !name.is_empty() && name != "." && name != ".."));
                proptest::prop_assert_eq!(path.tree(), Some("current"));
            }
        }
    }
}
