//! The store, in memory, obeying the real one's rules: a change is taken in place of exactly the
//! version that was read; a store that goes back to an earlier state is another generation, and
//! what was begun against the old one is refused, as a broken connection would.

use undine_failover::membership::Record;

use crate::msg::Change;

/// Everything that is stored, so that it can go back.
#[derive(Debug, Clone)]
struct State {
    records: Vec<Record>,
    fenced: Vec<bool>,
    confirmed: Vec<u64>,
    routes: Vec<u64>,
}

/// The claim of an operation: which instance, until when.
pub type Claim = Option<(usize, u64)>;

/// The store.
#[derive(Debug)]
pub struct Store {
    now: State,
    past: Vec<State>,
    /// Rises when the store went back.
    pub generation: u64,
    /// It answers.
    pub is_up: bool,
    /// For each server, who works on it.
    pub claims: Vec<Claim>,
    /// For each instance, when it heard each node last.
    pub heard: Vec<Vec<Option<u64>>>,
    /// Servers that an operator must see to.
    pub blocked: Vec<bool>,
    /// Commits that were taken.
    pub commits: u64,
    has_compare_and_set: bool,
}

/// States that can be gone back to.
const PAST: usize = 4;

impl Store {
    /// A store with these servers on so many nodes.
    pub fn new(
        records: Vec<Record>,
        nodes: usize,
        instances: usize,
        has_compare_and_set: bool,
    ) -> Self {
        let servers = records.len();
        Self {
            now: State {
                routes: records.iter().map(|it| it.epoch).collect(),
                records,
                fenced: vec![false; nodes],
                confirmed: vec![0; nodes],
            },
            past: Vec::new(),
            generation: 1,
            is_up: true,
            claims: vec![None; servers],
            heard: vec![vec![None; nodes]; instances],
            blocked: vec![false; servers],
            commits: 0,
            has_compare_and_set,
        }
    }

    /// A server's record.
    pub fn record(&self, server: usize) -> &Record {
        &self.now.records[server]
    }

    /// The nodes that are declared dead.
    pub fn fenced(&self) -> &[bool] {
        &self.now.fenced
    }

    /// The epoch of a server's route.
    pub fn route(&self, server: usize) -> u64 {
        self.now.routes[server]
    }

    /// Takes a record in place of the version before it. Tells whether it did.
    pub fn commit(&mut self, server: usize, change: &Change) -> bool {
        let stands = self.now.records[server].version;
        let is_dead = change.while_dead.is_none_or(|node| self.now.fenced[node]);
        if !self.is_up || change.generation != self.generation || !is_dead {
            return false;
        }
        if self.has_compare_and_set && stands != change.base {
            return false;
        }
        self.remember();
        self.now.records[server] = change.record.clone();
        true
    }

    /// An operator lets a record follow what the nodes say.
    pub fn adopt(&mut self, server: usize, record: Record) {
        self.remember();
        self.now.records[server] = record;
        self.blocked[server] = false;
    }

    /// A node's guard is about to be confirmed what its node owns. Tells whether it may be: the
    /// node is not declared dead.
    pub fn confirm(&mut self, node: usize) -> bool {
        if !self.is_up || self.now.fenced[node] {
            return false;
        }
        self.now.confirmed[node] += 1;
        true
    }

    /// Changes with every confirmation, and with every life of the store: what was confirmed
    /// before it went back is not remembered, but may be under way.
    pub fn confirmed(&self, node: usize) -> u64 {
        (self.generation << 32) + self.now.confirmed[node]
    }

    /// Declares a node dead, or back. Tells whether that was news.
    pub fn fence(&mut self, node: usize, is_fenced: bool) -> bool {
        if !self.is_up || self.now.fenced[node] == is_fenced {
            return false;
        }
        self.remember();
        self.now.fenced[node] = is_fenced;
        true
    }

    /// Moves a route; never to a lower epoch.
    pub fn move_route(&mut self, server: usize, generation: u64, epoch: u64) {
        if self.is_up && generation == self.generation && epoch > self.now.routes[server] {
            self.now.routes[server] = epoch;
        }
    }

    /// The store forgets its last commits.
    pub fn go_back(&mut self, commits: usize) -> bool {
        let at = self.past.len().saturating_sub(commits);
        if at == self.past.len() {
            return false;
        }
        self.now = self.past[at].clone();
        self.past.truncate(at);
        self.generation += 1;
        true
    }

    fn remember(&mut self) {
        self.commits += 1;
        if self.past.len() == PAST {
            self.past.remove(0);
        }
        self.past.push(self.now.clone());
    }
}
