//! What the command line of `up` says.

use anyhow::{Context, Result, bail, ensure};

/// What kind of store control uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// SQLite, embedded.
    Sqlite,
    /// A private PostgreSQL.
    Postgres,
}

/// What the command line of `up` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Hardware nodes.
    pub nodes: usize,
    /// Control instances.
    pub control: usize,
    /// Their store.
    pub store: StoreKind,
    /// Public doors.
    pub edges: usize,
    /// Leave it running and return.
    pub detach: bool,
    /// Install what is missing.
    pub install: bool,
    /// Make the demo servers and sites.
    pub demo: bool,
    /// Leave what was begun when something fails, to look at it.
    pub keep_failed: bool,
    /// The address that the first edge listens on; the second takes the next loopback address.
    pub listen: String,
    /// The port of plain HTTP at the edges.
    pub http_port: u16,
    /// The port of HTTPS at the edges.
    pub https_port: u16,
    /// The name that the demo sites and the panel are below.
    pub domain: String,
    /// The nodes' agent, when it is not the one that was built here.
    pub agent: Option<String>,
    /// What agents start instead of the storage daemon.
    pub storage_daemon: Option<String>,
}

/// How to use it.
pub const USAGE: &str = "usage: cargo xtask up [options]

  --nodes N             hardware nodes (default 3)
  --control N           control instances (default 1; more need --store postgres)
  --store KIND          sqlite (default) or postgres
  --edges N             public doors (default 2)
  --listen ADDRESS      the first edge's address (default 127.0.0.1)
  --http-port PORT      plain HTTP at the edges (default 8080)
  --https-port PORT     HTTPS at the edges (default 8443)
  --domain NAME         sites and panel live below it (default localhost)
  --agent PATH          a program that is the nodes' agent instead of the one built here
  --storage-daemon PATH a program that serves disks instead of qemu-storage-daemon
  --no-demo             no demo servers and sites
  --keep-failed         when something fails, leave what was begun, to look at it
  --no-install          only list what is missing
  --detach              leave it running and return";

impl Options {
    /// Reads the command line; none when only help was asked for.
    pub fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut options = Self {
            nodes: 3,
            control: 1,
            store: StoreKind::Sqlite,
            edges: 2,
            detach: false,
            install: true,
            demo: true,
            keep_failed: false,
            listen: "127.0.0.1".to_owned(),
            http_port: 8080,
            https_port: 8443,
            domain: "localhost".to_owned(),
            agent: None,
            storage_daemon: None,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value\n{USAGE}"))
            };
            match word.as_str() {
                "--nodes" => options.nodes = number(word, value()?)?,
                "--control" => options.control = number(word, value()?)?,
                "--edges" => options.edges = number(word, value()?)?,
                "--store" => options.store = store(value()?)?,
                "--listen" => options.listen.clone_from(value()?),
                "--http-port" => options.http_port = number(word, value()?)?,
                "--https-port" => options.https_port = number(word, value()?)?,
                "--domain" => options.domain.clone_from(value()?),
                "--agent" => options.agent = Some(value()?.clone()),
                "--storage-daemon" => options.storage_daemon = Some(value()?.clone()),
                "--detach" => options.detach = true,
                "--no-install" => options.install = false,
                "--no-demo" => options.demo = false,
                "--keep-failed" => options.keep_failed = true,
                "--help" | "-h" => return Ok(None),
                _ => bail!("`{word}` is not an option of up\n{USAGE}"),
            }
        }
        options.check()?;
        Ok(Some(options))
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=20).contains(&self.nodes), "--nodes takes 1 to 20");
        ensure!((1..=9).contains(&self.control), "--control takes 1 to 9");
        ensure!((1..=9).contains(&self.edges), "--edges takes 1 to 9");
        ensure!(
            self.control == 1 || self.store == StoreKind::Postgres,
            "several control instances need one store for all: add --store postgres"
        );
        Ok(())
    }
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T> {
    text.parse()
        .ok()
        .with_context(|| format!("{option} takes a number, not `{text}`"))
}

fn store(text: &str) -> Result<StoreKind> {
    match text {
        "sqlite" => Ok(StoreKind::Sqlite),
        "postgres" => Ok(StoreKind::Postgres),
        _ => bail!("--store takes sqlite or postgres, not `{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>> {
        Options::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn three_instances_share_a_postgres() {
        let options = parse("--control 3 --store postgres --detach")
            .unwrap()
            .unwrap();
        assert_eq!((options.control, options.store), (3, StoreKind::Postgres));
        assert!(
            parse("--control 3")
                .unwrap_err()
                .to_string()
                .contains("--store postgres")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for bad in [
            "--nodes",
            "--nodes many",
            "--nodes 0",
            "--what",
            "--store oracle",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("--help").unwrap().is_none());
    }
}
