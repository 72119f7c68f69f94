//! Is a node dead? What one instance of control has heard, whom it asks before it says so, and the
//! brake that stops it from fencing half a cluster because a switch failed.
//!
//! ```text
//!  renewals ──► Watch ──suspects──► ask the other instances, ask witnesses ──► judge
//!                                                                              │
//!           Alive · HeldBack (why) · Braked (why) · Dead (why)  ◄──────────────┘
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_model::NodeId;

use crate::policy::Policy;

/// What an instance has heard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    /// The last confirmed round trip, or when the instance began to listen.
    life_ms: u64,
    /// The number of the last renewal.
    number: u64,
    /// The last answer that the guard said had arrived.
    confirmed: u64,
}

/// What one instance has heard of all nodes, on its own clock.
#[derive(Debug, Clone)]
pub struct Watch {
    policy: Policy,
    /// Declares nobody dead before: it has just begun, or stood still.
    listens_until_ms: u64,
    turn_ms: u64,
    nodes: BTreeMap<NodeId, Heard>,
}

/// What was found out about a suspect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Other instances of control that answered: how long ago each heard of it.
    pub elsewhere_ms: Vec<u64>,
    /// Witnesses that answered: could they reach it?
    pub witnesses: Vec<bool>,
    /// An operator said, by name, that it is dead.
    pub overridden: bool,
}

/// What is to be thought of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "judgement", rename_all = "snake_case")]
pub enum Judgement {
    /// It was heard of.
    Alive,
    /// It is silent, but something speaks against its death.
    HeldBack {
        /// What, in words.
        reason: String,
    },
    /// Too many fell silent together: an operator must look.
    Braked {
        /// In words.
        reason: String,
    },
    /// It counts as dead: its servers go elsewhere.
    Dead {
        /// Why, in words.
        reason: String,
    },
}

impl Watch {
    /// An instance begins to listen.
    pub const fn new(policy: Policy, now_ms: u64) -> Self {
        Self {
            policy,
            listens_until_ms: now_ms + policy.silence_ms,
            turn_ms: now_ms,
            nodes: BTreeMap::new(),
        }
    }

    /// A renewal arrived: its number, and the last answer that had arrived at the guard. It is life
    /// only when that has grown: then a round trip was completed. Late and doubled ones count for
    /// nothing; a guard that starts anew counts from its second renewal on.
    pub fn renewed(&mut self, node: NodeId, number: u64, confirmed: u64, now_ms: u64) -> bool {
        let fresh = Heard {
            life_ms: now_ms,
            number,
            confirmed,
        };
        let Some(heard) = self.nodes.get_mut(&node) else {
            self.nodes.insert(node, fresh);
            return false;
        };
        if confirmed == 0 && number < heard.number {
            // A guard that began anew. Only numbers are taken over, never life.
            *heard = Heard {
                life_ms: heard.life_ms,
                ..fresh
            };
            return false;
        }
        let alive = number > heard.number && confirmed > heard.confirmed;
        heard.number = heard.number.max(number);
        if alive {
            heard.confirmed = confirmed;
            heard.life_ms = now_ms;
        }
        alive
    }

