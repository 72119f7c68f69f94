//! One running VM: spawn, adopt, continue, stop, end.
//!
//! ```text
//!  spawn(Boot) ───────────────► Running ◄──cont── Paused / IoError
//!  spawn(Paused) ─► Prelaunch ──cont──►│ ──stop─► Paused
//!  spawn(Incoming) ─► InMigrate ─► Paused         │ disk error ─► IoError
//!  Running ── powerdown, quit, kill, guest's own end ──► process gone
//! ```
//!
//! A VM is its process: it outlives us, and [`Vm::adopt`] finds it again, also in a folder that was
//! renamed since. QEMU locks its pid file, so two processes of one run folder cannot exist.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::command::{Begin, VmConfig, arguments};
use crate::files::RunDir;
use crate::process::{Exit, Process, ProcessId, Program};
use crate::qmp::{Event, Qmp, QmpError};

mod error;
mod plug;
mod slots;
mod state;
mod stats;

pub use error::VmError;
pub use plug::{DataDisk, NbdChild, Nic, Plugged};
pub use slots::{SlotContent, slot_of};
pub use state::{RunState, VmEvent};
pub use stats::{DiskStats, MemoryStats, Stats};

/// How long QEMU may take to open its monitor; generous, as emulated hosts are loaded.
const START_DEADLINE: Duration = Duration::from_secs(60);
const QUIT_DEADLINE: Duration = Duration::from_secs(10);

/// A running QEMU and our monitor connection to it.
#[derive(Clone, Debug)]
pub struct Vm {
    process: Process,
    qmp: Qmp,
    run_dir: RunDir,
    uuid: Uuid,
}

impl Vm {
    /// Starts QEMU and connects to it; the guest then does what `begin` says.
    ///
    /// Dying inside leaves either nothing or a VM that [`adopt`](Self::adopt) finds.
    pub async fn spawn(
        program: &Program,
        config: &VmConfig,
        begin: Begin,
    ) -> Result<Self, VmError> {
        let args = arguments(config, begin)?;
        for path in [
            &config.boot.kernel,
            &config.boot.initrd,
            &config.boot.root_image,
        ] {
            if !tokio::fs::try_exists(path).await? {
                return Err(VmError::ImageMissing { path: path.clone() });
            }
        }
        let run_dir = &config.run_dir;
        if let Some(id) = find(run_dir)? {
            return Err(VmError::AlreadyRuns { pid: id.pid });
        }
        run_dir.prepare(program.owner)?;
        let process = program.start(&args, &run_dir.log())?;
        let monitor = run_dir.qmp();
        let connected = tokio::select! {
            connected = Qmp::connect(&monitor, START_DEADLINE) => connected,
            exit = process.wait() => return Err(ended(exit, run_dir)),
        };
        match connected {
            Ok(qmp) => Ok(Self {
                process,
                qmp,
                run_dir: run_dir.clone(),
                uuid: config.uuid,
            }),
            // Its socket is there before its devices are: it may have failed at those.
            Err(QmpError::Closed) if process.wait_within(QUIT_DEADLINE).await => {
                Err(ended(process.wait().await, run_dir))
            }
            Err(error) => {
                process.kill().await?;
                Err(error.into())
            }
        }
    }

    /// Finds the VM that runs in `run_dir`, started by us or by a predecessor, without touching its
    /// guest. `None`: no such process. One with another identity is refused and left alone.
    pub async fn adopt(run_dir: &RunDir, uuid: Uuid) -> Result<Option<Self>, VmError> {
        let Some(id) = find(run_dir)? else {
            return Ok(None);
        };
        let process = Process::adopt(id);
        let qmp = Qmp::connect(&run_dir.qmp(), QUIT_DEADLINE).await?;
        let answer = qmp.execute("query-uuid", json!({})).await?;
        let found = answer["UUID"].as_str().and_then(|text| text.parse().ok());
        if found != Some(uuid) {
            return Err(VmError::OtherVm {
                pid: id.pid,
                wanted: uuid,
            });
        }
        let vm = Self {
            process,
            qmp,
            run_dir: run_dir.clone(),
            uuid,
        };
        vm.state().await?;
        Ok(Some(vm))
    }

    /// The process that runs in `run_dir`, if any: for the last resort of killing a VM whose
    /// monitor does not answer.
    pub fn find_process(run_dir: &RunDir) -> Result<Option<ProcessId>, VmError> {
        find(run_dir)
    }

