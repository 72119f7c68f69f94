//! Copies of disks and the slots of running servers, as a real node keeps them: a lower epoch is
//! refused for ever, a daemon that ended by itself leaves a stale copy, a missing file is lost, and
//! a failed slot stays until control has committed that its copy is not in sync.

use axum::Json;
use axum::extract::{Path, State};
use tokio::net::TcpListener;
use undine_api::Problem;
use undine_api::node::{
    Committed, JoinMethod, JoinSpec, JoinState, JoinStatus, ReplicaKey, ReplicaSpec, ReplicaState,
    ReplicaStatus, ScrubSpec, ScrubState, ScrubStatus, ServerStatus, SlotState, SlotStatus,
    SlotsSpec, StartSpec,
};
use undine_model::{Bytes, ReplicaId, ServerId};

use super::FakeServer;
use super::serve::{Answered, Shared, absent, lower_epoch, status};

/// A copy of a disk on a fake node.
pub struct FakeReplica {
    /// Which one.
    pub id: ReplicaId,
    /// The highest epoch seen.
    pub epoch: u64,
    /// How it stands.
    pub state: ReplicaState,
    /// Starts of its daemon.
    pub incarnation: u32,
    /// Size of the disk.
    pub size: Bytes,
    /// The newest of control's words that was heard.
    pub committed: Option<Committed>,
}

impl FakeReplica {
    /// Its daemon ends by itself.
    pub fn die(&mut self) {
        if matches!(self.state, ReplicaState::Open | ReplicaState::Syncing) {
            self.state = ReplicaState::Stale;
        }
    }

    pub(super) fn status(&self, server: ServerId) -> ReplicaStatus {
        let open = matches!(self.state, ReplicaState::Open | ReplicaState::Syncing);
        ReplicaStatus {
            server,
            replica: self.id,
            epoch: self.epoch,
            state: self.state,
            export: open.then(|| format!("{server}-e{}-{}", self.epoch, self.incarnation)),
            address: None,
            key: None,
            size: self.size,
            used: Bytes(0),
            committed: self.committed.clone(),
        }
    }

    /// Keeps the newest of control's words.
    pub fn note(&mut self, said: Option<Committed>) {
        let order = |it: &Committed| (it.epoch, it.version);
        if said.as_ref().map(order) >= self.committed.as_ref().map(order) {
            self.committed = said;
        }
    }

    fn open(&mut self, spec: &ReplicaSpec) {
        let risen = spec.epoch > self.epoch;
        self.epoch = spec.epoch;
        if spec.resync {
            self.incarnation += 1;
            self.state = ReplicaState::Syncing;
            return;
        }
        match self.state {
            ReplicaState::Open if !risen => {}
            // Control has committed that it is in sync.
            ReplicaState::Syncing if !risen => self.state = ReplicaState::Open,
            ReplicaState::Stale if !risen && !spec.accept_stale => {}
            _ => {
                self.incarnation += 1;
                self.state = ReplicaState::Open;
            }
        }
    }
}

/// What is said of a copy that was found to differ.
const DIFFERS: &str = "it differs, says the test";

/// A slot of a running server's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSlot {
    /// The copy in it, or on its way into it.
    pub replica: Option<ReplicaId>,
    /// How it stands.
    pub state: SlotState,
    /// It failed because it was found to differ.
    pub differs: bool,
}

impl FakeSlot {
    pub(super) fn status(&self) -> SlotStatus {
        SlotStatus {
            replica: self.replica,
            state: self.state,
            error: (self.state == SlotState::Failed).then(|| {
                let why = if self.differs {
                    DIFFERS
                } else {
                    "the test failed it"
                };
                why.to_owned()
            }),
            differs: self.differs,
        }
    }
}

impl FakeServer {
    pub(super) fn open(&mut self, spec: &StartSpec) {
        self.slots = spec
            .replicas
            .iter()
            .map(|target| FakeSlot {
                replica: Some(target.replica),
                state: SlotState::Live,
                differs: false,
            })
            .collect();
        let slots = (spec.slots as usize).max(spec.replicas.len());
        self.slots.resize(
            slots,
            FakeSlot {
                replica: None,
                state: SlotState::Empty,
                differs: false,
            },
        );
    }

