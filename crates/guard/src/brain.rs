//! All that the guard decides, in one place and pure: what it hears goes in, what is to be done
//! comes out, on milliseconds of the boot-time clock. The rules are those of protocols §4.
//!
//! ```text
//!   Calm ──lease nearly over──> in doubt: peers are asked ──lease over, most peers gone──> Isolated
//!    ^                                                                                       │
//!    └───────────── an answer of control, or half of the peers back ─────────────────────────┘
//! ```
//!
//! While isolated, whatever runs and could run elsewhere is stopped, again and again. What was
//! stopped goes on only when an answer of control has confirmed that this node owns it, at the same
//! epoch, and the lease that came with this answer lasts.

use undine_api::guard::Peer;
use undine_api::internal::{LeaseAnswer, LeaseRequest};
use undine_model::ServerId;

use crate::circle::Circle;
use crate::lease::{Lease, State};
use crate::ledger::{Entry, Ledger};
use crate::served::Served;

/// How often the lease is renewed.
pub const ASK_EVERY_MS: u64 = 500;
/// A node that has not been told otherwise may count as dead this long after its last renewal.
pub const LEASE_MS: u64 = 2_000;
/// With less than this left of its lease it asks its peers, as often as control.
const DOUBT_LEFT_MS: u64 = 1_100;
/// Otherwise it asks them as often as this, so that connections are warm when they are needed.
const CALM_PROBE_MS: u64 = 5_000;
/// What is to be stopped or continued is tried again as often as this.
const ACT_EVERY_MS: u64 = 500;

/// Something to do, now.
#[derive(Debug, Clone)]
pub enum Do {
    /// Ask control.
    Ask(LeaseRequest),
    /// Ask a peer whether it lives.
    Probe(Peer),
    /// Stop a server if it runs, having said so to [`Brain::pausing`].
    Pause(Served),
    /// Continue a server if it stands still, and say what came of it to [`Brain::settled`].
    Continue(Served, Entry),
}

/// What the guard knows.
#[derive(Debug, Clone)]
pub struct Brain {
    lease: Lease,
    circle: Circle,
    ledger: Ledger,
    served: Vec<Served>,
    born_ms: u64,
    is_isolated: bool,
    ask_at_ms: u64,
    probe_at_ms: u64,
    act_at_ms: u64,
}

impl Brain {
    /// A guard that begins now, with what one before it has left behind.
    pub fn new(now_ms: u64, lease: Lease, peers: Vec<Peer>, ledger: Ledger) -> Self {
        let mut circle = Circle::default();
        circle.told(peers);
        Self {
            lease,
            circle,
            ledger,
            served: Vec::new(),
            born_ms: now_ms,
            is_isolated: false,
            ask_at_ms: now_ms,
            probe_at_ms: now_ms,
            act_at_ms: now_ms,
        }
    }

    /// These are the node's servers. Tells whether the ledger changed.
    pub fn serves(&mut self, served: Vec<Served>) -> bool {
        self.served = served;
        let served = &self.served;
        self.ledger.keep_only(|server| {
            let found = served.iter().find(|it| it.server == server);
            found.map(|it| it.epoch)
        })
    }