    /// The same VM, whose run folder was renamed: its sockets go on under the new name.
    #[must_use]
    pub fn moved_to(&self, run_dir: RunDir) -> Self {
        Self {
            run_dir,
            ..self.clone()
        }
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its monitor, for commands that this crate does not wrap.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Its folder of sockets and logs; the guest agent answers at [`RunDir::agent`].
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// What QEMU says it is doing.
    pub async fn state(&self) -> Result<RunState, VmError> {
        let answer = self.qmp.execute("query-status", json!({})).await?;
        Ok(RunState::named(
            answer["status"].as_str().unwrap_or_default(),
        ))
    }

    /// Events from now on; see [`VmEvent::read`] for those that matter. Subscribe before asking
    /// for [`state`](Self::state), so that no change falls between the two.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.qmp.events()
    }

    /// Lets the guest run. Already running is success. After a disk error the failed requests are
    /// tried again, so the caller has committed the degraded state before.
    pub async fn cont(&self) -> Result<(), VmError> {
        self.command("cont").await
    }

    /// Holds the guest still. Already held is success.
    pub async fn stop(&self) -> Result<(), VmError> {
        self.command("stop").await
    }

    /// Tells the network, a few times within a second, that the guest's cards are here now: QEMU
    /// tells the switches, and the guest's kernel who has its addresses (ARP and neighbour
    /// advertisements). Harmless to repeat.
    pub async fn announce(&self) -> Result<(), VmError> {
        // Milliseconds: the first pause, the longest one, and by how much it grows.
        let pace = json!({"initial": 50, "max": 550, "rounds": 5, "step": 100});
        self.ask("announce-self", pace).await.map(drop)
    }

    /// Presses the guest's power button; whether it obeys shows in the process's end.
    pub async fn powerdown(&self) -> Result<(), VmError> {
        self.command("system_powerdown").await
    }

    /// Ends QEMU without asking the guest, and waits until the process is gone; by a kill when it
    /// does not obey. Repeating is harmless, also after a crash half-way.
    pub async fn quit(&self) -> Result<Exit, VmError> {
        let asked = self
            .qmp
            .execute_within("quit", json!({}), QUIT_DEADLINE)
            .await;
        // Its last answer may be lost with it.
        let obeys = matches!(asked, Ok(_) | Err(QmpError::Closed));
        if !(obeys && self.process.wait_within(QUIT_DEADLINE).await) {
            tracing::warn!(
                pid = self.process.id().pid,
                "QEMU does not quit; killing it"
            );
            return self.kill().await;
        }
        Ok(self.process.wait().await)
    }

    /// Ends the VM the friendly way: the power button, `grace` for the guest, then
    /// [`quit`](Self::quit). Repeating it presses the button again.
    pub async fn shut_down(&self, grace: Duration) -> Result<Exit, VmError> {
        // A held guest would not hear the button.
        let heard = self.state().await.is_ok_and(RunState::is_running);
        if heard && self.powerdown().await.is_ok() && self.process.wait_within(grace).await {
            return Ok(self.process.wait().await);
        }
        self.quit().await
    }

    /// Kills the process and waits until it is gone: nothing of it writes any more.
    pub async fn kill(&self) -> Result<Exit, VmError> {
        self.process.kill().await?;
        Ok(self.process.wait().await)
    }

    /// Waits for the process's end, whatever its reason.
    pub async fn wait(&self) -> Exit {
        self.process.wait().await
    }

    async fn command(&self, name: &str) -> Result<(), VmError> {
        self.ask(name, json!({})).await.map(drop)
    }

    async fn ask(&self, name: &str, arguments: Value) -> Result<Value, VmError> {
        Ok(self.qmp.execute(name, arguments).await?)
    }
}

fn find(run_dir: &RunDir) -> Result<Option<ProcessId>, VmError> {
    let pid_file = run_dir.pid_file();
    match ProcessId::find("-pidfile", &pid_file)? {
        Some(found) => Ok(Some(found)),
        // Its folder may have had another name when it started.
        None => Ok(ProcessId::holding(&pid_file)?),
    }
}

fn ended(exit: Exit, run_dir: &RunDir) -> VmError {
    VmError::Ended {
        exit,
        words: run_dir.last_words(),
    }
}
