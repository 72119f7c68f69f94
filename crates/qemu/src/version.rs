//! Which QEMU is installed: part of a template's key.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Why the version is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The program could not be started.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said something unexpected, or nothing.
    #[error("{} did not tell its version", program.display())]
    Unreadable {
        /// The program.
        program: PathBuf,
    },
}

/// The full version of a QEMU program with its packager's suffix, for example
/// `10.0.2 (Debian 1:10.0.2+ds-2)`: memory written by one build is only given back to the same.
pub async fn qemu_version(program: &Path) -> Result<String, VersionError> {
    let mut command = Command::new(program);
    command.arg("--version").kill_on_drop(true);
    let unreadable = || VersionError::Unreadable {
        program: program.to_owned(),
    };
    let output = timeout(Duration::from_secs(20), command.output())
        .await
        .map_err(|_| unreadable())?
        .map_err(|source| VersionError::Run {
            program: program.to_owned(),
            source,
        })?;
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(unreadable)
}

fn parse(output: &str) -> Option<String> {
    let (_, version) = output.lines().next()?.split_once(" version ")?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packagers_suffix_is_part_of_the_version() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright\n";
        assert_eq!(parse(debian).unwrap(), "10.0.2 (Debian 1:10.0.2+ds-2)");
        assert_eq!(parse("QEMU emulator version 9.1.0\n").unwrap(), "9.1.0");
        assert_eq!(parse("bash, version x"), None);
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = qemu_version(Path::new("/nonexistent/qemu"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot run /nonexistent/qemu");
    }
}
