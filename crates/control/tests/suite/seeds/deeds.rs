//! What instances of control do in a seeded run. Every decision and every commit is control's own;
//! an instance may die before each commit, after it, and before it tells anybody.

use undine_control::app::server_adopt::adopt_in;
use undine_control::app::servers::{Wish, begin};
use undine_control::background::doubts;
use undine_control::control::Control;
use undine_control::copies;
use undine_control::fencing::{Heirs, fence, take_over};
use undine_control::memory;
use undine_control::slots::failed;
use undine_failover::membership;
use undine_model::lifecycle::{NodeState, ServerState};
use undine_model::{NodeId, ReplicaId, ServerId};
use undine_store::{Db, ReplicaState, Server, Tx};

use super::Run;
use super::machines::{Order, What};

impl Run {
    /// Ends the transaction; false: the instance died before it.
    async fn commit(&mut self, tx: Tx) -> bool {
        if self.dice.one_in(8) {
            tx.rollback().await.unwrap();
            self.note("dies before the commit");
            return false;
        }
        tx.commit().await.unwrap();
        true
    }

    /// It dies after a commit.
    fn dies(&mut self) -> bool {
        let dies = self.dice.one_in(10);
        if dies {
            self.note("dies after the commit");
        }
        dies
    }

    async fn read(&self, by: usize, id: ServerId) -> (Server, bool) {
        let store = &self.controls[by].store;
        let server = store.servers().get(id).await.unwrap();
        let doubted = memory::is_doubted(store, id).await.unwrap();
        (server, doubted)
    }

    fn is_running(server: &Server) -> bool {
        matches!(server.state, ServerState::Running | ServerState::Starting)
    }

    /// The owner says which slots failed: they leave, and it is told.
    pub async fn degrade(&mut self, by: usize, id: ServerId) {
        let (server, doubted) = self.read(by, id).await;
        let Some(owner) = server.node.filter(|_| !doubted) else {
            return;
        };
        let machine = self.machines.of(owner);
        let vm = machine.vms.get(&id).filter(|_| machine.is_up);
        let Some(status) = vm.map(|vm| vm.status(id)) else {
            return;
        };
        let control = self.controls[by].clone();
        let tx = control.store.begin().await.unwrap();
        let server = tx.servers().lock(id).await.unwrap();
        let gone = failed(&server, owner, &status);
        let all = copies::of(&tx, id).await.unwrap();
        let own = |copy: &&undine_store::Replica| copy.node == owner && gone.contains(&copy.id);
        if all.iter().any(|copy| own(&copy)) {
            // The owner's own copy: it moves, or starts again on what it has.
            self.leaves_owner(&control, tx, server, &gone).await;
            return;
        }
        if !gone.is_empty() {
            let left = copies::leave(&tx, &server, &gone, "its slot failed").await;
            self.note(format!("copies leave: {:?}", left.unwrap()));
        }
        if !self.commit(tx).await || self.dies() {
            return;
        }
        self.tell(by, id).await;
    }

    async fn leaves_owner(
        &mut self,
        control: &Control,
        tx: Tx,
        server: Server,
        gone: &[ReplicaId],
    ) {
        let id = server.id;
        let left = copies::leave(&tx, &server, gone, "its slot failed").await;
        if left.unwrap().is_empty() {
            // The last one: a new epoch on the same node.
            let mut server = server;
            server.epoch += 1;
            server.state = ServerState::Starting;
            copies::settle(&tx, &server).await.unwrap();
            tx.servers().update(&server, 1).await.unwrap();
            self.note("starts again on its last copy");
        } else {
            let server = tx.servers().lock(id).await.unwrap();
            let mut heirs = Heirs::recorded(&control.cluster, &tx).await.unwrap();
            drop(
                take_over(&tx, &mut heirs, server, "its copy failed")
                    .await
                    .unwrap(),
            );
            self.note("leaves its owner");
        }
        self.commit(tx).await;
    }

    /// What the owner is told, read now; it may arrive at once or late.
    pub async fn tell(&mut self, by: usize, id: ServerId) {
        let (server, doubted) = self.read(by, id).await;
        let Some(node) = server
            .node
            .filter(|_| !doubted && Self::is_running(&server))
        else {
            return;
        };
        let store = &self.controls[by].store;
        let word = copies::committed(store, &server).await.unwrap();
        let all = copies::of(store, id).await.unwrap();
        let syncing = copies::syncing(&all);
        self.send(by, node, id, word, What::Slots { syncing });
    }

    fn send(
        &mut self,
        by: usize,
        node: NodeId,
        server: ServerId,
        word: undine_api::node::Committed,
        what: What,
    ) -> bool {
        let term = self.controls[by].term;
        let order = Order {
            term,
            node,
            server,
            word,
            what,
        };
        if self.dice.one_in(6) {
            self.late.push(order.clone());
        }
        if self.dice.one_in(6) {
            return false;
        }
        let done = self.machines.obey(&order);
        self.note(format!("{done}: {order:?}"));
        done
    }