    /// The instance looks around. When it could not for a while, what it did not hear may have
    /// waited at its door: it listens for one lease before it thinks ill of anybody.
    pub fn turn(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.turn_ms) >= self.policy.stall_ms {
            self.listens_until_ms = now_ms + self.policy.silence_ms;
        }
        self.turn_ms = now_ms;
    }

    /// Whether it may think ill of anybody now.
    pub const fn is_calm(&self, now_ms: u64) -> bool {
        now_ms >= self.listens_until_ms
    }

    /// How long ago the node gave a sign of life; nodes never heard of count from when this
    /// instance was first asked about them.
    pub fn silent_ms(&mut self, node: NodeId, now_ms: u64) -> u64 {
        let heard = self.nodes.entry(node).or_insert(Heard {
            life_ms: now_ms,
            number: 0,
            confirmed: 0,
        });
        now_ms.saturating_sub(heard.life_ms)
    }

    /// Has it heard of the node lately? Asked by other instances; none when it has just begun or
    /// never heard of it, and cannot know.
    pub fn heard_ms_ago(&self, node: NodeId, now_ms: u64) -> Option<u64> {
        let heard = self.nodes.get(&node)?;
        Some(now_ms.saturating_sub(heard.life_ms))
    }

    /// The nodes that were silent for too long, of those that count: fenced ones do not. Empty
    /// while this instance only listens.
    pub fn suspects(&mut self, nodes: &[NodeId], now_ms: u64) -> Vec<NodeId> {
        let silence = self.policy.silence_ms;
        let silent = nodes
            .iter()
            .filter(|node| self.silent_ms(**node, now_ms) >= silence);
        let silent = silent.copied().collect();
        if self.is_calm(now_ms) { silent } else { vec![] }
    }

    /// What is to be thought of one node of `nodes` (those that count: neither removed nor fenced),
    /// with what was found out about it.
    pub fn judge(
        &mut self,
        node: NodeId,
        nodes: &[NodeId],
        evidence: &Evidence,
        now_ms: u64,
    ) -> Judgement {
        if evidence.overridden {
            return Judgement::Dead {
                reason: "an operator declared it dead".to_owned(),
            };
        }
        let silent = self.silent_ms(node, now_ms);
        if silent < self.policy.silence_ms {
            return Judgement::Alive;
        }
        if let Some(reason) = self.doubt(evidence, now_ms) {
            return Judgement::HeldBack { reason };
        }
        if let Some(reason) = self.brake(node, nodes, now_ms) {
            return Judgement::Braked { reason };
        }
        let seconds = silent as f64 / 1000.0;
        let witnesses = evidence.witnesses.len();
        let reason = format!("silent for {seconds:.1} s, out of reach of {witnesses} witnesses");
        Judgement::Dead { reason }
    }

    fn doubt(&self, evidence: &Evidence, now_ms: u64) -> Option<String> {
        if !self.is_calm(now_ms) {
            return Some("this instance has just begun to listen".to_owned());
        }
        if let Some(ago) = evidence.elsewhere_ms.iter().min()
            && *ago < self.policy.silence_ms
        {
            return Some(format!("another instance heard of it {ago} ms ago"));
        }
        if evidence.witnesses.contains(&true) {
            return Some("another node reaches it".to_owned());
        }
        let nobody = evidence.witnesses.is_empty();
        nobody.then(|| "no other node could be asked about it".to_owned())
    }

    fn brake(&mut self, node: NodeId, nodes: &[NodeId], now_ms: u64) -> Option<String> {
        let own = self.silent_ms(node, now_ms);
        let together = nodes.iter().filter(|other| {
            let silent = self.silent_ms(**other, now_ms);
            silent >= self.policy.silence_ms && silent.abs_diff(own) <= self.policy.brake_window_ms
        });
        let (together, all) = (together.count(), nodes.len());
        let limit = brake_limit(self.policy, all);
        (together > limit).then(|| {
            format!(
                "{together} of {all} nodes fell silent together and at most {limit} may: look at \
                 the network first; declare a node dead by name if it is"
            )
        })
    }
}

