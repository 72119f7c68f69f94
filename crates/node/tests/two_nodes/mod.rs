//! Two nodes' replicas and one server, with the disk's keeper between them and the test in
//! control's place.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use undine_api::node::{
    JoinMethod, JoinSpec, JoinState, JoinStatus, ReplicaKey, ReplicaSpec, ReplicaStatus,
    ReplicaTarget, ScrubSpec, ScrubState, ScrubStatus, SlotState, SlotStatus, SlotsSpec,
};
use undine_link::{ControlClient, Credentials};
use undine_model::{Bytes, NodeId, OperationId, ReplicaId, ServerId};
use undine_node::blobs::Blobs;
use undine_node::cgroup::{Cgroup, Mounts};
use undine_node::guard_file::{GuardFile, Guarded};
use undine_node::host::{Choice, Host, STORAGE_DAEMON};
use undine_node::images::Images;
use undine_node::replicas::{self, Replicas};
use undine_node::report::Changed;
use undine_node::server::disk::record::{DiskRecord, Slot};
use undine_node::server::disk::{Keeper, Shared, Start, Wish, keep};
use undine_node::server::{Ground, start};
use undine_node::settings::server_folder;
use undine_node::spares::Spares;
use undine_node::templates::Templates;
use undine_node::terms::Terms;
use undine_node::uids::Uids;
use undine_qemu::accel::Accel;
use undine_qemu::command::{Begin, DEFAULT_MACHINE, Shape, VmConfig};
use undine_qemu::files::RunDir;
use undine_qemu::process::Program;
use undine_qemu::vm::{DataDisk, RunState, Vm};

use crate::guest::{self, Agent};

mod scrub;

const EPOCH: u64 = 3;
const SIZE: Bytes = Bytes(64 << 20);
/// The owner's own replica.
pub fn own_id() -> ReplicaId {
    ReplicaId::from_parts(1, [1; 10])
}
/// The other node's.
pub fn other_id() -> ReplicaId {
    ReplicaId::from_parts(1, [2; 10])
}
/// Nobody's.
pub fn stranger_id() -> ReplicaId {
    ReplicaId::from_parts(1, [3; 10])
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A node's folders; every process of its is killed at the end, however that comes.
struct Folders(TempDir, bool);

impl Folders {
    /// Gives the replicas a small file system of their own.
    fn shrink(&mut self, room_mib: u32) -> bool {
        let folder = self.0.path().join("replicas");
        std::fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={room_mib}m,mode=755")]);
        self.1 = mount
            .args(["tmpfs"])
            .arg(folder)
            .status()
            .is_ok_and(|status| status.success());
        self.1
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if self.1 {
            // Lazily: a daemon that is being killed may still have its file open.
            let mut unmount = Command::new("umount");
            let _ = unmount
                .arg("-l")
                .arg(self.0.path().join("replicas"))
                .status();
        }
        for kind in ["vm", "disk", "join"] {
            let folders = std::fs::read_dir(self.0.path().join("r").join(kind));
            for folder in folders.into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(folder.path().join("process.pid"));
                if let Some(pid) = text.ok().and_then(|text| text.trim().parse().ok())
                    && let Some(process) = undine_qemu::process::ProcessId::of(pid)
                {
                    let _ = process.kill();
                }
            }
        }
    }
}

