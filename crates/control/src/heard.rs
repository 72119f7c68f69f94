//! When each node was last heard, by this instance's own steady clock, and what
//! [`undine_failover::Watch`] makes of it. Nothing here depends on the time of day.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use undine_failover::{Judgement, Known, Policy as Rules, Watch};
use undine_model::NodeId;

/// A node that is silent for this long is suspected: nothing new is given to it.
pub const SUSPECT: Duration = Duration::from_millis(1_500);

/// When nodes were heard.
pub struct HeardBook {
    zero: Instant,
    book: Mutex<Book>,
}

struct Book {
    watch: Watch,
    /// The nodes as they were read last.
    nodes: Vec<Known>,
    /// Those whose guards were ever heard: no other one is declared dead by itself.
    guarded: BTreeSet<NodeId>,
    /// When this instance itself heard them.
    heard: BTreeMap<NodeId, u64>,
    /// About whose silence the operator was called.
    called: BTreeSet<NodeId>,
}

impl Default for HeardBook {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl HeardBook {
    /// An instance that listens from now on.
    pub fn new(now: Instant) -> Self {
        Self {
            zero: now,
            book: Mutex::new(Book {
                watch: Watch::new(Rules::default(), 0),
                nodes: Vec::new(),
                guarded: BTreeSet::new(),
                heard: BTreeMap::new(),
                called: BTreeSet::new(),
            }),
        }
    }

    /// The instance runs. Call this often: a long gap is a stall.
    pub fn pulse(&self, now: Instant) {
        let now = self.ms(now);
        self.lock().watch.tick(now);
    }

    /// These nodes have guards, as was written down before.
    pub fn remember(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.lock().guarded.extend(nodes);
    }

    /// These are the cluster's nodes, and this is how patient it is.
    pub fn know(&self, nodes: Vec<Known>, rules: Rules, now: Instant) {
        let now = self.ms(now);
        let mut book = self.lock();
        book.nodes = nodes;
        book.watch.follow(rules);
        book.watch_over(now);
    }

    /// A node's guard renewed: is it life?
    pub fn renewed(&self, node: NodeId, number: u64, answered: u64, now: Instant) -> bool {
        let now = self.ms(now);
        let mut book = self.lock();
        let is_new = !book.nodes.iter().any(|it| it.node == node);
        if is_new {
            // It has joined since the nodes were read.
            book.nodes.push(Known {
                node,
                is_fenced: false,
                silence_ms: Rules::EMULATION.silence_ms,
                confirmed: 0,
            });
        }
        if book.guarded.insert(node) || is_new {
            book.watch_over(now);
        }
        let is_life = book.watch.heard(now, node, number, answered);
        if is_life {
            book.heard.insert(node, now);
        }
        is_life
    }

    /// How long ago the other instances heard nodes, asked just now.
    pub fn others(&self, ages: &[(NodeId, u64)], now: Instant) {
        let now = self.ms(now);
        self.lock().watch.others(now, ages);
    }

    /// A node said just now whether it reaches another one.
    pub fn witness(&self, about: NodeId, by: NodeId, is_reachable: bool, now: Instant) {
        let now = self.ms(now);
        self.lock().watch.witness(now, about, by, is_reachable);
    }

    /// How long ago this instance itself heard each node.
    pub fn ages(&self, now: Instant) -> BTreeMap<NodeId, Duration> {
        let now = self.ms(now);
        let book = self.lock();
        let age = |at: &u64| Duration::from_millis(now.saturating_sub(*at));
        book.heard.iter().map(|(id, at)| (*id, age(at))).collect()
    }

    /// How long a node has been silent while this instance listened; none when no guard of it was
    /// ever heard.
    pub fn silence(&self, node: NodeId, now: Instant) -> Option<Duration> {
        let now = self.ms(now);
        self.lock()
            .watch
            .age_ms(now, node)
            .map(Duration::from_millis)
    }