    /// What is due.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Do> {
        let mut due = Vec::new();
        self.look(now_ms);
        if now_ms >= self.ask_at_ms {
            self.ask_at_ms = now_ms + ASK_EVERY_MS;
            due.push(Do::Ask(self.ask(now_ms)));
        }
        let is_doubtful = self.lease.left_ms(now_ms) < DOUBT_LEFT_MS;
        let probe_soonest = now_ms + ASK_EVERY_MS;
        if now_ms >= self.probe_at_ms || (is_doubtful && self.probe_at_ms > probe_soonest) {
            let wait = if is_doubtful {
                ASK_EVERY_MS
            } else {
                CALM_PROBE_MS
            };
            self.probe_at_ms = now_ms + wait;
            due.extend(self.circle.peers().into_iter().map(Do::Probe));
        }
        if now_ms >= self.act_at_ms {
            let acts = self.acts(now_ms);
            // What becomes due is done at the next tick; what did not help is tried again later.
            if !acts.is_empty() {
                self.act_at_ms = now_ms + ACT_EVERY_MS;
            }
            due.extend(acts);
        }
        due
    }

    fn look(&mut self, now_ms: u64) {
        let until_ms = self.lease.until_ms().unwrap_or(self.born_ms + LEASE_MS);
        let sent_ms = until_ms.saturating_sub(LEASE_MS);
        let is_isolated = now_ms >= until_ms && self.circle.is_lost(sent_ms);
        if is_isolated != self.is_isolated {
            self.is_isolated = is_isolated;
            self.act_at_ms = now_ms;
        }
        if is_isolated {
            self.ledger.isolated();
        }
    }

    fn ask(&mut self, now_ms: u64) -> LeaseRequest {
        LeaseRequest {
            confirm: self.ledger.is_waiting(),
            paused: self.ledger.servers(),
            ..self.lease.ask(now_ms)
        }
    }

    fn acts(&self, now_ms: u64) -> Vec<Do> {
        if self.is_isolated {
            let elsewhere = self.served.iter().filter(|it| !it.local_only);
            return elsewhere.cloned().map(Do::Pause).collect();
        }
        let served = |server| self.served.iter().find(|it| it.server == server).cloned();
        self.ledger
            .free(now_ms)
            .into_iter()
            .filter_map(|(server, entry)| Some(Do::Continue(served(server)?, entry)))
            .collect()
    }

    /// Control answered. Tells what is new for who keeps files and logs.
    pub fn answered(&mut self, answer: LeaseAnswer) -> News {
        let mut news = News::default();
        let Some(sent_ms) = self.lease.answered(&answer) else {
            return news;
        };
        news.peers = self.circle.told(answer.peers);
        if let Some(owns) = answer.owns {
            let until_ms = sent_ms.saturating_add(answer.lease_ms);
            news.stay = self.ledger.confirmed(&owns, sent_ms, until_ms);
            // Nobody waits longer than needed.
            self.act_at_ms = 0;
        }
        news
    }

    /// A peer answered, or did not, to a probe that was sent then.
    pub fn probed(&mut self, peer: &Peer, sent_ms: u64, is_answered: bool) {
        if is_answered {
            self.circle.answered(peer.node, sent_ms);
        } else {
            self.circle.silent(peer.node, sent_ms);
        }
    }

    /// A server was seen running and is about to be stopped: this is kept before it is.
    /// Tells whether it still is to be.
    pub fn pausing(&mut self, served: &Served, process: i32, now_ms: u64) -> bool {
        self.look(now_ms);
        if self.is_isolated {
            self.ledger
                .pausing(served.server, served.epoch, process, now_ms);
        }
        self.is_isolated
    }

    /// May this one still be continued?
    pub fn may_continue(&mut self, server: ServerId, process: i32, now_ms: u64) -> bool {
        self.look(now_ms);
        let mut free = self.ledger.free(now_ms).into_iter();
        free.any(|(it, entry)| it == server && entry.process == process)
    }

    /// A server runs, or its process is another one, or somebody else must see to it.
    pub fn settled(&mut self, server: ServerId) {
        self.ledger.forget(server);
    }

    /// How the lease stands.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How the lease stands, in a word.
    pub fn state(&self, now_ms: u64) -> State {
        self.lease.state(now_ms)
    }

    /// Is the node cut off?
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    /// What is paused.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The peers.
    pub fn peers(&self) -> Vec<Peer> {
        self.circle.peers()
    }
}

/// What an answer of control has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The peers are other ones.
    pub peers: bool,
    /// These stay paused: they are owned elsewhere, or at another epoch.
    pub stay: Vec<ServerId>,
}

#[cfg(test)]
mod tests;
