//! A database in memory, obeying the real one's rules: a change is taken in place of exactly the
//! version that was read; one that goes back to an earlier state is another generation.

use undine_failover::membership::Record;

use super::{Claim, Database, Founding};
use crate::msg::Change;

/// Everything that is stored, so that it can go back.
#[derive(Debug, Clone)]
struct State {
    records: Vec<Record>,
    fenced: Vec<bool>,
    confirmed: Vec<u64>,
    routes: Vec<u64>,
}

/// The database.
#[derive(Debug)]
pub struct Memory {
    now: State,
    past: Vec<State>,
    generation: u64,
    claims: Vec<Claim>,
    blocked: Vec<bool>,
    compares: bool,
}

/// States that can be gone back to.
const PAST: usize = 4;

impl Memory {
    /// One that holds this.
    pub fn new(founding: Founding) -> Self {
        let servers = founding.records.len();
        Self {
            now: State {
                routes: founding.records.iter().map(|it| it.epoch).collect(),
                records: founding.records,
                fenced: vec![false; founding.nodes],
                confirmed: vec![0; founding.nodes],
            },
            past: Vec::new(),
            generation: 1,
            claims: vec![None; servers],
            blocked: vec![false; servers],
            compares: founding.compares,
        }
    }

    fn remember(&mut self) {
        if self.past.len() == PAST {
            self.past.remove(0);
        }
        self.past.push(self.now.clone());
    }
}

impl Database for Memory {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn record(&self, server: usize) -> &Record {
        &self.now.records[server]
    }

    fn fenced(&self) -> &[bool] {
        &self.now.fenced
    }

    fn confirmed(&self, node: usize) -> u64 {
        (self.generation << 32) + self.now.confirmed[node]
    }

    fn route(&self, server: usize) -> u64 {
        self.now.routes[server]
    }

    fn is_blocked(&self, server: usize) -> bool {
        self.blocked[server]
    }

    fn claim_of(&self, server: usize) -> Claim {
        self.claims[server]
    }

    fn claim(&mut self, server: usize, instance: usize, now: u64, lease_ms: u64) -> bool {
        let may = |claim: (usize, u64)| claim.0 == instance || claim.1 <= now;
        if !self.claims[server].is_none_or(may) {
            return false;
        }
        self.claims[server] = Some((instance, now + lease_ms));
        true
    }

    fn release(&mut self, server: usize, instance: usize, _now: u64) {
        self.claims[server] = self.claims[server].filter(|(by, _)| *by != instance);
    }

    fn commit(&mut self, server: usize, change: &Change) -> bool {
        let stands = self.now.records[server].version;
        let is_dead = change.while_dead.is_none_or(|node| self.now.fenced[node]);
        if change.generation != self.generation || !is_dead {
            return false;
        }
        if self.compares && stands != change.base {
            return false;
        }
        self.remember();
        self.now.records[server] = change.record.clone();
        true
    }

    fn adopt(&mut self, server: usize, record: Record) {
        self.remember();
        self.now.records[server] = record;
        self.blocked[server] = false;
    }

    fn block(&mut self, server: usize, why: Option<&str>) {
        self.blocked[server] = why.is_some();
    }

    fn confirm(&mut self, node: usize) -> bool {
        if self.now.fenced[node] {
            return false;
        }
        self.now.confirmed[node] += 1;
        true
    }

    fn fence(&mut self, node: usize, is_fenced: bool) -> bool {
        if self.now.fenced[node] == is_fenced {
            return false;
        }
        self.remember();
        self.now.fenced[node] = is_fenced;
        true
    }

    fn move_route(&mut self, server: usize, generation: u64, epoch: u64) {
        if generation == self.generation && epoch > self.now.routes[server] {
            self.now.routes[server] = epoch;
        }
    }

    fn go_back(&mut self, commits: usize) -> bool {
        let at = self.past.len().saturating_sub(commits);
        if at == self.past.len() {
            return false;
        }
        self.now = self.past[at].clone();
        self.past.truncate(at);
        self.generation += 1;
        true
    }
}
