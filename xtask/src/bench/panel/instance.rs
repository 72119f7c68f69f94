//! An instance of control of the bench's own: its state, its process, its crowd of customers.

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

/// How long it may take to answer for itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// The instance; it ends with the value.
pub struct Instance {
    process: Child,
    programs: PathBuf,
    folder: PathBuf,
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

impl Instance {
    /// A new cluster of one instance; the one of an earlier bench is removed.
    pub fn start(release: bool) -> Result<Self> {
        let kind = if release { "release" } else { "debug" };
        let programs = layout::checkout().join("target").join(kind);
        let folder = layout::checkout().join("target/bench/panel");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (address, inside) = (free()?, free()?.to_string());
        let state = folder.join("state");
        let state = state.to_string_lossy();
        let control = programs.join("undine-control");
        let store = url(&folder);
        let mut init = command(&control.to_string_lossy(), ["init", "--state-dir", &state]);
        init.args(["--store-url", &store, "--domain", "bench.localhost"]);
        output(init.args(["--internal-address", &inside]))?;
        let mut run = command(&control.to_string_lossy(), ["run", "--state-dir", &state]);
        run.args([
            "--api-listen",
            &address.to_string(),
            "--internal-listen",
            &inside,
        ]);
        run.stderr(fs::File::create(folder.join("control.log"))?);
        let process = run.spawn().context("undine-control could not be started")?;
        let instance = Self {
            process,
            programs,
            folder,
            address,
        };
        let (api, since) = (instance.api()?, Instant::now());
        while !api.is_up() {
            ensure!(
                since.elapsed() < PATIENCE,
                "control does not come up; see {}",
                instance.log().display()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(instance)
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says.
    pub fn log(&self) -> PathBuf {
        self.folder.join("control.log")
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its API, as the provider.
    pub fn api(&self) -> Result<Api> {
        let token = fs::read_to_string(self.folder.join("state/provider-token"))?;
        Api::at(&format!("http://{}", self.address), token.trim())
    }

    /// The owner's way in.
    pub fn owner_link(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("state/owner-link"))?)
    }

    /// Makes the accounts with these numbers, one site each.
    pub fn fill(&self, first: u32, last: u32) -> Result<()> {
        let crowd = self.programs.join("examples/crowd");
        let store = url(&self.folder);
        let words = [&store, &first.to_string(), &last.to_string()];
        output(&mut command(&crowd.to_string_lossy(), words)).map(drop)
    }
}

fn url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("control.db").display())
}
