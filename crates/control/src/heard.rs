//! When each node was last heard, by this instance's own steady clock, and what follows from it.
//! Nothing here is read from the store or depends on the time of day.
//!
//! Only a confirmed round trip is life: a renewal counts when its guard has heard an answer since
//! the one before. An instance that has just started, or was stalled, counts silence from then on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use undine_model::NodeId;

/// A pause of the instance's own that counts as a stall.
const STALL: Duration = Duration::from_millis(500);
/// A node that is silent for this long is suspected.
pub const SUSPECT: Duration = Duration::from_millis(1_500);

/// When nodes were heard.
pub struct HeardBook(Mutex<Book>);

struct Book {
    /// Silence is counted from here at the earliest.
    listening: Instant,
    pulse: Instant,
    nodes: BTreeMap<NodeId, Heard>,
    suspects: BTreeMap<NodeId, Suspect>,
}

struct Heard {
    at: Instant,
    answered: u64,
}

/// A silence, which may be over.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    began: Instant,
    /// The operator was called.
    called: bool,
    /// It went on for so long that the node might have been declared dead.
    long: bool,
}

impl Default for HeardBook {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl HeardBook {
    /// An instance that listens from now on.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Book {
            listening: now,
            pulse: now,
            nodes: BTreeMap::new(),
            suspects: BTreeMap::new(),
        }))
    }

    /// The instance runs. After a stall everybody gets the time to be heard again.
    pub fn pulse(&self, now: Instant) {
        let mut book = self.lock();
        if now.saturating_duration_since(book.pulse) >= STALL {
            tracing::warn!("this instance was stalled; it listens anew");
            book.listening = now;
        }
        book.pulse = now;
    }

    /// A node's guard renewed: is it life?
    pub fn renewed(&self, node: NodeId, answered: u64, now: Instant) -> bool {
        let mut book = self.lock();
        let alive = book
            .nodes
            .get(&node)
            .is_none_or(|heard| is_round_trip(heard.answered, answered));
        if alive {
            book.nodes.insert(node, Heard { at: now, answered });
        }
        alive
    }

    /// Another instance heard a node so long ago, or its guard is known from before.
    pub fn told(&self, node: NodeId, age: Duration, now: Instant) {
        let mut book = self.lock();
        let listening = book.listening;
        let at = now.checked_sub(age).unwrap_or(listening);
        let heard = book.nodes.entry(node).or_insert(Heard { at, answered: 0 });
        heard.at = heard.at.max(at);
    }

    /// How long ago each node was heard, of those that ever were.
    pub fn ages(&self, now: Instant) -> BTreeMap<NodeId, Duration> {
        let book = self.lock();
        let age = |heard: &Heard| now.saturating_duration_since(heard.at);
        book.nodes.iter().map(|(id, it)| (*id, age(it))).collect()
    }

    /// How long a node has been silent while this instance listened; none when no guard of it was
    /// ever heard: it is never declared dead by itself.
    pub fn silence(&self, node: NodeId, now: Instant) -> Option<Duration> {
        let book = self.lock();
        let heard = book.nodes.get(&node)?;
        Some(now.saturating_duration_since(heard.at.max(book.listening)))
    }

    /// Is it heard without a gap?
    pub fn is_suspect(&self, node: NodeId, now: Instant) -> bool {
        self.silence(node, now).is_some_and(|it| it >= SUSPECT)
    }

    /// Notes who is silent among these nodes (with the silence that may mean death), and forgets
    /// silences that ended long ago.
    pub fn note(&self, nodes: &[(NodeId, Duration)], window: Duration, now: Instant) {
        for (node, limit) in nodes {
            let silence = self.silence(*node, now).unwrap_or_default();
            let mut book = self.lock();
            if silence >= SUSPECT {
                let began = now.checked_sub(silence).unwrap_or(now);
                let entry = book.suspects.entry(*node);
                let suspect = entry.or_insert(Suspect {
                    began,
                    called: false,
                    long: false,
                });
                suspect.long |= silence >= *limit;
            } else if let Some(suspect) = book.suspects.get(node).copied()
                && (!suspect.long || now.saturating_duration_since(suspect.began) > window)
            {
                book.suspects.remove(node);
            }
        }
        let known: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        self.lock().suspects.retain(|node, _| known.contains(node));
    }

    /// Is the operator to be called about this silence? Yes, once.
    pub fn call_once(&self, node: NodeId) -> bool {
        let mut book = self.lock();
        book.suspects
            .get_mut(&node)
            .is_some_and(|it| !std::mem::replace(&mut it.called, true))
    }

    /// How many of the noted nodes fell silent within this time of that one, itself included.
    pub fn together(&self, node: NodeId, window: Duration) -> usize {
        let book = self.lock();
        let Some(this) = book.suspects.get(&node) else {
            return 0;
        };
        let near = |other: &&Suspect| {
            let (a, b) = (this.began, other.began);
            let gap = a
                .saturating_duration_since(b)
                .max(b.saturating_duration_since(a));
            gap <= window
        };
        book.suspects.values().filter(near).count()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the guard heard an answer since it last said so? One that started anew counts from 0.
const fn is_round_trip(before: u64, now: u64) -> bool {
    now != before
}

/// Nobody may be declared dead when so many of the cluster's nodes fell silent together.
pub fn brake_holds(together: usize, nodes: usize, percent: u32) -> bool {
    let share = nodes * percent as usize / 100;
    together > share.max(1)
}

/// What the witnesses said about a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Witnesses {
    /// So many reach it.
    pub reach: usize,
    /// So many do not.
    pub miss: usize,
}

