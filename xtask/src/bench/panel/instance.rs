//! Instances of control of the bench's own: their state, their processes, their crowd of customers.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::api::Api;
use crate::command::{command, output};
use crate::up::layout;
use crate::up::postgres::Own;

/// How long one may take to answer for itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Instances over one store; they end with the value, before the store does.
pub struct Instances {
    all: Vec<Instance>,
    programs: PathBuf,
    folder: PathBuf,
    store: String,
    _postgres: Option<Own>,
}

struct Instance {
    process: Child,
    address: SocketAddr,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody listens at.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Instances {
    /// A new cluster of one instance; what an earlier bench left is removed.
    pub fn start(release: bool, postgres: bool) -> Result<Self> {
        let kind = if release { "release" } else { "debug" };
        let folder = layout::checkout().join("target/bench/panel");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let postgres = postgres.then(|| Own::start("bench-postgres")).transpose()?;
        let file = format!("sqlite://{}", folder.join("control.db").display());
        let mut instances = Self {
            all: Vec::new(),
            programs: layout::checkout().join("target").join(kind),
            store: postgres.as_ref().map_or(file, |it| it.url.clone()),
            folder,
            _postgres: postgres,
        };
        let inside = free()?.to_string();
        let store = instances.store.clone();
        let mut init = instances.control("init", 1);
        init.args(["--store-url", &store, "--domain", "bench.localhost"]);
        output(init.args(["--internal-address", &inside]))?;
        instances.run(1, &inside)?;
        Ok(instances)
    }

    /// One more joins, while the others serve.
    pub fn join(&mut self) -> Result<()> {
        let number = self.all.len() + 1;
        let mut token = command(
            &self.program("undine-control"),
            ["token", "control", "--state-dir", &self.state(1)],
        );
        let token = output(&mut token)?;
        let inside = free()?.to_string();
        let mut join = self.control("join", number);
        join.args(["--name", &format!("control-{number}")]);
        output(join.args(["--internal-address", &inside, token.trim()]))?;
        self.run(number, &inside)
    }

    fn run(&mut self, number: usize, inside: &str) -> Result<()> {
        let address = free()?;
        let mut run = self.control("run", number);
        run.args(["--api-listen", &address.to_string()]);
        run.args(["--internal-listen", inside]);
        run.stderr(fs::File::create(self.log(number))?);
        let process = run.spawn().context("undine-control could not be started")?;
        self.all.push(Instance { process, address });
        let since = Instant::now();
        while !self.api(number)?.is_up() {
            ensure!(
                since.elapsed() < PATIENCE,
                "control does not come up; see {}",
                self.log(number).display()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn control(&self, what: &str, number: usize) -> std::process::Command {
        let state = self.state(number);
        command(
            &self.program("undine-control"),
            [what, "--state-dir", &state],
        )
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).to_string_lossy().into_owned()
    }

    fn state(&self, number: usize) -> String {
        let folder = self.folder.join(format!("state-{number}"));
        folder.to_string_lossy().into_owned()
    }

    /// Where they keep everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What one says.
    pub fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("control-{number}.log"))
    }

    /// Where they answer.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|it| it.address).collect()
    }

    /// Where the first answers.
    pub fn address(&self) -> SocketAddr {
        self.all[0].address
    }

    /// The API of one, as the provider.
    pub fn api(&self, number: usize) -> Result<Api> {
        let token = fs::read_to_string(self.folder.join("state-1/provider-token"))?;
        let address = self.all[number - 1].address;
        Api::at(&format!("http://{address}"), token.trim())
    }

    /// The owner's way in.
    pub fn owner_link(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("state-1/owner-link"))?)
    }

    /// Makes the accounts with these numbers, one site each.
    pub fn fill(&self, first: u32, last: u32) -> Result<()> {
        let words = [&self.store, &first.to_string(), &last.to_string()];
        output(&mut command(&self.program("examples/crowd"), words)).map(drop)
    }
}
