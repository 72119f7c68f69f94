//! A private PostgreSQL for tests: a server a process, started at its first use, a database a
//! test. It listens on a Unix socket only, forgets everything, and ends with the last database,
//! after a panic too; when the test process is killed, the kernel ends it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MISSING: &str = "PostgreSQL is not installed; run `apt-get install postgresql postgresql-client` and test again";
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty database of its own.
pub struct TestDatabase {
    url: String,
    server: Arc<Server>,
}

impl TestDatabase {
    /// Makes one, on the server that this process shares.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start: the message says what to do.
    pub fn new() -> Self {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start());
            *shared = Arc::downgrade(&server);
            server
        });
        drop(shared);
        Self {
            url: server.create_database(),
            server,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server that it is on.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl Default for TestDatabase {
    fn default() -> Self {
        Self::new()
    }
}

/// A server of its own; ended and removed when dropped.
pub struct Server {
    tools: Tools,
    folder: PathBuf,
    running: Mutex<Option<Running>>,
}

struct Running {
    pid: u32,
    waiter: JoinHandle<Option<ExitStatus>>,
}

impl Server {
    /// Starts an empty server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        let tools = Tools::find();
        let folder = new_folder(&tools);
        let template = tools.template();
        must(
            Command::new("cp")
                .arg("-a")
                .arg(template)
                .arg(folder.join("data")),
            "cp",
        );
        let server = Self {
            tools,
            folder,
            running: Mutex::new(None),
        };
        server.resume();
        server
    }

    /// Starts a standby that follows this server and takes no writes until promoted.
    pub fn start_standby(&self) -> Self {
        let folder = new_folder(&self.tools);
        let mut copy = self.tools.unprivileged("pg_basebackup");
        copy.args([
            "--username=postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ])
        .args(["--no-sync", "--wal-method=stream"])
        .arg(format!("--host={}", self.folder.display()))
        .arg(format!("--pgdata={}", folder.join("data").display()));
        must(&mut copy, "pg_basebackup");
        let server = Self {
            tools: Tools::find(),
            folder,
            running: Mutex::new(None),
        };
        server.resume();
        server
    }

    /// Makes a standby take writes.
    pub fn promote(&self) {
        let mut promote = self.tools.unprivileged("pg_ctl");
        must(
            promote
                .arg("promote")
                .arg("--pgdata")
                .arg(self.folder.join("data")),
            "pg_ctl",
        );
    }

    /// What a query of one value gives on this server, a standby included.
    pub fn replayed(&self, database: &str, query: &str) -> Option<String> {
        let output = Command::new(self.tools.path("psql"))
            .args([
                "--username=postgres",
                "--tuples-only",
                "--no-align",
                "--command",
                query,
            ])
            .arg(format!("--host={}", self.folder.display()))
            .arg(database)
            .output()
            .ok()?;
        let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !value.is_empty()).then_some(value)
    }

    /// Ends the server at once, as a power loss would; [`Server::resume`] starts it again.
    pub fn kill(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            // QUIT is PostgreSQL's immediate shutdown: its children end too.
            let _ = Command::new("kill")
                .arg("-QUIT")
                .arg(running.pid.to_string())
                .status();
            let _ = running.waiter.join();
        }
    }

    /// Starts the server (again) on what is on its disk.
    ///
    /// # Panics
    /// When it does not answer within a minute.
    pub fn resume(&self) {
        self.kill();
        let running = self.tools.serve(&self.folder);
        let begun = Instant::now();
        while !self.answers() {
            assert!(
                !running.waiter.is_finished() && begun.elapsed() < PATIENCE,
                "PostgreSQL did not start:\n{}",
                fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.host())
    }

    /// The host part of its URLs.
    pub fn host(&self) -> String {
        self.folder.display().to_string().replace('/', "%2F")
    }

    /// Makes an empty database and returns its URL.
    pub fn create_database(&self) -> String {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", LAST.fetch_add(1, Ordering::Relaxed));
        let mut create = Command::new(self.tools.path("createdb"));
        create
            .arg("--username=postgres")
            .arg(format!("--host={}", self.folder.display()));
        must(create.arg(&name), "createdb");
        self.url(&name)
    }

    fn answers(&self) -> bool {
        Command::new(self.tools.path("pg_isready"))
            .args(["--quiet", "--timeout=1"])
            .arg(format!("--host={}", self.folder.display()))
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where PostgreSQL's programs are and as whom they run: it refuses to run as root.
struct Tools {
    bin: PathBuf,
    user: Option<&'static str>,
}

impl Tools {
    fn find() -> Self {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.parse().ok()?;
                let bin = entry.path().join("bin");
                bin.join("initdb").exists().then_some((version, bin))
            })
            .collect();
        versions.sort();
        let (_, bin) = versions.pop().unwrap_or_else(|| panic!("{MISSING}"));
        let root = fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt;
            own.uid() == 0
        });
        // The package brings the user; nobody else's files are his.
        Self {
            bin,
            user: root.then_some("postgres"),
        }
    }

    fn path(&self, tool: &str) -> PathBuf {
        self.bin.join(tool)
    }

    /// One of the programs, as the unprivileged user, ended when its parent thread ends.
    fn unprivileged(&self, tool: &str) -> Command {
        let mut command = Command::new("setpriv");
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command
            .args(["--pdeathsig", "QUIT", "--"])
            .arg(self.path(tool))
            .current_dir("/");
        command
    }

    /// Runs the server. The kernel tells it when its parent *thread* ends, so that thread lives
    /// as long as it does.
    fn serve(&self, folder: &Path) -> Running {
        let mut command = self.unprivileged("postgres");
        command.arg("-D").arg(folder.join("data"));
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={}", folder.display()));
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=16MB",
            "max_connections=120",
            "autovacuum=off",
        ] {
            command.args(["-c", setting]);
        }
        let log = File::create(folder.join("log")).expect("the folder is ours");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let (tell, told) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => panic!("setpriv cannot be run: {error}"),
            };
            let _ = tell.send(child.id());
            child.wait().ok()
        });
        Running {
            pid: told.recv().expect("setpriv starts"),
            waiter,
        }
    }

    /// A folder as `initdb` leaves it, made once on this machine and copied from then on.
    fn template(&self) -> PathBuf {
        let uid = self.user.unwrap_or("own");
        let version = self.bin.to_string_lossy().replace('/', "-");
        let place = std::env::temp_dir().join(format!("ut-postgres{version}-{uid}"));
        let lock = File::create(place.with_extension("lock")).expect("a lock file can be made");
        lock.lock().expect("the lock file can be locked");
        if !place.exists() {
            let partial = new_folder(self);
            let mut init = self.unprivileged("initdb");
            init.args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .args(["--no-sync", "--wal-segsize=1", "--pgdata"])
            .arg(partial.join("data"));
            must(&mut init, "initdb");
            fs::rename(partial.join("data"), &place).expect("both are in the same folder");
            let _ = fs::remove_dir_all(partial);
        }
        place
    }
}

/// A new folder that the unprivileged user owns.
fn new_folder(tools: &Tools) -> PathBuf {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("ut-pg-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder for PostgreSQL can be made");
    if let Some(user) = tools.user {
        must(Command::new("chown").arg(user).arg(&folder), "chown");
    }
    folder
}

fn must(command: &mut Command, tool: &str) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{tool} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{tool} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