impl Witnesses {
    /// At least one was asked and cannot reach it, and none can.
    pub const fn confirm_death(self) -> bool {
        self.miss > 0 && self.reach == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(number: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_renewal_whose_guard_hears_no_answers_is_no_life() {
        let t0 = Instant::now();
        let book = HeardBook::new(t0);
        assert!(book.renewed(id(1), 7, t0), "the first word is believed");
        assert!(
            !book.renewed(id(1), 7, t0 + SECOND),
            "it heard nothing since"
        );
        assert!(book.renewed(id(1), 8, t0 + 2 * SECOND));
        assert!(book.renewed(id(1), 0, t0 + 3 * SECOND), "it started anew");
        assert!(!book.renewed(id(1), 0, t0 + 4 * SECOND));
        assert_eq!(book.silence(id(1), t0 + 5 * SECOND), Some(2 * SECOND));
        assert_eq!(book.silence(id(2), t0 + 5 * SECOND), None);
    }

    #[test]
    fn silence_counts_from_the_start_and_from_the_end_of_a_stall() {
        let t0 = Instant::now() + 100 * SECOND;
        let book = HeardBook::new(t0);
        book.told(id(1), 60 * SECOND, t0);
        assert_eq!(book.silence(id(1), t0 + SECOND), Some(SECOND));
        book.pulse(t0 + Duration::from_millis(400));
        assert_eq!(book.silence(id(1), t0 + SECOND), Some(SECOND));
        book.pulse(t0 + 9 * SECOND);
        assert_eq!(book.silence(id(1), t0 + 10 * SECOND), Some(SECOND));
        assert_eq!(book.ages(t0 + SECOND)[&id(1)], 61 * SECOND);
    }

    #[test]
    fn what_fell_silent_together_brakes_and_what_fell_silent_long_before_does_not() {
        let t0 = Instant::now();
        let window = 60 * SECOND;
        let book = HeardBook::new(t0);
        let limits: Vec<_> = (1..=3).map(|n| (id(n), 4 * SECOND)).collect();
        for (node, _) in &limits {
            book.renewed(*node, 1, t0);
        }
        book.renewed(id(3), 2, t0 + 100 * SECOND);
        book.note(&limits, window, t0 + 100 * SECOND);
        assert_eq!(book.together(id(1), window), 2, "1 and 2, not 3");
        book.note(&limits, window, t0 + 102 * SECOND);
        assert_eq!(book.together(id(3), window), 1);
        assert!(brake_holds(2, 3, 30) && !brake_holds(1, 3, 30));
        assert!(!brake_holds(3, 10, 30) && brake_holds(4, 10, 30));
        assert!(!brake_holds(1, 1, 30));
    }

    #[test]
    fn a_long_silence_that_ended_still_counts_for_a_while() {
        let t0 = Instant::now();
        let window = 60 * SECOND;
        let book = HeardBook::new(t0);
        let limits = [(id(1), 4 * SECOND), (id(2), 4 * SECOND)];
        book.renewed(id(1), 1, t0);
        book.renewed(id(2), 1, t0);
        book.note(&limits, window, t0 + 5 * SECOND);
        book.renewed(id(2), 2, t0 + 6 * SECOND);
        book.note(&limits, window, t0 + 6 * SECOND);
        assert_eq!(book.together(id(1), window), 2);
        book.renewed(id(2), 3, t0 + 66 * SECOND);
        book.note(&limits, window, t0 + 66 * SECOND);
        assert_eq!(book.together(id(1), window), 1);
    }

    #[test]
    fn one_witness_that_reaches_a_node_saves_it() {
        let said = |reach, miss| Witnesses { reach, miss }.confirm_death();
        assert!(said(0, 1) && said(0, 3));
        assert!(!said(0, 0) && !said(1, 3));
    }
}