    pub(super) fn fail(&mut self, copy: ReplicaId) {
        let slot = self.slots.iter_mut().find(|it| it.replica == Some(copy));
        if let Some(slot) = slot {
            slot.state = SlotState::Failed;
        }
    }
}

/// Two listeners, the second one port above the first, as an agent and its guard have them.
pub(super) async fn two_ports() -> anyhow::Result<(TcpListener, TcpListener)> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await?;
        let address = first.local_addr()?;
        let Some(port) = address.port().checked_add(1) else {
            continue;
        };
        if let Ok(second) = TcpListener::bind((address.ip(), port)).await {
            return Ok((first, second));
        }
    }
    anyhow::bail!("no two ports side by side are free")
}

pub(super) async fn replica(
    State(node): Shared,
    Path(server): Path<ServerId>,
    Json(spec): Json<ReplicaSpec>,
) -> Answered<ReplicaStatus> {
    node.called(&format!("PUT replicas/{server}"))?;
    let mut state = node.state();
    if let Some(seen) = state.replicas.get(&server).map(|it| it.epoch)
        && spec.epoch < seen
    {
        return Err(lower_epoch(seen).into());
    }
    if spec.create {
        state.replicas.entry(server).or_insert(FakeReplica {
            id: spec.replica,
            epoch: spec.epoch,
            state: ReplicaState::Closed,
            incarnation: 0,
            size: spec.size,
            committed: None,
        });
    }
    let Some(replica) = state.replicas.get_mut(&server) else {
        return Ok(Json(lost(server, &spec)));
    };
    replica.note(spec.committed.clone());
    replica.open(&spec);
    let mut status = replica.status(server);
    if spec.remote {
        status.address = Some(([127, 0, 0, 1], 10_809).into());
        status.key = ReplicaKey::read(&"7a".repeat(32)).filter(|_| spec.tls);
    }
    Ok(Json(status))
}

fn lost(server: ServerId, spec: &ReplicaSpec) -> ReplicaStatus {
    ReplicaStatus {
        server,
        replica: spec.replica,
        epoch: spec.epoch,
        state: ReplicaState::Lost,
        export: None,
        address: None,
        key: None,
        size: spec.size,
        used: Bytes(0),
        committed: None,
    }
}

pub(super) async fn remove_replica(
    State(node): Shared,
    Path(server): Path<ServerId>,
) -> Answered<()> {
    node.called(&format!("DELETE replicas/{server}"))?;
    node.state().replicas.remove(&server);
    Ok(Json(()))
}

fn owner(state: &mut super::State, id: ServerId, epoch: u64) -> Result<&mut FakeServer, Problem> {
    let server = state.servers.get_mut(&id).filter(|it| it.running);
    let server = server.ok_or_else(|| absent(id))?;
    if server.epoch != epoch {
        return Err(lower_epoch(server.epoch));
    }
    Ok(server)
}

pub(super) async fn slots(
    State(node): Shared,
    Path(id): Path<ServerId>,
    Json(spec): Json<SlotsSpec>,
) -> Answered<ServerStatus> {
    node.called(&format!("PUT servers/{id}/slots"))?;
    let mut state = node.state();
    if let Some(replica) = state.replicas.get_mut(&id) {
        replica.note(Some(spec.committed()));
    }
    let server = owner(&mut state, id, spec.epoch)?;
    if spec.version < server.version {
        return Err(Problem::new(409, "version", "Old news", "a newer version was seen").into());
    }
    server.version = spec.version;
    for slot in &mut server.slots {
        let member = slot.replica.is_some_and(|id| spec.in_sync.contains(&id));
        if !member && matches!(slot.state, SlotState::Failed | SlotState::Live) {
            slot.replica = None;
            slot.state = SlotState::Empty;
            slot.differs = false;
        }
    }
    Ok(Json(status(id, server)))
}

