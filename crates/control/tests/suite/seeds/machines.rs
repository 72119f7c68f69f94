//! The nodes of a seeded run, as far as control's commits depend on them: copies with their
//! sidecars, slots of virtual machines (those of `undine_failover`), the term that was heard.

use std::collections::BTreeMap;

use undine_api::node::{
    Committed, NodeStatus, Phase, ReplicaState, ReplicaStatus, ServerStatus, SlotState, SlotStatus,
};
use undine_failover::memory::Term;
use undine_failover::slots::{self, Slot, Slots};
use undine_model::{Bytes, NodeId, ReplicaId, ServerId};

/// A copy on a machine.
#[derive(Debug, Clone)]
pub struct Copy {
    pub id: ReplicaId,
    /// As its sidecar says.
    pub epoch: u64,
    pub state: ReplicaState,
    /// The newest of control's words.
    pub word: Option<Committed>,
    /// How many of the acknowledged writes it has; half filled it has none that can be told.
    pub has: u64,
}

impl Copy {
    fn note(&mut self, word: &Committed) {
        let order = |it: &Committed| (it.epoch, it.version);
        if self
            .word
            .as_ref()
            .is_none_or(|known| order(known) <= order(word))
        {
            self.word = Some(word.clone());
        }
    }
}

/// A virtual machine.
#[derive(Debug, Clone)]
pub struct Vm {
    pub slots: Slots,
}

/// A node.
#[derive(Debug)]
pub struct Machine {
    pub id: NodeId,
    pub is_up: bool,
    pub term: Term,
    pub copies: BTreeMap<ServerId, Copy>,
    pub vms: BTreeMap<ServerId, Vm>,
}

/// All of them, and what guests were told.
#[derive(Debug, Default)]
pub struct Machines {
    pub all: Vec<Machine>,
    /// Writes that were acknowledged to each guest.
    pub acked: BTreeMap<ServerId, u64>,
    /// The highest epoch that was opened anywhere.
    opened: BTreeMap<ServerId, u64>,
}

/// An order of control.
#[derive(Debug, Clone)]
pub struct Order {
    pub term: u64,
    pub node: NodeId,
    pub server: ServerId,
    pub word: Committed,
    pub what: What,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum What {
    /// Open this copy; `fill`: as the target of a resync.
    Open { copy: ReplicaId, fill: bool },
    /// Run it, with so many slots.
    Start { slots: usize },
    /// These are being filled; nothing else than they and the members stay in slots.
    Slots { syncing: Vec<ReplicaId> },
}

impl Machines {
    pub fn of(&mut self, node: NodeId) -> &mut Machine {
        self.all.iter_mut().find(|it| it.id == node).unwrap()
    }

    /// Where a copy lies, if it can be written to under this epoch.
    fn reachable(&self, server: ServerId, copy: ReplicaId, epoch: u64) -> bool {
        self.all.iter().any(|machine| {
            let held = machine.copies.get(&server).filter(|it| it.id == copy);
            machine.is_up
                && held.is_some_and(|it| {
                    it.epoch == epoch
                        && matches!(it.state, ReplicaState::Open | ReplicaState::Syncing)
                })
        })
    }

    pub fn copy(&mut self, server: ServerId, id: ReplicaId) -> Option<&mut Copy> {
        let copies = self.all.iter_mut();
        let mut copies = copies.filter_map(|it| it.copies.get_mut(&server));
        copies.find(|it| it.id == id)
    }

    /// Does its node do it? Not when it is down, the epoch is over, or it heard of a later life.
    pub fn obey(&mut self, order: &Order) -> bool {
        if self.is_late_fill(order) {
            self.daemon_is_replaced(order);
            return true;
        }
        let highest = self.opened.entry(order.server).or_default();
        let machine = self.all.iter_mut().find(|it| it.id == order.node).unwrap();
        if !machine.is_up || machine.term.hear(Term(order.term)).is_err() {
            return false;
        }
        let copy = machine.copies.get_mut(&order.server);
        if copy.as_ref().is_some_and(|it| it.epoch > order.word.epoch) {
            return false;
        }
        match &order.what {
            What::Open { copy: id, fill } => {
                let Some(copy) = copy.filter(|it| it.id == *id) else {
                    return false;
                };
                let is_new = order.word.epoch > copy.epoch;
                if copy.state == ReplicaState::Stale && !is_new && !fill {
                    return false;
                }
                copy.note(&order.word);
                if is_new || *fill || copy.state != ReplicaState::Syncing {
                    copy.state = if *fill {
                        ReplicaState::Syncing
                    } else {
                        ReplicaState::Open
                    };
                }
                if *fill {
                    // Part of it is new, part is old.
                    copy.has = u64::MAX;
                }
                copy.epoch = order.word.epoch;
                *highest = (*highest).max(copy.epoch);
                true
            }
            What::Start { slots } => {
                let vm = machine.vms.get(&order.server);
                if vm.is_some_and(|it| it.slots.epoch >= order.word.epoch) {
                    return true;
                }
                let (epoch, version) = (order.word.epoch, order.word.version);
                let slots = Slots::start(epoch, version, *slots, &order.word.in_sync);
                machine.vms.insert(order.server, Vm { slots });
                true
            }
            What::Slots { syncing } => {
                if let Some(copy) = copy {
                    copy.note(&order.word);
                }
                let Some(vm) = machine.vms.get_mut(&order.server) else {
                    return false;
                };
                let committed = slots::Committed {
                    epoch: order.word.epoch,
                    version: order.word.version,
                    in_sync: order.word.in_sync.iter().copied().collect(),
                    syncing: syncing.iter().copied().collect(),
                };
                let Ok(leaving) = vm.slots.committed(&committed) else {
                    return false;
                };
                for id in leaving {
                    vm.slots.vacated(id);
                }
                true
            }
        }
    }

