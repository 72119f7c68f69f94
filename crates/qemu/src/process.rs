//! Processes that must outlive us: how they are started, found again, watched and killed.
//!
//! A process is known by its id **and** its start time, so that an id used again by the kernel is
//! never mistaken for it, and signals go through a pidfd taken after both were compared.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::files::Owner;

/// A process that cannot be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// The kernel's number.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub started_ticks: u64,
}

impl ProcessId {
    /// Reads the start time of a running process; `None` when there is none or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold spaces and brackets; the fixed fields follow the last one.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if matches!(fields.first(), None | Some(&"Z" | &"X")) {
            return None;
        }
        Some(Self {
            pid,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }

    /// The running process whose command line holds `option` followed by `value`.
    ///
    /// This is how a process is found whose starter died before it could write its id down.
    pub fn find(option: &str, value: &Path) -> io::Result<Option<Self>> {
        let wanted = [option.as_bytes(), value.as_os_str().as_bytes()];
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // Gone meanwhile: not the one.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            if words.windows(2).any(|pair| pair == wanted)
                && let Some(found) = Self::of(pid)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The running process that holds the lock of this file.
    pub fn holding(path: &Path) -> io::Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let wish = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
        let holder = rustix::process::fcntl_getlk(file, &wish)?.and_then(|lock| lock.pid);
        Ok(holder.and_then(|pid| Self::of(pid.as_raw_nonzero().get().unsigned_abs())))
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A handle to this very process; `None` when it is gone.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            // The handle is of whoever has the number now: compare only after taking it.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it at once. Already gone is success.
    pub fn kill(self) -> io::Result<()> {
        match self.open()?.map(|fd| pidfd_send_signal(fd, Signal::KILL)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Waits until it is gone (a zombie is gone).
    pub async fn gone(self) -> io::Result<()> {
        let Some(fd) = self.open()? else {
            return Ok(());
        };
        // A pidfd becomes readable when its process ends.
        #[expect(
            deprecated,
            reason = "unsound only for types that let go of their descriptor"
        )]
        let fd = AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)?;
        fd.readable().await.map(drop)
    }
}

/// How a process is to be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program's path.
    pub binary: PathBuf,
    /// Its user; ours when absent.
    pub owner: Option<Owner>,
    /// The control group folder it is put into right after its start.
    pub cgroup: Option<PathBuf>,
    /// Whether it dies with our handle to it. Servers never do; template builds and tests do.
    pub dies_with_us: bool,
}

impl Program {
    /// The program as our own user, living on without us.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            owner: None,
            cgroup: None,
            dies_with_us: false,
        }
    }

    /// Starts it with its output in `log`, in a process group of its own and a bare environment.
    ///
    /// Dying here leaves a running process that [`ProcessId::find`] finds by its arguments.
    pub(crate) fn start(&self, args: &[String], log: &Path) -> io::Result<Process> {
        let out = fs::File::create(log)?;
        if let Some(owner) = self.owner {
            owner.take(log)?;
        }
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(self.dies_with_us)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        if let Some(owner) = self.owner {
            command.gid(owner.gid).uid(owner.uid);
        }
        let mut child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process ended at once"))?;
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = fs::write(cgroup.join("cgroup.procs"), pid.to_string())
        {
            // Outside its group it would escape its limits.
            child.start_kill()?;
            return Err(error);
        }
        // A zombie has a start time too, but is not alive: then any value will do.
        let id = ProcessId::of(pid).unwrap_or(ProcessId {
            pid,
            started_ticks: 0,
        });
        Ok(Process::watch_child(id, child))
    }
}

/// How a process ended: its status when it was our child, nothing when it was adopted.
pub type Exit = Option<ExitStatus>;

/// A running process under watch. The watch ends with the last clone, the process does not
/// (unless it was started to die with us).
#[derive(Clone, Debug)]
pub struct Process {
    id: ProcessId,
    exit: watch::Receiver<Option<Exit>>,
    _watch: Arc<Watch>,
}

#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Process {
    fn watch_child(id: ProcessId, mut child: Child) -> Self {
        Self::watch(id, async move { child.wait().await.ok() })
    }

    /// Watches a process that someone else started.
    pub(crate) fn adopt(id: ProcessId) -> Self {
        Self::watch(id, async move {
            while let Err(error) = id.gone().await {
                tracing::warn!(%error, pid = id.pid, "cannot watch a process; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            None
        })
    }

    fn watch(id: ProcessId, end: impl Future<Output = Exit> + Send + 'static) -> Self {
        let (sender, exit) = watch::channel(None);
        let task = tokio::spawn(async move {
            let end = end.await;
            sender.send_replace(Some(end));
        });
        Self {
            id,
            exit,
            _watch: Arc::new(Watch(task.abort_handle())),
        }
    }

    /// Who it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.flatten(),
            // The runtime is going down; nobody will ever know.
            Err(_) => None,
        }
    }

    /// Waits for its end for at most `deadline`; tells whether it came.
    pub async fn wait_within(&self, deadline: Duration) -> bool {
        timeout(deadline, self.wait()).await.is_ok()
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&self) -> io::Result<()> {
        if self.exit().is_none() {
            self.id.kill()?;
            self.wait().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path, dies_with_us: bool) -> Process {
        let program = Program {
            dies_with_us,
            ..Program::new("/usr/bin/env")
        };
        // The marker is an argument of sleep's own (a second, tiny interval).
        let marker = format!("0.{}", std::process::id());
        let args = ["sleep", "60", &marker].map(str::to_owned);
        program.start(&args, &dir.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_killed_process_is_gone_for_its_starter_and_for_an_adopter() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path(), true);
        let adopted = Process::adopt(process.id());
        assert!(process.id().is_alive());
        assert!(!adopted.wait_within(Duration::from_millis(50)).await);
        process.kill().await.unwrap();
        assert!(adopted.wait_within(Duration::from_secs(5)).await);
        assert!(!process.id().is_alive());
        adopted.kill().await.unwrap();
    }

    #[tokio::test]
    async fn a_process_lives_on_without_its_handle_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path(), false);
        let id = process.id();
        drop(process);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(id.is_alive());
        id.kill().unwrap();
        let doomed = sleeper(dir.path(), true);
        let id = doomed.id();
        drop(doomed);
        timeout(Duration::from_secs(5), id.gone())
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_reused_number_is_not_the_same_process() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let impostor = ProcessId {
            started_ticks: own.started_ticks + 1,
            ..own
        };
        assert!(own.is_alive() && !impostor.is_alive());
        // Would end the test if it hit us.
        impostor.kill().unwrap();
        impostor.gone().await.unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_by_an_option_of_its_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path(), true);
        let marker = PathBuf::from(format!("0.{}", std::process::id()));
        let mut found = None;
        // Between fork and exec it still has our own command line.
        for _ in 0..100 {
            found = ProcessId::find("60", &marker).unwrap();
            if found.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(found, Some(process.id()));
        assert_eq!(
            ProcessId::find("60", Path::new("no such word")).unwrap(),
            None
        );
    }
}