pub(super) async fn join(
    State(node): Shared,
    Path((id, replica)): Path<(ServerId, ReplicaId)>,
    Json(spec): Json<JoinSpec>,
) -> Answered<JoinStatus> {
    let method = spec.method;
    node.called(&format!("PUT servers/{id}/joins/{replica} {method:?}"))?;
    let mut state = node.state();
    let held = state.hold_joins;
    let server = owner(&mut state, id, spec.epoch)?;
    let answer = |state, copied| JoinStatus {
        replica,
        state,
        copied: Bytes(copied),
        total: Bytes(100),
        pause_ms: Some(12),
        error: None,
        method: spec.method,
    };
    if let Some(slot) = server.slots.iter().find(|it| it.replica == Some(replica))
        && slot.state == SlotState::Live
    {
        return Ok(Json(answer(JoinState::Joined, 100)));
    }
    let free = |it: &&mut FakeSlot| match it.state {
        SlotState::Empty => true,
        SlotState::Joining => it.replica == Some(replica),
        _ => false,
    };
    if spec.method == JoinMethod::Bitmap && server.distrusted.contains(&replica) {
        return Err(
            Problem::new(409, "not-recorded", "Not known", "what it lacks is unknown").into(),
        );
    }
    let Some(slot) = server.slots.iter_mut().find(free) else {
        return Err(Problem::new(409, "no-slot", "No slot is free", "no slot is free").into());
    };
    slot.replica = Some(replica);
    slot.state = if held || slot.state == SlotState::Empty {
        SlotState::Joining
    } else {
        SlotState::Live
    };
    Ok(Json(answer(
        match slot.state {
            SlotState::Live => JoinState::Joined,
            _ => JoinState::Copying,
        },
        50,
    )))
}

pub(super) async fn cancel_join(
    State(node): Shared,
    Path((id, replica)): Path<(ServerId, ReplicaId)>,
) -> Answered<()> {
    node.called(&format!("DELETE servers/{id}/joins/{replica}"))?;
    if let Some(server) = node.state().servers.get_mut(&id) {
        for slot in &mut server.slots {
            if slot.replica == Some(replica) && slot.state == SlotState::Joining {
                slot.replica = None;
                slot.state = SlotState::Empty;
            }
        }
    }
    Ok(Json(()))
}

pub(super) async fn scrub(
    State(node): Shared,
    Path((id, replica)): Path<(ServerId, ReplicaId)>,
    Json(spec): Json<ScrubSpec>,
) -> Answered<ScrubStatus> {
    node.called(&format!("PUT servers/{id}/scrubs/{replica}"))?;
    let mut state = node.state();
    let (held, differs) = (state.hold_scrubs, state.differing.contains(&replica));
    let server = owner(&mut state, id, spec.epoch)?;
    let answer = |state, compared| ScrubStatus {
        replica,
        scrub: spec.scrub,
        state,
        compared: Bytes(compared),
        total: Bytes(100),
        undecided: Bytes(0),
        error: (state == ScrubState::Differs).then(|| DIFFERS.to_owned()),
    };
    let begun = server.scrubs.insert(replica, spec.scrub) == Some(spec.scrub);
    let live = |it: &&mut FakeSlot| it.replica == Some(replica) && it.state == SlotState::Live;
    let Some(slot) = server.slots.iter_mut().skip(1).find(live) else {
        return Err(Problem::new(409, "not-in-a-slot", "In no slot", "it is in no slot").into());
    };
    if held || !begun {
        return Ok(Json(answer(ScrubState::Comparing, 50)));
    }
    if !differs {
        return Ok(Json(answer(ScrubState::Equal, 100)));
    }
    (slot.state, slot.differs) = (SlotState::Failed, true);
    server.distrusted.insert(replica);
    state.differing.remove(&replica);
    Ok(Json(answer(ScrubState::Differs, 60)))
}

pub(super) async fn end_scrub(
    State(node): Shared,
    Path((id, replica)): Path<(ServerId, ReplicaId)>,
) -> Answered<()> {
    node.called(&format!("DELETE servers/{id}/scrubs/{replica}"))?;
    if let Some(server) = node.state().servers.get_mut(&id) {
        server.scrubs.remove(&replica);
    }
    Ok(Json(()))
}