    /// Is it silent for some while?
    pub fn is_suspect(&self, node: NodeId, now: Instant) -> bool {
        self.silence(node, now).is_some_and(|it| it >= SUSPECT)
    }

    /// What is thought of every node.
    pub fn judge(&self, now: Instant) -> BTreeMap<NodeId, Judgement> {
        let now = self.ms(now);
        let mut book = self.lock();
        let judged = book.watch.judge(now);
        let is_over = |node: &NodeId| matches!(judged.get(node), None | Some(Judgement::Alive));
        book.called.retain(|node| !is_over(node));
        judged
    }

    /// Is the operator to be called about this silence? Yes, once.
    pub fn call_once(&self, node: NodeId) -> bool {
        self.lock().called.insert(node)
    }

    fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.zero).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn watch_over(&mut self, now: u64) {
        let nodes = self.nodes.iter();
        let known = nodes.filter(|it| self.guarded.contains(&it.node)).copied();
        self.watch.know(now, &known.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(number: u128) -> Known {
        Known {
            node: NodeId::from_uuid(uuid::Uuid::from_u128(number)),
            is_fenced: false,
            silence_ms: 2_500,
            confirmed: 0,
        }
    }

    fn know(book: &HeardBook, nodes: &[Known], now: Instant) {
        book.know(nodes.to_vec(), Rules::default(), now);
    }

    #[test]
    fn a_node_whose_guard_was_never_heard_is_never_judged() {
        let t0 = Instant::now();
        let book = HeardBook::new(t0);
        let nodes = [node(1), node(2)];
        know(&book, &nodes, t0);
        assert!(book.judge(t0 + 60 * SECOND).is_empty());
        book.renewed(nodes[0].node, 1, 0, t0);
        assert_eq!(book.silence(nodes[0].node, t0 + SECOND), Some(SECOND));
        assert_eq!(book.silence(nodes[1].node, t0 + SECOND), None);
        book.remember([nodes[1].node]);
        know(&book, &nodes, t0 + SECOND);
        assert_eq!(book.judge(t0 + SECOND).len(), 2);
    }

    #[test]
    fn only_a_round_trip_is_life_and_only_that_is_told_to_others() {
        let t0 = Instant::now();
        let book = HeardBook::new(t0);
        let nodes = [node(1)];
        know(&book, &nodes, t0);
        assert!(
            !book.renewed(nodes[0].node, 1, 0, t0),
            "it heard nothing yet"
        );
        assert!(book.ages(t0).is_empty());
        assert!(book.renewed(nodes[0].node, 2, 1, t0 + SECOND));
        assert!(!book.renewed(nodes[0].node, 3, 1, t0 + 2 * SECOND));
        assert_eq!(book.ages(t0 + 3 * SECOND)[&nodes[0].node], 2 * SECOND);
    }

    #[test]
    fn a_node_that_has_just_joined_is_heard_before_it_was_read() {
        let t0 = Instant::now();
        let book = HeardBook::new(t0);
        assert!(book.renewed(node(1).node, 2, 1, t0));
        know(&book, &[node(1)], t0 + SECOND);
        assert_eq!(
            book.silence(node(1).node, t0 + 2 * SECOND),
            Some(2 * SECOND)
        );
    }

    #[test]
    fn the_operator_is_called_once_for_each_silence() {
        let t0 = Instant::now();
        let book = HeardBook::new(t0);
        let nodes = [node(1)];
        know(&book, &nodes, t0);
        book.renewed(nodes[0].node, 2, 1, t0);
        assert!(book.call_once(nodes[0].node) && !book.call_once(nodes[0].node));
        book.judge(t0 + 30 * SECOND);
        assert!(
            !book.call_once(nodes[0].node),
            "it is still the same silence"
        );
        book.renewed(nodes[0].node, 3, 2, t0 + 31 * SECOND);
        book.judge(t0 + 31 * SECOND);
        assert!(book.call_once(nodes[0].node));
    }
}
