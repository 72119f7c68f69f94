//! Export names: `<server>-e<epoch>-<incarnation>`.
//!
//! QEMU's NBD client reconnects by itself. A name that changes with the owner's epoch and with
//! every start of the daemon is what keeps it from silently rejoining a replica that lost writes.

use std::fmt;
use std::str::FromStr;

/// The name of one export.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportName {
    server: String,
    epoch: u64,
    incarnation: String,
}

/// Why a text is no export name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no export name of the form <server>-e<epoch>-<incarnation>")]
pub struct ExportNameError {
    text: String,
}

impl ExportName {
    /// Puts a name together. `server` holds letters, digits and hyphens, `incarnation` letters and
    /// digits; both at most 40 characters.
    pub fn new(server: &str, epoch: u64, incarnation: &str) -> Result<Self, ExportNameError> {
        let alnum = |c: char| c.is_ascii_alphanumeric();
        let sized = |part: &str| (1..=40).contains(&part.len());
        let good = sized(server)
            && sized(incarnation)
            && server.chars().all(|c| alnum(c) || c == '-')
            && incarnation.chars().all(alnum);
        if !good {
            return Err(ExportNameError {
                text: format!("{server}-e{epoch}-{incarnation}"),
            });
        }
        Ok(Self {
            server: server.to_owned(),
            epoch,
            incarnation: incarnation.to_owned(),
        })
    }

    /// The owner's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Which start of the daemon it belongs to.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The export's id inside the daemon; those must begin with a letter.
    pub(super) fn id(&self) -> String {
        format!("x.{self}")
    }

    pub(super) fn is_id(id: &str) -> bool {
        id.starts_with("x.")
    }

    pub(super) fn from_id(id: &str) -> Result<Self, ExportNameError> {
        id.strip_prefix("x.").unwrap_or_default().parse()
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-e{}-{}", self.server, self.epoch, self.incarnation)
    }
}

impl FromStr for ExportName {
    type Err = ExportNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (rest, incarnation) = text.rsplit_once('-')?;
            let (server, epoch) = rest.rsplit_once("-e")?;
            let epoch = epoch.parse().ok()?;
            Self::new(server, epoch, incarnation)
                .ok()
                .filter(|name| name.to_string() == text)
        };
        parse().ok_or_else(|| ExportNameError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_it_was_written() {
        for server in ["web-1", "a-e5-b", "0192f0c1-7d1a-7000-8000-0123456789ab"] {
            let name = ExportName::new(server, 12, "9f3a").unwrap();
            assert_eq!(name.to_string(), format!("{server}-e12-9f3a"));
            assert_eq!(name.to_string().parse(), Ok(name.clone()));
            assert_eq!(ExportName::from_id(&name.id()), Ok(name));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "web-1",
            "web-1-e-1",
            "web-1-e01-a",
            "web-1-e+1-a",
            "-e1-",
            "w b-e1-a",
        ] {
            assert!(text.parse::<ExportName>().is_err(), "{text}");
        }
        assert!(ExportName::new("a/b", 1, "c").is_err());
        assert!(ExportName::new("a", 1, "c-d").is_err());
    }
}
