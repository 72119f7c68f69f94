//! What a guard knows of its node's lease, and what it decides (protocols §4): servers pause when
//! the node is cut off from control and from half of its peers, and go on only when control has
//! confirmed that this node owns them unchanged. All on milliseconds of the boot-time clock, which
//! goes on while the machine sleeps.
//!
//! ```text
//!   running ──lease over and cut off──> Paused ──answer: owned at this epoch──> running
//!                                          └────answer: owned otherwise───────> Stop
//! ```
//!
//! [`Guard`] is plain data: kept in a file, it tells a guard that starts again what the one before
//! it had paused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ServerId};

use crate::policy::Policy;

/// Requests that were sent longer ago than this are not waited for any more.
const KEEP_MS: u64 = 30_000;

/// How the lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No answer yet since the guard began.
    Unknown,
    /// Control counts this node as alive.
    Held,
    /// Control may count this node as dead.
    Lapsed,
}

/// The numbers of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Rises with every try.
    pub number: u64,
    /// The number of the last answer that arrived: only a confirmed round trip is life.
    pub last_answered: u64,
}

/// The lease. It counts from the moment at which the answered request was *sent*: that it arrived,
/// and when, only control knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    number: u64,
    last_answered: u64,
    /// Number and moment of requests that may still be answered, oldest first.
    sent: Vec<(u64, u64)>,
    until_ms: Option<u64>,
}

impl Lease {
    /// The next request, sent now.
    pub fn ask(&mut self, now_ms: u64) -> Renewal {
        self.number += 1;
        self.sent
            .retain(|(_, at)| now_ms.saturating_sub(*at) < KEEP_MS);
        self.sent.push((self.number, now_ms));
        Renewal {
            number: self.number,
            last_answered: self.last_answered,
        }
    }

    /// An answer arrived; tells when its request was sent. One to a request that nobody sent, or
    /// that is older than the last answered one, counts for nothing.
    pub fn answered(&mut self, number: u64, lease_ms: u64) -> Option<u64> {
        let at = self.sent.iter().position(|(it, _)| *it == number)?;
        let (_, sent_ms) = self.sent[at];
        self.sent.drain(..=at);
        self.last_answered = number;
        // A later answer with a shorter lease counts: control may have changed its mind.
        self.until_ms = Some(sent_ms.saturating_add(lease_ms));
        Some(sent_ms)
    }

    /// How it stands now.
    pub fn state(&self, now_ms: u64) -> State {
        match self.until_ms {
            None => State::Unknown,
            Some(until) if now_ms < until => State::Held,
            Some(_) => State::Lapsed,
        }
    }

    /// When it ends, or ended; none before the first answer.
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }
}

/// A server on the guard's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Which one.
    pub server: ServerId,
    /// The epoch under which it runs here.
    pub epoch: u64,
    /// Every copy of its disk that may be promoted is on this node.
    pub local_only: bool,
}

/// What is to be done to a server. An order that could not be carried out is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop its CPUs. Keep the guard's data first, so that it is known who paused it.
    Pause(ServerId),
    /// Let it go on, and tell [`Guard::resumed`].
    Resume(ServerId),
    /// It is owned elsewhere, or at another epoch: the agent ends and forgets it.
    Stop(ServerId),
}

/// A server that was paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Paused {
    epoch: u64,
    /// It may go on until then: control has confirmed it, under a lease that ends then.
    until_ms: Option<u64>,
    /// It never goes on.
    stays: bool,
}

/// A node's guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    lease: Lease,
    /// When this guard began: it pauses nothing before it has tried for a lease's length.
    born_ms: u64,
    lease_ms: u64,
    /// The last successful contact with each peer, by the moment of asking.
    peers: BTreeMap<NodeId, Option<u64>>,
    paused: BTreeMap<ServerId, Paused>,
}

impl Guard {
    /// A guard on a machine that has just started.
    ///
    /// ```
    /// use undine_failover::lease::{Guard, Order, Running};
    /// use undine_failover::Policy;
    /// use undine_model::{NodeId, ServerId};
    ///
    /// let server = ServerId::from_parts(1, [0; 10]);
    /// let here = [Running { server, epoch: 4, local_only: false }];
    /// let mut guard = Guard::new(&Policy::KVM, 10_000);
    /// guard.peers([NodeId::from_parts(2, [0; 10])]);
    /// let asked = guard.ask(10_000);
    /// guard.answered(asked.number, 2_000, None);
    /// assert!(guard.orders(11_999, &here).is_empty());
    /// assert_eq!(guard.orders(12_000, &here), [Order::Pause(server)]);
    /// // Control is back, and this node still owns the server.
    /// let asked = guard.ask(20_000);
    /// guard.answered(asked.number, 2_000, Some(&[(server, 4)]));
    /// assert_eq!(guard.orders(20_010, &here), [Order::Resume(server)]);
    /// ```
    pub fn new(policy: &Policy, now_ms: u64) -> Self {
        Self {
            lease: Lease::default(),
            born_ms: now_ms,
            lease_ms: policy.lease_ms,
            peers: BTreeMap::new(),
            paused: BTreeMap::new(),
        }
    }