    /// A doubled order to fill a copy that has joined since: it is in a slot.
    fn is_late_fill(&self, order: &Order) -> bool {
        let What::Open { copy, fill: true } = order.what else {
            return false;
        };
        let vms = self.all.iter().filter_map(|it| it.vms.get(&order.server));
        let mut slots = vms.map(|it| &it.slots);
        slots.any(|it| it.epoch == order.word.epoch && it.is_live(copy))
    }

    /// Its daemon makes way for one under another name: the guest's connection breaks. Nothing is
    /// copied, so what is in the file stays.
    fn daemon_is_replaced(&mut self, order: &Order) {
        let machine = self.of(order.node);
        if machine.is_up
            && machine.term.hear(Term(order.term)).is_ok()
            && let Some(copy) = machine.copies.get_mut(&order.server)
            && copy.epoch <= order.word.epoch
        {
            copy.state = ReplicaState::Stale;
        }
    }

    /// Every guest of this server that runs somewhere writes; what is acknowledged under a lower
    /// epoch than one that was opened is a violation.
    pub fn write(&mut self, server: ServerId) {
        for at in 0..self.all.len() {
            let Some(vm) = self.all[at].vms.get(&server).cloned() else {
                continue;
            };
            let epoch = vm.slots.epoch;
            let mut slots = vm.slots;
            for id in slots.live() {
                if !self.reachable(server, id, epoch) {
                    slots.failed(id);
                }
            }
            let is_acked = slots.may_continue() && self.all[at].is_up;
            if is_acked {
                let opened = self.opened.get(&server).copied().unwrap_or_default();
                assert!(epoch >= opened, "acknowledged under {epoch} after {opened}");
                let acked = self.acked.entry(server).or_default();
                *acked += 1;
                let acked = *acked;
                for id in slots.live() {
                    self.copy(server, id).unwrap().has = acked;
                }
            }
            self.all[at].vms.insert(server, Vm { slots });
        }
    }

    /// The machine loses its power: what was open may lack writes.
    pub fn down(&mut self, at: usize) {
        let machine = &mut self.all[at];
        machine.is_up = false;
        machine.vms.clear();
        for copy in machine.copies.values_mut() {
            if matches!(copy.state, ReplicaState::Open | ReplicaState::Syncing) {
                copy.state = ReplicaState::Stale;
            }
        }
    }

    /// A copy's daemon ends by itself.
    pub fn daemon_ends(&mut self, at: usize, server: ServerId) {
        if let Some(copy) = self.all[at].copies.get_mut(&server)
            && matches!(copy.state, ReplicaState::Open | ReplicaState::Syncing)
        {
            copy.state = ReplicaState::Stale;
        }
    }

    /// What those that are up say when they are asked in this life of the store.
    pub fn answers(&mut self, term: u64) -> BTreeMap<NodeId, NodeStatus> {
        let mut answers = BTreeMap::new();
        for machine in self.all.iter_mut().filter(|it| it.is_up) {
            let _ = machine.term.hear(Term(term));
            answers.insert(machine.id, machine.status());
        }
        answers
    }
}

impl Machine {
    pub fn status(&self) -> NodeStatus {
        let copies = self.copies.iter().map(|(server, copy)| ReplicaStatus {
            server: *server,
            replica: copy.id,
            epoch: copy.epoch,
            state: copy.state,
            export: None,
            address: None,
            key: None,
            size: Bytes::gib(1),
            used: Bytes(0),
            committed: copy.word.clone(),
        });
        NodeStatus {
            node: self.id,
            inventory: undine_testkit::node::inventory(Bytes::gib(64)),
            images: Vec::new(),
            servers: self.vms.iter().map(|(id, vm)| vm.status(*id)).collect(),
            replicas: copies.collect(),
            term: Some(self.term.0),
        }
    }
}

impl Vm {
    pub fn status(&self, server: ServerId) -> ServerStatus {
        let slot = |slot: &Slot| {
            let (replica, state) = match slot {
                Slot::Live(id) => (Some(*id), SlotState::Live),
                Slot::Failed(id) => (Some(*id), SlotState::Failed),
                Slot::Empty => (None, SlotState::Empty),
            };
            SlotStatus {
                replica,
                state,
                error: None,
                differs: false,
            }
        };
        ServerStatus {
            server,
            epoch: self.slots.epoch,
            phase: if self.slots.may_continue() {
                Phase::Running
            } else {
                Phase::Paused
            },
            error: None,
            start: None,
            health: None,
            applied: None,
            slots: self.slots.slots.iter().map(slot).collect(),
        }
    }
}