    /// A node is declared dead: most often one that is.
    pub async fn fence(&mut self, by: usize, at: usize) {
        if self.machines.all[at].is_up && !self.dice.one_in(4) {
            return;
        }
        let id = self.machines.all[at].id;
        let control = self.controls[by].clone();
        let node = control.store.nodes().get(id).await.unwrap();
        let done = fence(&control, &node, "it is silent").await.unwrap();
        self.note(format!("node {at} is declared dead: {done}"));
    }

    /// One that is heard again is cleaned, and used again.
    pub async fn welcome(&mut self, by: usize, at: usize) {
        let store = self.controls[by].store.clone();
        let id = self.machines.all[at].id;
        let node = store.nodes().get(id).await.unwrap();
        if node.state != NodeState::Fenced || !self.machines.all[at].is_up {
            return;
        }
        let ran: Vec<_> = self.machines.all[at].vms.keys().copied().collect();
        for server in ran {
            let status = self.machines.all[at].vms[&server].status(server);
            let control = self.controls[by].clone();
            let leftover =
                undine_control::background::returned::leftover(&control, id, &status).await;
            if leftover.unwrap().is_some() {
                self.machines.all[at].vms.remove(&server);
            } else if memory::is_doubted(&store, server).await.unwrap() {
                return;
            }
        }
        let tx = store.begin().await.unwrap();
        let mut record = tx.nodes().lock(id).await.unwrap();
        if record.state == NodeState::Fenced && record.fenced_at == node.fenced_at {
            record.state = NodeState::Ready;
            record.fenced_at = None;
            tx.nodes().update(&record, 1).await.unwrap();
            if self.commit(tx).await {
                self.note(format!("node {at} is back"));
            }
        }
    }

    /// A server that waits for an owner gets one.
    pub async fn take_over(&mut self, by: usize, id: ServerId) {
        let control = self.controls[by].clone();
        let tx = control.store.begin().await.unwrap();
        let server = tx.servers().lock(id).await.unwrap();
        if server.state != ServerState::Failed {
            return;
        }
        let mut heirs = Heirs::recorded(&control.cluster, &tx).await.unwrap();
        match take_over(&tx, &mut heirs, server, "a node died")
            .await
            .unwrap()
        {
            undine_control::fencing::Taken::Over(server) => {
                let owner = server.node;
                if self.commit(tx).await {
                    self.note(format!("{owner:?} takes over at {}", server.epoch));
                }
            }
            undine_control::fencing::Taken::Waits(why) => self.note(why),
        }
    }

    /// As `server.failover` does it: open every copy in sync, keep one, start.
    pub async fn bring_up(&mut self, by: usize, id: ServerId) {
        let (server, doubted) = self.read(by, id).await;
        let Some(owner) = server.node else { return };
        if !doubted && server.state == ServerState::Running {
            return self.ended(by, id, owner).await;
        }
        if doubted || server.state != ServerState::Starting {
            return;
        }
        let control = self.controls[by].clone();
        let store = &control.store;
        let all = copies::of(store, id).await.unwrap();
        let members: Vec<_> = copies::in_sync(&all, server.node)
            .into_iter()
            .cloned()
            .collect();
        let mut rest = members.len();
        for copy in members {
            if self.open(by, &server, copy.node, copy.id, rest <= 1).await {
                continue;
            }
            if rest <= 1 {
                return;
            }
            rest -= 1;
            let tx = store.begin().await.unwrap();
            let record = tx.servers().lock(id).await.unwrap();
            if record.epoch != server.epoch || memory::is_doubted(&tx, id).await.unwrap() {
                return;
            }
            let left = copies::leave(&tx, &record, &[copy.id], "it cannot be had").await;
            self.note(format!("goes on without {:?}", left.unwrap()));
            if !self.commit(tx).await {
                return;
            }
        }
        let tx = store.begin().await.unwrap();
        let record = tx.servers().lock(id).await.unwrap();
        if record.epoch != server.epoch || memory::is_doubted(&tx, id).await.unwrap() {
            return;
        }
        copies::settle(&tx, &record).await.unwrap();
        if !self.commit(tx).await || self.dies() {
            return;
        }
        self.boot(by, id, owner, server.epoch).await;
    }