async fn ground(folders: &Folders, number: u8, first_port: u16) -> Arc<Ground> {
    let state_dir = folders.0.path().to_owned();
    let open = std::fs::Permissions::from_mode(0o711);
    let run_dir = state_dir.join("r");
    for folder in [
        &state_dir,
        &run_dir,
        &run_dir.join("vm"),
        &run_dir.join("disk"),
        &run_dir.join("join"),
        &state_dir.join("cgroup"),
    ] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::set_permissions(folder, open.clone()).unwrap();
    }
    let uids = Arc::new(Uids::open(&state_dir, 64_300 + 100 * u32::from(number), 50).unwrap());
    let cgroup = Cgroup::new(Mounts::V2(state_dir.join("cgroup")), "undine/test");
    let nobody = Credentials {
        key: String::new(),
        certificate: String::new(),
        ca: String::new(),
    };
    let control = ControlClient::new(nobody, &[]).unwrap();
    let images = Images::open(state_dir.join("images"), Arc::new(Blobs::new(control)));
    let changed = Changed::default();
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), 1));
    let replicas = Replicas::open(replicas::Ground {
        state_dir: state_dir.clone(),
        run_dir: run_dir.clone(),
        uids: uids.clone(),
        cgroup: cgroup.clone(),
        address,
        first_port,
        changed: changed.clone(),
        storage_daemon: STORAGE_DAEMON.into(),
    });
    let spares = Spares::open(&run_dir, uids.clone(), &cgroup, 0)
        .await
        .unwrap();
    let templates = Templates::open(
        state_dir.join("templates"),
        run_dir.clone(),
        uids.clone(),
        cgroup.clone(),
    );
    let choice = Choice::Fixed(Accel::Tcg);
    Arc::new(Ground {
        node: NodeId::from_parts(1, [number; 10]),
        address,
        edges: vec![],
        host: Host::open(&state_dir, choice).await.unwrap(),
        replicas: replicas.await.unwrap(),
        guarded: GuardFile::open(&state_dir),
        terms: Terms::open(&state_dir).unwrap(),
        state_dir,
        run_dir,
        cgroup,
        uids,
        images: Arc::new(images.unwrap()),
        templates: templates.unwrap(),
        spares,
        network: None,
        changed,
    })
}

fn spec(replica: ReplicaId, remote: bool, tls: bool) -> ReplicaSpec {
    ReplicaSpec {
        replica,
        epoch: EPOCH,
        size: SIZE,
        create: false,
        accept_stale: false,
        remote,
        resync: false,
        tls,
        committed: None,
    }
}

/// A server with its own replica and one on another node.
pub struct Pair {
    pub vm: Vm,
    pub agent: Agent,
    /// The key of the other replica's first opening.
    pub first_key: Option<ReplicaKey>,
    own: Arc<Ground>,
    other: Arc<Ground>,
    server: ServerId,
    tls: bool,
    keeper: Option<Keeper>,
    rotate_every: Duration,
    slots: watch::Receiver<Vec<SlotStatus>>,
    told: watch::Sender<Vec<SlotStatus>>,
    _folders: [Folders; 2],
}

impl Pair {
    /// None where no guest can be made, or its processes cannot run as their own users.
    pub async fn start(tls: bool) -> Option<Self> {
        Self::start_with(tls, None).await
    }

