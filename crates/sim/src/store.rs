//! The store: whether it answers, and the database that it is. [`Memory`] is one in memory, obeying
//! the real one's rules; the tests bring the real one.

use std::ops::{Deref, DerefMut};

use undine_failover::membership::Record;

use crate::msg::Change;

mod memory;

pub use memory::Memory;

/// The claim of an operation: which instance, until when.
pub type Claim = Option<(usize, u64)>;

/// What a database holds at the beginning.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The servers.
    pub records: Vec<Record>,
    /// How many nodes.
    pub nodes: usize,
    /// How many instances of control.
    pub instances: usize,
    /// A change is taken in place of the version that was read only; otherwise that mistake is
    /// planted.
    pub compares: bool,
}

/// What the simulated control asks of a database. What takes `&self` is for whoever only looks on:
/// it tells what was read last, and whoever changes anything reads it again.
pub trait Database {
    /// Rises when the database went back: what was begun against an earlier one is refused, as a
    /// broken connection would.
    fn generation(&self) -> u64;
    /// A server's record.
    fn record(&self, server: usize) -> &Record;
    /// The nodes that are declared dead.
    fn fenced(&self) -> &[bool];
    /// Changes with every confirmation, and with every life of the store: what was confirmed
    /// before it went back is not remembered, but may be under way.
    fn confirmed(&self, node: usize) -> u64;
    /// The epoch of a server's route.
    fn route(&self, server: usize) -> u64;
    /// An operator must see to the server.
    fn is_blocked(&self, server: usize) -> bool;
    /// Who works on a server.
    fn claim_of(&self, server: usize) -> Claim;

    /// Reads a server's record, to decide by it.
    fn read(&mut self, server: usize) -> Record {
        self.record(server).clone()
    }
    /// An instance claims the work on a server, or goes on with it. Tells whether it may.
    fn claim(&mut self, server: usize, instance: usize, now: u64, lease_ms: u64) -> bool;
    /// It lets the work go, if it is its own.
    fn release(&mut self, server: usize, instance: usize, now: u64);
    /// Takes a record in place of the version before it. Tells whether it did.
    fn commit(&mut self, server: usize, change: &Change) -> bool;
    /// An operator lets a record follow what the nodes say.
    fn adopt(&mut self, server: usize, record: Record);
    /// A server is blocked, with the reason, or not any more.
    fn block(&mut self, server: usize, why: Option<&str>);
    /// A node's guard is about to be confirmed what its node owns. Tells whether it may be: the
    /// node is not declared dead.
    fn confirm(&mut self, node: usize) -> bool;
    /// Declares a node dead, or back. Tells whether that was news.
    fn fence(&mut self, node: usize, is_fenced: bool) -> bool;
    /// Moves a route; never to a lower epoch.
    fn move_route(&mut self, server: usize, generation: u64, epoch: u64);
    /// It forgets its last commits. Tells whether there were any.
    fn go_back(&mut self, commits: usize) -> bool;
}

/// The store.
pub struct Store {
    /// It answers.
    pub is_up: bool,
    /// For each instance, when it heard each node last; they tell one another.
    heard: Vec<Vec<Option<u64>>>,
    database: Box<dyn Database>,
}

impl Store {
    /// One that answers, for so many instances.
    pub fn new(database: Box<dyn Database>, instances: usize) -> Self {
        Self {
            is_up: true,
            heard: vec![Vec::new(); instances],
            database,
        }
    }

    /// An instance tells when it heard each node last, and is told when others did.
    pub fn share(&mut self, instance: usize, heard: &[Option<u64>]) -> Vec<(usize, u64)> {
        self.heard[instance] = heard.to_vec();
        let others = self.heard.iter().enumerate();
        let others = others.filter(|(it, _)| *it != instance);
        let told = others.flat_map(|(_, heard)| heard.iter().enumerate());
        told.filter_map(|(node, at)| Some((node, (*at)?))).collect()
    }

    /// As [`Database::commit`], if it answers.
    pub fn commit(&mut self, server: usize, change: &Change) -> bool {
        self.is_up && self.database.commit(server, change)
    }

    /// As [`Database::confirm`], if it answers.
    pub fn confirm(&mut self, node: usize) -> bool {
        self.is_up && self.database.confirm(node)
    }

    /// As [`Database::fence`], if it answers.
    pub fn fence(&mut self, node: usize, is_fenced: bool) -> bool {
        self.is_up && self.database.fence(node, is_fenced)
    }

    /// As [`Database::move_route`], if it answers.
    pub fn move_route(&mut self, server: usize, generation: u64, epoch: u64) {
        if self.is_up {
            self.database.move_route(server, generation, epoch);
        }
    }
}

impl Deref for Store {
    type Target = dyn Database;

    fn deref(&self) -> &Self::Target {
        &*self.database
    }
}

impl DerefMut for Store {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.database
    }
}