    /// Its virtual machine ended unasked: it is started again.
    async fn ended(&mut self, by: usize, id: ServerId, owner: NodeId) {
        let machine = self.machines.of(owner);
        if !machine.is_up || machine.vms.contains_key(&id) {
            return;
        }
        let control = self.controls[by].clone();
        let tx = control.store.begin().await.unwrap();
        let mut server = tx.servers().lock(id).await.unwrap();
        if server.state != ServerState::Running || server.node != Some(owner) {
            return;
        }
        server.state = ServerState::Failed;
        server.operation = None;
        let server = tx.servers().update(&server, 1).await.unwrap();
        let why = "its VM ended unasked".to_owned();
        match begin(&control, &tx, server, Wish::Start, why).await {
            Ok((server, _)) => {
                if self.commit(tx).await {
                    self.note(format!("starts again at {}", server.epoch));
                }
            }
            Err(refusal) => self.note(format!("not started: {refusal:?}")),
        }
    }

    async fn boot(&mut self, by: usize, id: ServerId, owner: NodeId, epoch: u64) {
        let (server, doubted) = self.read(by, id).await;
        if doubted || server.epoch != epoch {
            return;
        }
        let control = self.controls[by].clone();
        let all = copies::of(&control.store, id).await.unwrap();
        let members = copies::in_sync(&all, server.node);
        let last = members.len() <= 1;
        for copy in &members {
            if !self.open(by, &server, copy.node, copy.id, last).await {
                return;
            }
        }
        let word = undine_api::node::Committed {
            epoch,
            version: server.version.unsigned_abs(),
            in_sync: members.iter().map(|copy| copy.id).collect(),
        };
        let slots = server.slots as usize;
        if !self.send(by, owner, id, word, What::Start { slots }) || self.dies() {
            return;
        }
        let tx = control.store.begin().await.unwrap();
        let mut record = tx.servers().lock(id).await.unwrap();
        if record.epoch == epoch && record.state == ServerState::Starting {
            record.state = ServerState::Running;
            record.operation = None;
            tx.servers().update(&record, 1).await.unwrap();
            self.commit(tx).await;
        }
    }

    async fn open(
        &mut self,
        by: usize,
        server: &Server,
        node: NodeId,
        copy: ReplicaId,
        last: bool,
    ) -> bool {
        let word = copies::committed(&self.controls[by].store, server)
            .await
            .unwrap();
        if last && self.machines.of(node).is_up {
            // The last copy that counts is opened although its daemon ended.
            let held = self.machines.of(node).copies.get_mut(&server.id);
            if let Some(held) = held
                && held.epoch == server.epoch
                && held.state == undine_api::node::ReplicaState::Stale
            {
                held.state = undine_api::node::ReplicaState::Closed;
            }
        }
        let what = What::Open { copy, fill: false };
        self.send(by, node, server.id, word, what)
    }

    /// As `server.replicate` does it: begin, fill, join, commit, tell.
    pub async fn replicate(&mut self, by: usize, id: ServerId) {
        let control = self.controls[by].clone();
        let Some((server, copy)) = self.begin_sync(&control, id).await else {
            return;
        };
        let word = copies::committed(&control.store, &server).await.unwrap();
        let fill = What::Open {
            copy: copy.1,
            fill: true,
        };
        if !self.send(by, copy.0, id, word, fill) || !self.joins(&server, copy.1) {
            return;
        }
        self.machines.write(id);
        if self.dice.one_in(3) {
            self.machines.daemon_ends(self.index(copy.0), id);
            self.machines.write(id);
        }
        self.join(by, &control, id, copy.1).await;
    }

    fn index(&self, node: NodeId) -> usize {
        let mut all = self.machines.all.iter();
        all.position(|it| it.id == node).unwrap()
    }

    async fn begin_sync(
        &mut self,
        control: &Control,
        id: ServerId,
    ) -> Option<(Server, (NodeId, ReplicaId))> {
        let tx = control.store.begin().await.unwrap();
        let server = tx.servers().lock(id).await.unwrap();
        if server.state != ServerState::Running || memory::is_doubted(&tx, id).await.unwrap() {
            return None;
        }
        let all = copies::of(&tx, id).await.unwrap();
        let is_idle = |copy: &&undine_store::Replica| {
            !matches!(copy.state, ReplicaState::InSync | ReplicaState::Syncing)
        };
        let lacking: Vec<_> = all.iter().filter(is_idle).collect();
        if lacking.is_empty() {
            // One that nobody fills any more is not being filled.
            let filled = copies::syncing(&all);
            if !filled.is_empty() {
                copies::leave(&tx, &server, &filled, "nobody was filling it")
                    .await
                    .unwrap();
                self.commit(tx).await;
            }
            return None;
        }
        let copy = lacking[self.dice.below(lacking.len())];
        let copy = (copy.node, copy.id);
        let record = copies::record(&server, &all);
        let next = membership::begin_sync(&record, server.epoch, copy.1).ok()?;
        copies::follow(&tx, &all, &next, None).await.unwrap();
        let server = tx.servers().update(&server, 1).await.unwrap();
        let committed = self.commit(tx).await && !self.dies();
        committed.then_some((server, copy))
    }

