//! Names that people give to things, validated once, at the door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a short lower-case name.
    #[error(
        "`{0}` is not a usable name; use 1 to 40 of a-z, 0-9 and single hyphens, starting with a letter and not ending in a hyphen"
    )]
    Slug(String),
    /// Not a domain name at all.
    #[error("`{name}` is not a domain name: {reason}")]
    Domain {
        /// What was given, shortened.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A public suffix, which nobody owns.
    #[error(
        "`{0}` is a public suffix that many owners share; write a name below it, such as example.{0}"
    )]
    PublicSuffix(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A short lower-case name, safe in paths, unit names and host names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "web-1"))]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// The name of a hardware node.
pub type NodeName = Slug;
/// The name of a profile.
pub type ProfileName = Slug;
/// The name of an application in the catalogue.
pub type AppName = Slug;

impl Slug {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let well_formed = (1..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && !text.contains("--")
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Slug(shortened(text)))
        }
    }
}

/// A registrable domain name or one below it, in its ASCII form (IDNA, UTS 46).
///
/// Look-alikes keep their `xn--` form everywhere, so that nobody can be fooled by letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "blog.example.com"))]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

impl DomainName {
    /// The name in ASCII, lower case, no trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refuse = |reason| InvalidName::Domain {
            name: shortened(text),
            reason,
        };
        if text.len() > 1_000 {
            return Err(refuse("it is longer than 253 characters"));
        }
        let text = text.trim_end_matches('.');
        let ascii = idna::domain_to_ascii_strict(text)
            .map_err(|_| refuse("a label has characters that host names cannot have"))?;
        if ascii.len() > 253 {
            return Err(refuse("it is longer than 253 characters"));
        }
        let labels: Vec<&str> = ascii.split('.').collect();
        if labels.len() < 2 {
            return Err(refuse("it needs at least two parts, such as example.com"));
        }
        if !labels.iter().all(|label| is_host_label(label)) {
            return Err(refuse(
                "each part takes 1 to 63 of a-z, 0-9 and hyphens, not at its ends",
            ));
        }
        if labels
            .last()
            .is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(refuse("it is an IP address; a site needs a name"));
        }
        // `localhost` and other names outside the list count as suffixes of one label.
        match psl::suffix(ascii.as_bytes()) {
            Some(suffix) if suffix.is_known() && suffix.as_bytes() == ascii.as_bytes() => {
                Err(InvalidName::PublicSuffix(ascii))
            }
            _ => Ok(Self(ascii)),
        }
    }
}

fn is_host_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

macro_rules! textual {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}
textual!(Slug);
textual!(DomainName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_domain_is_kept_in_its_ascii_form() {
        let name: DomainName = "Bücher.Example.".parse().unwrap();
        assert_eq!(name.as_str(), "xn--bcher-kva.example");
        assert_eq!(
            "blog.localhost".parse::<DomainName>().unwrap().as_str(),
            "blog.localhost"
        );
    }

    #[test]
    fn a_look_alike_is_another_name() {
        let latin: DomainName = "paypal.com".parse().unwrap();
        let cyrillic: DomainName = "p\u{430}ypal.com".parse().unwrap();
        assert_ne!(latin, cyrillic);
        assert!(cyrillic.as_str().starts_with("xn--"));
    }

    #[test]
    fn what_is_no_domain_is_refused_with_the_reason() {
        let long = format!("{}.com", "a".repeat(300));
        for bad in [
            "",
            "com",
            "localhost",
            "co.uk",
            "a..b",
            "-a.com",
            "a-.com",
            "1.2.3.4",
            "a b.com",
            "a_b.com",
            "../etc",
            "a/b.com",
            "*.example.com",
            &long,
        ] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slug_is_short_and_plain() {
        assert!("web-1".parse::<Slug>().is_ok());
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a--b",
            "1a",
            "a_b",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,300}") {
            if let Ok(name) = text.parse::<DomainName>() {
                prop_assert_eq!(name.as_str().parse::<DomainName>().unwrap(), name);
            }
            let _ = text.parse::<Slug>();
        }
    }
}
