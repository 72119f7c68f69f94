//! Debian's packages through an apt of our own: its lists, its state and its sources live in the
//! build folder, so neither what the building machine has installed nor how it is configured
//! changes an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::definition::{Archive, Definition};
use super::tools;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Addresses of Debian's archives.
#[derive(Debug, Clone)]
pub struct Mirrors {
    debian: String,
    security: String,
}

impl Mirrors {
    /// The mirror asked for, else the one that this machine uses itself.
    pub fn choose(wanted: Option<&str>) -> Result<Self> {
        if let Some(wanted) = wanted {
            return Self::beside(wanted);
        }
        let output = Command::new("apt-get")
            .args([
                "indextargets",
                "--format",
                "$(REPO_URI)\t$(LABEL)",
                "Created-By: Packages",
            ])
            .output()
            .context("apt-get cannot be started")?;
        Self::of_machine(&String::from_utf8_lossy(&output.stdout))
    }

    /// Mirrors keep the security archive beside the main one.
    fn beside(wanted: &str) -> Result<Self> {
        let debian = wanted.trim_end_matches('/').to_owned();
        ensure!(
            debian.starts_with("http://") || debian.starts_with("https://"),
            "the mirror {wanted:?} is no http address"
        );
        let security = format!("{debian}-security");
        Ok(Self { debian, security })
    }

    fn of_machine(targets: &str) -> Result<Self> {
        let find = |wanted: &str| {
            targets
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .find(|(_, label)| *label == wanted)
                .map(|(address, _)| address.trim_end_matches('/').to_owned())
        };
        let debian = find("Debian")
            .context("this machine's apt knows no Debian mirror: name one with --mirror URL")?;
        let security = find("Debian-Security").unwrap_or_else(|| format!("{debian}-security"));
        Ok(Self { debian, security })
    }

    /// The `sources.list` lines of a definition.
    pub fn sources(&self, definition: &Definition) -> Vec<String> {
        let components = definition.components.join(" ");
        let line = |entry: &super::definition::Suite| {
            let address = match entry.archive {
                Archive::Debian => &self.debian,
                Archive::DebianSecurity => &self.security,
            };
            format!(
                "deb [signed-by={KEYRING}] {address} {} {components}",
                entry.suite
            )
        };
        definition.suites.iter().map(line).collect()
    }
}

/// A package at a version.
pub type Package = (String, String);

/// The private apt.
pub struct Apt {
    folder: PathBuf,
    log: PathBuf,
}

impl Apt {
    /// Sets up a private apt and fetches the package lists.
    pub fn open(
        folder: &Path,
        definition: &Definition,
        mirrors: &Mirrors,
        log: &Path,
    ) -> Result<Self> {
        for sub in ["state/lists/partial", "cache/archives/partial", "download"] {
            std::fs::create_dir_all(folder.join(sub))
                .context("the build folder is not writable")?;
        }
        let place = folder.display();
        let settings = [
            format!("Dir \"{place}\";"),
            format!("Dir::State \"{place}/state\";"),
            format!("Dir::State::status \"{place}/status\";"),
            format!("Dir::Cache \"{place}/cache\";"),
            format!("Dir::Etc::sourcelist \"{place}/sources.list\";"),
            "Dir::Etc::sourceparts \"-\";".to_owned(),
            format!("APT::Architecture \"{}\";", definition.architecture),
            format!("APT::Architectures {{ \"{}\"; }};", definition.architecture),
            "APT::Install-Recommends \"false\";".to_owned(),
            "APT::Sandbox::User \"root\";".to_owned(),
            "APT::Update::Error-Mode \"any\";".to_owned(),
            "Acquire::Languages \"none\";".to_owned(),
            "Acquire::Retries \"2\";".to_owned(),
            "Acquire::http::Timeout \"20\";".to_owned(),
            "Acquire::https::Timeout \"20\";".to_owned(),
        ];
        std::fs::write(folder.join("apt.conf"), settings.join("\n") + "\n")?;
        std::fs::write(folder.join("status"), "")?;
        std::fs::write(
            folder.join("sources.list"),
            mirrors.sources(definition).join("\n") + "\n",
        )?;
        let apt = Self {
            folder: folder.to_path_buf(),
            log: log.to_path_buf(),
        };
        tools::run(
            "apt-get update",
            apt.command().arg("update"),
            log,
            &mut |_| {},
        )?;
        Ok(apt)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .current_dir(self.folder.join("download"))
            .arg("-q");
        command
    }

    /// What would be installed into an empty root for these names, sorted.
    pub fn resolve(&self, names: &[&str]) -> Result<Vec<Package>> {
        let mut found = Vec::new();
        let mut command = self.command();
        command
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(names);
        tools::run(
            "apt-get install --simulate",
            &mut command,
            &self.log,
            &mut |line| {
                found.extend(installed(line));
            },
        )?;
        found.sort();
        found.dedup();
        ensure!(!found.is_empty(), "apt found nothing to install");
        Ok(found)
    }

    /// Fetches one package at one version and unpacks it.
    pub fn unpack(&self, package: &Package, to: &Path) -> Result<()> {
        let wanted = format!("{}={}", package.0, package.1);
        let mut command = self.command();
        tools::run(
            "apt-get download",
            command.args(["download", &wanted]),
            &self.log,
            &mut |_| {},
        )?;
        let start = format!("{}_", package.0);
        let file = std::fs::read_dir(self.folder.join("download"))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(&start))
            });
        let Some(file) = file else {
            bail!("apt-get did not fetch {wanted}")
        };
        tools::run(
            "dpkg-deb",
            Command::new("dpkg-deb").arg("-x").arg(&file).arg(to),
            &self.log,
            &mut |_| {},
        )?;
        std::fs::remove_file(file)?;
        Ok(())
    }
}

/// `Inst NAME (VERSION …)` lines of a simulated installation.
fn installed(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    // An upgrade would show the old version between name and bracket; the root is empty.
    let version = rest.split([' ', ')']).next()?;
    Some((name.trim().to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_installations_are_read() {
        let line = "Inst libc6 (2.36-9+deb12u10 Debian:12.11/stable [amd64]) []";
        assert_eq!(
            installed(line),
            Some(("libc6".to_owned(), "2.36-9+deb12u10".to_owned()))
        );
        assert_eq!(
            installed("Conf libc6 (2.36-9 Debian:12.11/stable [amd64])"),
            None
        );
    }

    #[test]
    fn the_machine_s_own_mirror_is_used() {
        let targets = "http://other/backports/\tDebian Backports\nhttp://m/debian/\tDebian\n";
        let mirrors = Mirrors::of_machine(targets).unwrap();
        assert_eq!(mirrors.debian, "http://m/debian");
        assert_eq!(mirrors.security, "http://m/debian-security");
    }

    #[test]
    fn a_machine_without_a_debian_mirror_is_told_the_remedy() {
        let error = Mirrors::of_machine("").unwrap_err();
        assert!(error.to_string().contains("--mirror"), "{error}");
        assert!(Mirrors::choose(Some("ftp://m/debian")).is_err());
    }

    #[test]
    fn sources_name_every_suite_with_its_archive() {
        let text = super::super::definition::tests::SMALL.replace(
            "suites = [",
            "suites = [{ suite = \"bookworm-security\", archive = \"debian-security\" }, ",
        );
        let definition = Definition::parse(&text).unwrap();
        let sources = Mirrors::beside("http://m/debian/")
            .unwrap()
            .sources(&definition);
        assert!(sources[0].ends_with("http://m/debian-security bookworm-security main"));
        assert!(sources[1].ends_with("http://m/debian bookworm main"));
    }
}