/// So many of `nodes` may fall silent together and still be fenced.
pub fn brake_limit(policy: Policy, nodes: usize) -> usize {
    let share = nodes as u64 * policy.brake_percent / 100;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    const P: Policy = Policy::HARDWARE;

    fn node(n: u8) -> NodeId {
        Id::from_parts(1, [n; 10])
    }

    /// A watch that heard each of `nodes` last at `at`, in an instance that is calm.
    fn watch(nodes: &[(u8, u64)]) -> Watch {
        let mut watch = Watch::new(P, 0);
        for (n, at) in nodes {
            watch.renewed(node(*n), 1, 0, 0);
            assert!(watch.renewed(node(*n), 2, 1, *at));
        }
        watch.turn_ms = u64::MAX;
        watch
    }

    fn all(count: u8) -> Vec<NodeId> {
        (1..=count).map(node).collect()
    }

    fn lonely() -> Evidence {
        Evidence {
            witnesses: vec![false],
            ..Evidence::default()
        }
    }

    #[test]
    fn only_a_completed_round_trip_is_life() {
        let mut watch = Watch::new(P, 0);
        assert!(!watch.renewed(node(1), 5, 4, 0), "the first is no trip yet");
        assert!(watch.renewed(node(1), 6, 5, 500));
        assert!(!watch.renewed(node(1), 7, 5, 1000), "answers do not arrive");
        assert!(!watch.renewed(node(1), 6, 5, 1500), "a double");
        assert_eq!(watch.silent_ms(node(1), 1500), 1000);
        assert!(!watch.renewed(node(1), 1, 0, 2000), "a guard began anew");
        assert_eq!(watch.silent_ms(node(1), 2000), 1500);
        assert!(watch.renewed(node(1), 2, 1, 2500));
    }

    #[test]
    fn a_silent_node_that_no_witness_reaches_is_dead() {
        let mut watch = watch(&[(1, 10_000), (2, 14_000), (3, 14_000)]);
        assert_eq!(watch.suspects(&all(3), 12_499), []);
        assert_eq!(watch.suspects(&all(3), 12_500), [node(1)]);
        let judged = watch.judge(node(1), &all(3), &lonely(), 12_500);
        assert!(matches!(judged, Judgement::Dead { .. }), "{judged:?}");
        let judged = watch.judge(node(2), &all(3), &lonely(), 14_100);
        assert_eq!(judged, Judgement::Alive);
    }

    #[test]
    fn anybody_who_hears_it_holds_its_death_back() {
        let mut watch = watch(&[(1, 10_000), (2, 20_000), (3, 20_000)]);
        for evidence in [
            Evidence::default(),
            Evidence {
                witnesses: vec![false, true],
                ..Evidence::default()
            },
            Evidence {
                elsewhere_ms: vec![9_000, 2_499],
                ..lonely()
            },
        ] {
            let judged = watch.judge(node(1), &all(3), &evidence, 20_000);
            assert!(matches!(judged, Judgement::HeldBack { .. }), "{judged:?}");
        }
        let heard_long_ago = Evidence {
            elsewhere_ms: vec![2_500],
            ..lonely()
        };
        let judged = watch.judge(node(1), &all(3), &heard_long_ago, 20_000);
        assert!(matches!(judged, Judgement::Dead { .. }));
    }

    #[test]
    fn an_instance_that_began_or_stood_still_listens_first() {
        let mut watch = Watch::new(P, 1_000);
        assert_eq!(watch.suspects(&all(2), 1_000), []);
        watch.turn(3_400);
        assert!(!watch.is_calm(3_500), "it stood still for 2.4 s");
        for step in 0..14 {
            watch.turn(3_400 + step * 200);
        }
        assert!(watch.is_calm(5_900));
        assert_eq!(watch.suspects(&all(2), 5_900), all(2));
    }

    #[test]
    fn many_that_fall_silent_together_are_not_fenced() {
        let heard: Vec<(u8, u64)> = (1..=10)
            .map(|n| (n, if n <= 4 { 10_000 } else { 30_000 }))
            .collect();
        let mut watch = watch(&heard);
        let judged = watch.judge(node(1), &all(10), &lonely(), 30_000);
        assert!(matches!(judged, Judgement::Braked { .. }), "{judged:?}");
        // Three of ten may; one that was fenced earlier counts on neither side.
        let others: Vec<NodeId> = all(10).into_iter().filter(|id| *id != node(4)).collect();
        assert_eq!(brake_limit(P, 10), 3);
        let judged = watch.judge(node(1), &others, &lonely(), 30_000);
        assert!(
            matches!(judged, Judgement::Braked { .. }),
            "3 of 9 is more than 30 %"
        );
        let override_ = Evidence {
            overridden: true,
            ..Evidence::default()
        };
        let judged = watch.judge(node(1), &all(10), &override_, 30_000);
        assert!(matches!(judged, Judgement::Dead { .. }));
    }

    #[test]
    fn one_of_a_small_cluster_may_always_fail() {
        for nodes in 1..4 {
            assert_eq!(brake_limit(P, nodes), 1);
        }
        let mut watch = watch(&[(1, 10_000), (2, 10_000), (3, 100_000)]);
        let judged = watch.judge(node(1), &all(3), &lonely(), 100_000);
        assert!(matches!(judged, Judgement::Braked { .. }), "two of three");
    }

    #[test]
    fn those_that_fell_silent_long_apart_did_not_fall_together() {
        let mut watch = watch(&[(1, 10_000), (2, 71_000), (3, 100_000)]);
        let judged = watch.judge(node(2), &all(3), &lonely(), 100_000);
        assert!(matches!(judged, Judgement::Dead { .. }), "{judged:?}");
    }
}
