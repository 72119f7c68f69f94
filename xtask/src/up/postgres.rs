//! A private PostgreSQL for control: own data directory and port, nobody else's cluster touched.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout;
use super::supervise::{self, Process};
use crate::command::{ask, command, output};

const PORT: u16 = 54_329;
/// Debian's package makes this user.
const USER: &str = "postgres";

/// Where control finds its store.
pub fn url() -> String {
    url_at(PORT)
}

fn url_at(port: u16) -> String {
    format!("postgres://undine@127.0.0.1:{port}/undine")
}

/// Sets it up when it is not there, starts it, waits until it answers.
pub fn ensure() -> Result<()> {
    let programs = programs()?;
    let data = layout::state("postgres");
    if !data.join("PG_VERSION").exists() {
        initialise(&programs, &data, PORT)?;
    }
    let log = layout::target().join("logs/postgres.log");
    supervise::keep(&[Process {
        name: "postgres".to_owned(),
        namespace: None,
        user: Some(USER.to_owned()),
        words: words(&programs, &data),
        environment: BTreeMap::new(),
        log: log.clone(),
    }])?;
    wait(&programs, PORT, &log)
}

fn words(programs: &Path, data: &Path) -> Vec<String> {
    vec![
        programs.join("postgres").display().to_string(),
        "-D".to_owned(),
        data.display().to_string(),
    ]
}

/// One of a bench's own, empty; it ends with the value, and its files go.
pub struct Own {
    process: Child,
    data: PathBuf,
    /// Where control finds its store.
    pub url: String,
}

impl Own {
    /// Starts it at a free port.
    pub fn start(name: &str) -> Result<Self> {
        let programs = programs()?;
        let data = layout::state(name);
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        initialise(&programs, &data, port)?;
        let log = data.with_extension("log");
        let mut start = as_user(&words(&programs, &data));
        start.stderr(fs::File::create(&log)?);
        let own = Self {
            process: start.spawn().context("PostgreSQL could not be started")?,
            data,
            url: url_at(port),
        };
        wait(&programs, port, &log)?;
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing in it is kept.
        let _ = ask("kill", &["-s", "QUIT", &self.process.id().to_string()]);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.data);
        let _ = fs::remove_file(self.data.with_extension("log"));
    }
}

/// The newest version that is installed.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_string_lossy().parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .map(|(_, bin)| bin)
        .context("PostgreSQL is not installed")
}

fn initialise(programs: &Path, data: &Path, port: u16) -> Result<()> {
    let _ = fs::remove_dir_all(data);
    fs::create_dir_all(data)?;
    output(&mut command("chown", [USER, &data.to_string_lossy()]))?;
    let initdb = programs.join("initdb").display().to_string();
    let folder = data.display().to_string();
    // Only this machine's own programs reach it: it listens on loopback alone.
    let words = [
        &initdb,
        "-D",
        &folder,
        "-U",
        "undine",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ];
    output(&mut as_user(&words.map(str::to_owned)))?;
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nsynchronous_commit = on\nfsync = on\nmax_connections = 200\nshared_buffers = 64MB\n"
    );
    let file = data.join("postgresql.conf");
    let text = fs::read_to_string(&file)? + &settings;
    fs::write(&file, text).with_context(|| format!("{} could not be written", file.display()))
}

fn as_user(words: &[String]) -> Command {
    let mut all = vec!["--reuid", USER, "--regid", USER, "--init-groups", "--"];
    all.extend(words.iter().map(String::as_str));
    let mut command = command("setpriv", all);
    command.current_dir("/");
    command
}

fn wait(programs: &Path, port: u16, log: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let port = port.to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-U", "undine"];
    let program = |name: &str| programs.join(name).display().to_string();
    let mut probe = at.to_vec();
    probe.extend([
        "-d",
        "postgres",
        "-Atc",
        "SELECT 1 FROM pg_database WHERE datname = 'undine'",
    ]);
    loop {
        match ask(&program("psql"), &probe) {
            Ok(found) if found.trim() == "1" => return Ok(()),
            Ok(_) => {
                let mut make = at.to_vec();
                make.push("undine");
                ask(&program("createdb"), &make)?;
            }
            Err(error) if Instant::now() > deadline => bail!(
                "PostgreSQL does not answer on port {port} ({error:#}); see {}",
                log.display()
            ),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