    /// The guard starts again on the same boot, with what the one before it kept. Requests of the
    /// old one are not waited for, and confirmations that it had are asked for again.
    pub fn again(mut self, now_ms: u64) -> Self {
        self.lease.sent.clear();
        self.born_ms = now_ms;
        for it in self.paused.values_mut() {
            it.until_ms = None;
        }
        self
    }

    /// Control told of these peers. None is no news: an instance that has just started knows
    /// nobody.
    pub fn peers(&mut self, peers: impl IntoIterator<Item = NodeId>) {
        let told = peers.into_iter();
        let new: BTreeMap<_, _> = told
            .map(|node| (node, self.peers.get(&node).copied().flatten()))
            .collect();
        if !new.is_empty() {
            self.peers = new;
        }
    }

    /// A peer answered a question that was asked then.
    pub fn reached(&mut self, peer: NodeId, asked_ms: u64) {
        if let Some(last) = self.peers.get_mut(&peer) {
            *last = (*last).max(Some(asked_ms));
        }
    }

    /// The next renewal, sent now. Ask for what the node owns when [`Guard::must_confirm`].
    pub fn ask(&mut self, now_ms: u64) -> Renewal {
        self.lease.ask(now_ms)
    }

    /// Something is paused, and control is to say who owns it.
    pub fn must_confirm(&self) -> bool {
        self.paused.values().any(|it| !it.stays)
    }

    /// Control answered; `owns` is what this node owns, with epochs, read after the request came,
    /// or none when that was not asked or cannot be told for certain.
    pub fn answered(&mut self, number: u64, lease_ms: u64, owns: Option<&[(ServerId, u64)]>) {
        let Some(sent_ms) = self.lease.answered(number, lease_ms) else {
            return;
        };
        let Some(owns) = owns else { return };
        for (server, it) in self.paused.iter_mut().filter(|(_, it)| !it.stays) {
            if owns.contains(&(*server, it.epoch)) {
                it.until_ms = Some(sent_ms.saturating_add(lease_ms));
            } else {
                it.stays = true;
            }
        }
    }

    /// It reaches neither control nor half of its peers.
    pub fn is_isolated(&self, now_ms: u64) -> bool {
        let until_ms = self.lease.until_ms().unwrap_or(0);
        let until_ms = until_ms.max(self.born_ms + self.lease_ms);
        if now_ms < until_ms && self.lease.state(now_ms) != State::Held {
            // It has just begun.
            return false;
        }
        self.lease.state(now_ms) != State::Held && !self.reaches_peers(now_ms)
    }

    fn reaches_peers(&self, now_ms: u64) -> bool {
        let is_fresh = |last: &&Option<u64>| last.is_some_and(|at| now_ms < at + self.lease_ms);
        let reached = self.peers.values().filter(is_fresh).count();
        // Without peers there is nobody who could take anything over.
        reached * 2 >= self.peers.len()
    }

    /// What is to be done now to these, all of the node's servers. Ask again often, at least five
    /// times a second, and carry out at once.
    pub fn orders(&mut self, now_ms: u64, here: &[Running]) -> Vec<Order> {
        self.paused.retain(|server, it| {
            here.iter()
                .any(|r| (r.server, r.epoch) == (*server, it.epoch))
        });
        if self.is_isolated(now_ms) {
            return self.pause(here);
        }
        let order = |(server, it): (&ServerId, &Paused)| match it {
            Paused { stays: true, .. } => Some(Order::Stop(*server)),
            Paused {
                until_ms: Some(until),
                ..
            } if now_ms < *until => Some(Order::Resume(*server)),
            Paused { .. } => None,
        };
        self.paused.iter().filter_map(order).collect()
    }

    fn pause(&mut self, here: &[Running]) -> Vec<Order> {
        let mut orders = Vec::new();
        for it in here.iter().filter(|it| !it.local_only) {
            let paused = self.paused.entry(it.server).or_insert(Paused {
                epoch: it.epoch,
                until_ms: None,
                stays: false,
            });
            paused.until_ms = None;
            orders.push(Order::Pause(it.server));
        }
        orders
    }

    /// A server that was to go on does.
    pub fn resumed(&mut self, server: ServerId) {
        self.paused.remove(&server);
    }

    /// What stands still by its order, and what may never go on: these count as down.
    pub fn paused(&self) -> impl Iterator<Item = ServerId> {
        self.paused.keys().copied()
    }

    /// The lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

#[cfg(test)]
mod tests;