    /// The same; the other node's disk has room for so many MiB only.
    pub async fn start_with(tls: bool, room_mib: Option<u32>) -> Option<Self> {
        let boot = guest::boot()?;
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can start processes as other users");
            return None;
        }
        undine_link::install_crypto();
        let mut folders = [(); 2].map(|()| Folders(tempfile::tempdir().unwrap(), false));
        if let Some(room_mib) = room_mib
            && !folders[1].shrink(room_mib)
        {
            println!("skipped: nothing can be mounted here");
            return None;
        }
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let own = ground(&folders[0], 1, 1).await;
        let other = ground(&folders[1], 2, port).await;
        let server = ServerId::from_parts(1, rand::random());
        let new = |spec| ReplicaSpec {
            create: true,
            ..spec
        };
        let mine = new(spec(own_id(), false, tls));
        let mine = own.replicas.put(server, &mine).await.unwrap();
        let theirs = new(spec(other_id(), true, tls));
        let theirs = other.replicas.put(server, &theirs).await.unwrap();
        assert_eq!(theirs.key.is_some(), tls);
        let first_key = theirs.key.clone();
        let targets = [(&own, mine), (&other, theirs)].map(|(ground, status)| ReplicaTarget {
            node: ground.node,
            replica: status.replica,
            export: status.export.unwrap(),
            address: status.address,
            key: status.key,
        });
        let config = VmConfig {
            name: "web-1".into(),
            uuid: server.uuid(),
            shape: Shape {
                memory_mib: 128,
                vcpus: 1,
                machine: DEFAULT_MACHINE.into(),
                cpu: "qemu64".into(),
                accel: Accel::Tcg,
                tb_size_mib: 32,
            },
            boot,
            run_dir: RunDir::new(undine_node::settings::vm_run_folder(&own.run_dir, server)),
        };
        // As root: the guest's kernel lies where other users may not read.
        let program = Program::new("qemu-system-x86_64");
        let vm = Vm::spawn(&program, &config, Begin::Boot).await.unwrap();
        let mut agent = Agent::connect(&vm.run_dir().agent()).await;
        assert_eq!(agent.hear().await, "ready");
        let mut children = Vec::new();
        for target in &targets {
            children.push(start::child(&own, server, target).await.unwrap());
        }
        vm.attach_data(&DataDisk::full(children)).await.unwrap();
        agent.ask_until("disks", "undine-data").await;
        std::fs::create_dir_all(server_folder(&own.state_dir, server)).unwrap();
        let record = DiskRecord {
            epoch: EPOCH,
            version: 5,
            covered: vec![own_id(), other_id()],
            base: targets[0].export.clone(),
            slots: targets
                .into_iter()
                .map(|target| Slot {
                    target: Some(target),
                    ..Slot::default()
                })
                .collect(),
            ..DiskRecord::default()
        };
        let (told, slots) = watch::channel(Vec::new());
        let mut pair = Self {
            vm,
            agent,
            first_key,
            own,
            other,
            server,
            tls,
            keeper: None,
            rotate_every: Duration::from_secs(300),
            slots,
            told,
            _folders: folders,
        };
        pair.keep(record, false);
        Some(pair)
    }

    fn keep(&mut self, record: DiskRecord, adopted: bool) {
        self.keeper = Some(keep(Start {
            ground: self.own.clone(),
            server: self.server,
            vm: self.vm.clone(),
            record,
            told: self.told.clone(),
            rotate_every: self.rotate_every,
            adopted,
        }));
    }

    /// The user of the server's VM on its own node.
    pub fn vm_user(&self) -> u32 {
        let holder = undine_node::replicas::vm_holder(self.server);
        self.own.uids.take(&holder).unwrap()
    }

    /// The VM is forgotten; its disk stays.
    pub fn forget_vm(&mut self) {
        self.keeper = None;
        std::fs::remove_dir_all(server_folder(&self.own.state_dir, self.server)).unwrap();
        self.own.replicas.vm_left(self.server);
    }

    /// The own node's copy goes as well.
    pub async fn remove_own(&self) {
        let removed = self.own.replicas.delete(self.server, EPOCH).await;
        removed.unwrap();
    }

    /// The agent dies, and a new one takes over what it wrote down.
    pub fn restart_agent(&mut self) {
        self.keeper = None;
        let left = Shared::left(&self.own, self.server).unwrap();
        self.keep(left, true);
    }

    /// The bitmap forgets this often from now on.
    pub fn rotate_every(&mut self, every: Duration) {
        self.rotate_every = every;
        self.restart_agent();
    }

    /// What a join by the bitmap would copy now.
    pub async fn recorded(&self) -> u64 {
        let base = Shared::left(&self.own, self.server).unwrap().base;
        let daemon = self.own.replicas.daemon(self.server, &base).await.unwrap();
        daemon.recorded_bytes().await.unwrap()
    }

    /// As if the agent had died between its stop and its `cont`.
    pub fn write_down_a_hold(&mut self) {
        self.keeper = None;
        let path = server_folder(&self.own.state_dir, self.server).join("disk.json");
        let mut left = Shared::left(&self.own, self.server).unwrap();
        left.holding = true;
        std::fs::write(path, serde_json::to_vec(&left).unwrap()).unwrap();
    }

    async fn wish<T>(
        &self,
        wish: impl FnOnce(oneshot::Sender<Result<T, undine_api::Problem>>) -> Wish,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        self.keeper.as_ref().unwrap().tell(wish(reply));
        answer.await.unwrap().map_err(|problem| problem.kind)
    }

    /// `PUT …/slots`
    pub async fn slots(&self, version: u64, in_sync: &[ReplicaId]) -> Result<(), String> {
        let spec = SlotsSpec {
            epoch: EPOCH,
            version,
            in_sync: in_sync.to_vec(),
            syncing: Vec::new(),
        };
        self.wish(|reply| Wish::Slots(spec, reply)).await
    }

    /// `PUT …/joins/{replica}`
    pub async fn join(
        &self,
        target: &ReplicaTarget,
        method: JoinMethod,
        limit: u64,
    ) -> Result<JoinStatus, String> {
        self.join_at(EPOCH, target, method, limit).await
    }

    pub async fn join_at(
        &self,
        epoch: u64,
        target: &ReplicaTarget,
        method: JoinMethod,
        limit: u64,
    ) -> Result<JoinStatus, String> {
        let spec = JoinSpec {
            epoch,
            target: target.clone(),
            method,
            limit_bytes_s: limit,
        };
        self.wish(|reply| Wish::Join(Box::new(spec), reply)).await
    }

    /// Asks until the join has ended.
    pub async fn joined(
        &self,
        target: &ReplicaTarget,
        method: JoinMethod,
        limit: u64,
    ) -> JoinStatus {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.join(target, method, limit).await.unwrap();
            if status.state != JoinState::Copying {
                return status;
            }
            assert!(Instant::now() < until, "{status:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// `DELETE …/joins/{replica}`
    pub async fn cancel(&self) -> Result<(), String> {
        self.wish(|reply| Wish::Cancel(EPOCH, other_id(), reply))
            .await
    }

    /// `PUT …/scrubs/{replica}`
    pub async fn scrub(
        &self,
        replica: ReplicaId,
        number: u8,
        limit: u64,
    ) -> Result<ScrubStatus, String> {
        let spec = ScrubSpec {
            epoch: EPOCH,
            scrub: OperationId::from_parts(1, [number; 10]),
            limit_bytes_s: limit,
        };
        self.wish(|reply| Wish::Scrub(replica, spec, reply)).await
    }

    /// Asks until the comparison has ended.
    pub async fn scrubbed(&self, number: u8, limit: u64) -> ScrubStatus {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.scrub(other_id(), number, limit).await.unwrap();
            if status.state != ScrubState::Comparing {
                return status;
            }
            assert!(Instant::now() < until, "{status:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// `DELETE …/scrubs/{replica}`
    pub async fn end_scrub(&self) -> Result<(), String> {
        self.wish(|reply| Wish::EndScrub(EPOCH, other_id(), reply))
            .await
    }

    /// Is a relay of a scrub there?
    pub fn has_scrub_relay(&self) -> bool {
        undine_node::settings::scrub_run_folder(&self.own.run_dir, self.server).exists()
    }

    /// The other image, as if a disk failed: one bit of what is written at this place turns.
    pub fn flip_other(&self, offset: u64) {
        let folder = undine_node::settings::replica_folder(&self.other.state_dir, self.server);
        flip(&folder.join("disk.qcow2"), offset);
    }

    pub fn slot(&self, slot: usize) -> SlotStatus {
        self.slots.borrow()[slot].clone()
    }

    pub async fn until_slot(&mut self, slot: usize, wanted: SlotState) {
        let seen = |slots: &Vec<SlotStatus>| slots.get(slot).is_some_and(|s| s.state == wanted);
        let waiting = self.slots.wait_for(seen);
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        if waited.is_err() {
            drop(waited);
            panic!("{:?}", self.slots.borrow());
        }
    }

    pub async fn until_state(&self, wanted: RunState) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.vm.state().await.unwrap() != wanted {
            assert!(Instant::now() < until, "{:?}", self.vm.state().await);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the guard reads.
    pub fn is_local_only(&self) -> bool {
        let path = self.own.state_dir.join("guard/servers.json");
        let read: Vec<Guarded> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!((read.len(), read[0].server), (1, self.server));
        assert!(read[0].guard_socket.exists());
        read[0].local_only
    }

    /// The guest writes from now on.
    pub async fn storm(&mut self) {
        assert_eq!(self.agent.ask("storm").await, "storm");
        self.is_writing().await;
    }

    /// Sees acknowledged writes come in.
    pub async fn is_writing(&mut self) {
        let before = self.acked().await;
        let until = Instant::now() + Duration::from_secs(20);
        while self.acked().await < before + 2 {
            assert!(Instant::now() < until, "no write was acknowledged");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// So many writes were acknowledged. A guest that stands still does not answer: why it does
    /// is told.
    async fn acked(&mut self) -> u64 {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.agent.ask("acked")).await;
        let Ok(answer) = answer else {
            let (state, slots) = (self.vm.state().await, self.slots.borrow().clone());
            panic!("the guest does not answer: {state:?}, {slots:?}");
        };
        answer.parse().unwrap()
    }

    /// Some megabytes at once, so that there is something to copy.
    pub async fn fill(&mut self) {
        assert_eq!(self.agent.ask("fill").await, "filled");
    }

    pub async fn other_pid(&self) -> u32 {
        self.other.replicas.pid(self.server).await.unwrap()
    }

    pub async fn kill_other(&self) {
        signal(self.other_pid().await, Signal::KILL);
    }

    /// The other replica fails and leaves.
    pub async fn lose_other(&mut self) {
        self.kill_other().await;
        self.until_slot(1, SlotState::Failed).await;
        self.slots(6, &[own_id()]).await.unwrap();
        self.until_slot(1, SlotState::Empty).await;
    }

    pub async fn other_status(&self) -> ReplicaStatus {
        let statuses = self.other.replicas.statuses().await;
        assert!(statuses[0].key.is_none(), "a report tells a key");
        statuses[0].clone()
    }

    pub async fn try_open_other(&self, resync: bool) -> Result<ReplicaStatus, String> {
        let spec = ReplicaSpec {
            resync,
            ..spec(other_id(), true, self.tls)
        };
        let put = self.other.replicas.put(self.server, &spec).await;
        put.map_err(|problem| problem.kind)
    }

    pub async fn open_other(&self, resync: bool) -> ReplicaStatus {
        self.try_open_other(resync).await.unwrap()
    }

    /// The other node becomes the owner under a higher epoch.
    pub async fn open_other_as_owner(&self, epoch: u64) -> ReplicaStatus {
        let spec = ReplicaSpec {
            epoch,
            ..spec(other_id(), false, self.tls)
        };
        self.other.replicas.put(self.server, &spec).await.unwrap()
    }

    /// The other node's agent dies when the higher epoch is written down and not served yet.
    pub async fn break_off_raising_other(&self, epoch: u64) {
        let folder = undine_node::settings::replica_folder(&self.other.state_dir, self.server);
        let sidecar = undine_qemu::sidecar::SidecarFile::new(folder.join("replica.json"));
        let in_sync = undine_qemu::sidecar::ReplicaState::InSync;
        sidecar.advance(epoch, in_sync).await.unwrap();
    }

    pub async fn open_other_remote_at(&self, epoch: u64) -> ReplicaStatus {
        let spec = ReplicaSpec {
            epoch,
            ..spec(other_id(), true, self.tls)
        };
        self.other.replicas.put(self.server, &spec).await.unwrap()
    }

    /// A fresh daemon for the other replica, as the target of a join.
    pub async fn resync_other(&self) -> ReplicaTarget {
        let status = self.open_other(true).await;
        assert_eq!(status.state, undine_api::node::ReplicaState::Syncing);
        self.target(&status)
    }

    pub fn target(&self, status: &ReplicaStatus) -> ReplicaTarget {
        ReplicaTarget {
            node: self.other.node,
            replica: status.replica,
            export: status.export.clone().unwrap(),
            address: status.address,
            key: status.key.clone(),
        }
    }

    /// Ends everything in order and compares the two images.
    pub async fn are_equal(mut self) -> bool {
        self.agent.say("calm").await;
        sleep(Duration::from_millis(500)).await;
        self.keeper = None;
        self.vm.quit().await.unwrap();
        let image = |ground: &Ground| -> PathBuf {
            undine_node::settings::replica_folder(&ground.state_dir, self.server).join("disk.qcow2")
        };
        for ground in [&self.own, &self.other] {
            ground.replicas.close(self.server).await;
        }
        compared(&image(&self.own), &image(&self.other))
    }
}

fn flip(image: &Path, offset: u64) {
    use std::os::unix::fs::FileExt as _;
    let mut map = Command::new("qemu-img");
    map.args(["map", "-U", "-f", "qcow2", "--output", "json"]);
    let output = map.arg(image).output().unwrap();
    let map: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let at = map.as_array().unwrap().iter().find_map(|it| {
        let (start, length) = (it["start"].as_u64()?, it["length"].as_u64()?);
        let inside = it["data"] == true && start <= offset && offset < start + length;
        inside.then(|| it["offset"].as_u64().unwrap() + offset - start)
    });
    let at = at.expect("nothing is written there");
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn compared(one: &Path, other: &Path) -> bool {
    let mut compare = Command::new("qemu-img");
    compare.args(["compare", "-f", "qcow2", "-F", "qcow2"]);
    let output = compare.arg(one).arg(other).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    output.status.success()
}