    /// Everything is copied, and with the guest standing still the copy takes a slot.
    fn joins(&mut self, server: &Server, copy: ReplicaId) -> bool {
        let acked = self.machines.acked.get(&server.id).copied();
        let Some(owner) = server.node else {
            return false;
        };
        let machine = self.machines.of(owner);
        let vm = machine.vms.get_mut(&server.id).filter(|_| machine.is_up);
        let joined = vm.is_some_and(|vm| {
            vm.slots.may_continue() && vm.slots.joined(server.epoch, copy).is_ok()
        });
        if joined && let Some(held) = self.machines.copy(server.id, copy) {
            held.has = acked.unwrap_or_default();
        }
        joined
    }

    /// The record is read first and the owner's node is asked afterwards; meanwhile anything may
    /// happen.
    async fn join(&mut self, by: usize, control: &Control, id: ServerId, copy: ReplicaId) {
        let (server, doubted) = self.read(by, id).await;
        let Some(owner) = server.node.filter(|_| !doubted) else {
            return;
        };
        let machine = self.machines.of(owner);
        let vm = machine.vms.get(&id).filter(|_| machine.is_up);
        if !vm.is_some_and(|vm| vm.slots.epoch == server.epoch && vm.slots.is_live(copy)) {
            return;
        }
        if self.dice.one_in(3) {
            self.machines.write(id);
            Box::pin(self.degrade(1 - by, id)).await;
            self.machines.write(id);
        }
        let tx = control.store.begin().await.unwrap();
        let record = tx.servers().lock(id).await.unwrap();
        if memory::is_doubted(&tx, id).await.unwrap() {
            return;
        }
        let all = copies::of(&tx, id).await.unwrap();
        match membership::join(&copies::record(&record, &all), server.epoch, copy) {
            Err(refusal) => self.note(format!("not joined: {refusal}")),
            Ok(next) => {
                copies::follow(&tx, &all, &next, None).await.unwrap();
                tx.servers().update(&record, 1).await.unwrap();
                if self.commit(tx).await && !self.dies() {
                    self.note(format!("joined: {copy}"));
                    self.tell(by, id).await;
                }
            }
        }
    }

    /// Two instances at once, over one file: the death of one node and of another, and a
    /// takeover beside them.
    pub async fn race(&mut self, id: ServerId) {
        let down: Vec<NodeId> = self
            .machines
            .all
            .iter()
            .filter(|it| !it.is_up)
            .map(|it| it.id)
            .collect();
        let (one, two) = (self.controls[0].clone(), self.controls[1].clone());
        let deaths = async |control: &Control| {
            for node in &down {
                let node = control.store.nodes().get(*node).await.unwrap();
                fence(control, &node, "it is silent").await.unwrap();
            }
        };
        let takes = async |control: &Control| {
            let tx = control.store.begin().await.unwrap();
            let server = tx.servers().lock(id).await.unwrap();
            if server.state == ServerState::Failed {
                let mut heirs = Heirs::recorded(&control.cluster, &tx).await.unwrap();
                drop(take_over(&tx, &mut heirs, server, "a race").await.unwrap());
                tx.commit().await.unwrap();
            }
        };
        tokio::join!(deaths(&one), deaths(&two), takes(&one), takes(&two));
        self.note("a race of deaths and takeovers");
    }

    /// Whoever is up says what it has seen; what somebody knows better is adopted once all are.
    pub async fn ask(&mut self) {
        let control = self.controls[0].clone();
        let store = &control.store;
        let nodes = memory::everyone(store).await.unwrap();
        let answers = self.machines.answers(control.term);
        for id in self.servers.clone() {
            let Some(doubt) = store.doubts().find(id).await.unwrap() else {
                continue;
            };
            // Two instances at once.
            if doubt.blocked.is_none() {
                let (one, two) = tokio::join!(
                    doubts::judge(&control, &nodes, &answers, id),
                    doubts::judge(&self.controls[1], &nodes, &answers, id),
                );
                one.and(two).unwrap();
                self.note(format!(
                    "judged: {:?}",
                    store.doubts().find(id).await.unwrap()
                ));
                continue;
            }
            if answers.len() < nodes.len() {
                continue;
            }
            let tx = store.begin().await.unwrap();
            let server = tx.servers().lock(id).await.unwrap();
            match adopt_in(&control, &tx, server, &answers).await {
                Ok(server) => {
                    let how = format!("adopted at {} by {:?}", server.epoch, server.node);
                    if self.commit(tx).await {
                        self.note(how);
                    }
                }
                Err(refusal) => self.note(format!("not adopted: {refusal:?}")),
            }
        }
    }
}
