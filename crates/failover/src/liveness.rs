//! Which nodes are dead, as one instance of control sees it (protocols §4 and §5).
//!
//! ```text
//!   Alive ──silence──> Suspect ──others have not heard it, a witness cannot reach it──> Dead
//!                        │  └── too many at once ──> Braked ──operator──> Dead
//!                        └── a witness reaches it, or this instance was stalled ──> HeldBack
//! ```
//!
//! Only a confirmed round trip is life: a renewal that echoes a newer answer than the last one
//! did. A node whose words arrive, but which hears no answers, is silent.

use std::collections::{BTreeMap, BTreeSet};

use undine_model::NodeId;

use crate::policy::Policy;

mod brake;

/// So many witnesses are asked about a silent node.
const WITNESSES: usize = 3;

/// A node of the cluster, as an instance is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Which one.
    pub node: NodeId,
    /// It is declared dead, and not back yet.
    pub is_fenced: bool,
    /// Its silence may mean death after so long: nodes that emulate are slower.
    pub silence_ms: u64,
    /// Changes with every confirmation that its guard was given ([`crate::membership::confirms`]),
    /// committed before the guard is told: it may let servers go on as long as its lease lasts, so
    /// a confirmation counts as life. Commit a death only while this still stands.
    pub confirmed: u64,
}

/// What is thought of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It was heard of lately.
    Alive,
    /// It is silent, or nearly so. Read what the other instances have heard (say it to
    /// [`Watch::others`]) if `ask_others`, ask these nodes whether they reach it (say it to
    /// [`Watch::witness`]), and judge again.
    Suspect {
        /// What other instances have heard is not known for the time of its silence.
        ask_others: bool,
        /// Nodes that are alive, at most three.
        witnesses: Vec<NodeId>,
    },
    /// It is dead: its servers may be taken over. Why, in words.
    Dead(String),
    /// Too many are silent at once: nothing is fenced before the operator says so. Why, in words.
    Braked(String),
    /// It is silent, but not declared dead. Why, in words.
    HeldBack(String),
    /// It is declared dead already, and not back yet.
    Fenced,
}

#[derive(Debug, Clone, Default)]
struct Life {
    /// When it was heard of last, by whomever; when it became known, before that.
    last_ms: u64,
    /// The highest number that it sent and the highest that it echoed.
    number: u64,
    echoed: u64,
    is_fenced: bool,
    is_overridden: bool,
    /// After so long it may be dead.
    silence_ms: u64,
    confirmed: u64,
    /// What each witness said, and when.
    witnesses: BTreeMap<NodeId, (u64, bool)>,
}

impl Life {
    fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }

    fn is_silent(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms) >= self.silence_ms
    }

    fn is_nearly_silent(&self, now_ms: u64, ahead_ms: u64) -> bool {
        self.age_ms(now_ms) + ahead_ms >= self.silence_ms
    }
}

/// One instance's watch over the nodes. All times are milliseconds of its own clock that never
/// goes back.
#[derive(Debug, Clone)]
pub struct Watch {
    policy: Policy,
    ticked_ms: u64,
    quiet_until_ms: u64,
    others_ms: Option<u64>,
    nodes: BTreeMap<NodeId, Life>,
}

impl Watch {
    /// An instance that starts now: it declares nobody dead for one lease.
    ///
    /// ```
    /// use undine_failover::{Judgement, Known, Policy, Watch};
    /// use undine_model::NodeId;
    ///
    /// let (a, b) = (NodeId::from_parts(1, [0; 10]), NodeId::from_parts(2, [0; 10]));
    /// let mut watch = Watch::new(Policy::KVM, 0);
    /// let known = |node| Known { node, is_fenced: false, silence_ms: 2_500, confirmed: 0 };
    /// watch.know(0, &[known(a), known(b)]);
    /// for now in (0..=5_000).step_by(250) {
    ///     watch.tick(now);
    ///     watch.heard(now, a, now + 2, now + 1);
    /// }
    /// assert!(matches!(watch.judge(5_000)[&b], Judgement::Suspect { .. }));
    /// watch.others(5_000, &[]);
    /// watch.witness(5_000, b, a, false);
    /// assert!(matches!(watch.judge(5_000)[&b], Judgement::Dead(_)));
    /// ```
    pub fn new(policy: Policy, now_ms: u64) -> Self {
        Self {
            policy,
            ticked_ms: now_ms,
            quiet_until_ms: now_ms + policy.lease_ms,
            others_ms: None,
            nodes: BTreeMap::new(),
        }
    }

    /// Call this often, at least four times a second: a longer gap is a stall of this instance.
    pub fn tick(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.ticked_ms) >= self.policy.stall_ms {
            self.quiet_until_ms = now_ms + self.policy.lease_ms;
        }
        self.ticked_ms = self.ticked_ms.max(now_ms);
    }

    /// These are the cluster's nodes.
    pub fn know(&mut self, now_ms: u64, nodes: &[Known]) {
        let known: BTreeSet<NodeId> = nodes.iter().map(|it| it.node).collect();
        self.nodes.retain(|node, _| known.contains(node));
        for it in nodes {
            let life = self.nodes.entry(it.node).or_insert_with(|| Life {
                last_ms: now_ms,
                confirmed: it.confirmed,
                ..Life::default()
            });
            life.silence_ms = it.silence_ms;
            if life.confirmed != it.confirmed {
                (life.confirmed, life.last_ms) = (it.confirmed, now_ms);
            }
            if life.is_fenced != it.is_fenced {
                (life.is_fenced, life.is_overridden) = (it.is_fenced, false);
            }
        }
    }

    /// The operator changed the numbers.
    pub fn follow(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// A renewal came. Tells whether it is life. Lower numbers than were seen are late, or the
    /// guard counts anew: the latter is believed once the node has been silent.
    pub fn heard(&mut self, now_ms: u64, node: NodeId, number: u64, last_answered: u64) -> bool {
        let Some(life) = self.nodes.get_mut(&node) else {
            return false;
        };
        if number < life.number {
            if life.is_silent(now_ms) {
                (life.number, life.echoed) = (number, last_answered);
            }
            return false;
        }
        life.number = number;
        if last_answered <= life.echoed {
            return false;
        }
        life.echoed = last_answered;
        life.last_ms = life.last_ms.max(now_ms);
        true
    }

    /// What the other instances have heard was read just now: for each node, how long ago.
    pub fn others(&mut self, now_ms: u64, ages_ms: &[(NodeId, u64)]) {
        self.others_ms = Some(now_ms);
        for (node, age_ms) in ages_ms {
            if let Some(life) = self.nodes.get_mut(node) {
                life.last_ms = life.last_ms.max(now_ms.saturating_sub(*age_ms));
            }
        }
    }

    /// A witness, asked just now, reaches the node or does not.
    pub fn witness(&mut self, now_ms: u64, node: NodeId, by: NodeId, is_reachable: bool) {
        if let Some(life) = self.nodes.get_mut(&node).filter(|_| node != by) {
            life.witnesses.insert(by, (now_ms, is_reachable));
        }
    }

    /// The operator says that this node is dead: neither brake nor witnesses hold it back. It
    /// must still be silent, and the word is for this silence only.
    pub fn allow(&mut self, node: NodeId) {
        if let Some(life) = self.nodes.get_mut(&node) {
            life.is_overridden = true;
        }
    }

    /// How long ago the node was heard of.
    pub fn age_ms(&self, now_ms: u64, node: NodeId) -> Option<u64> {
        let life = self.nodes.get(&node)?;
        Some(life.age_ms(now_ms))
    }

    /// The nodes that were heard of lately.
    pub fn alive(&self, now_ms: u64) -> BTreeSet<NodeId> {
        let nodes = self.nodes.iter();
        let alive = nodes.filter(|(_, it)| !it.is_fenced && !it.is_silent(now_ms));
        alive.map(|(node, _)| *node).collect()
    }

    /// What is thought of every node.
    pub fn judge(&mut self, now_ms: u64) -> BTreeMap<NodeId, Judgement> {
        let alive = self.alive(now_ms);
        let ahead_ms = self.policy.ahead_ms;
        for life in self.nodes.values_mut() {
            if !life.is_silent(now_ms) {
                // The operator's word was for a silence that is over.
                life.is_overridden = false;
            }
            if !life.is_nearly_silent(now_ms, ahead_ms) {
                life.witnesses.clear();
            }
        }
        let braked = self.braked(now_ms);
        let nodes = self.nodes.iter();
        nodes
            .map(|(node, life)| {
                let judgement = match life {
                    Life {
                        is_fenced: true, ..
                    } => Judgement::Fenced,
                    it if !it.is_nearly_silent(now_ms, ahead_ms) => Judgement::Alive,
                    _ => self.silent(now_ms, *node, life, &alive, braked.as_ref()),
                };
                (*node, judgement)
            })
            .collect()
    }

    fn silent(
        &self,
        now_ms: u64,
        node: NodeId,
        life: &Life,
        alive: &BTreeSet<NodeId>,
        braked: Option<&String>,
    ) -> Judgement {
        if !life.is_silent(now_ms) {
            return self.nearly(now_ms, node, life, alive);
        }
        if now_ms < self.quiet_until_ms {
            let left = self.quiet_until_ms - now_ms;
            return Judgement::HeldBack(format!(
                "this instance has just started or was stalled: it judges in {left} ms"
            ));
        }
        let since = life.last_ms + life.silence_ms;
        let ask_others = self.others_ms.is_none_or(|at| at < since);
        let silence = now_ms - life.last_ms;
        if life.is_overridden && !ask_others {
            return Judgement::Dead(format!(
                "silent for {silence} ms, and the operator says that it is dead"
            ));
        }
        if let Some(why) = braked {
            return Judgement::Braked(why.clone());
        }
        let said: Vec<(&NodeId, bool)> = self.said(now_ms, life).collect();
        if let Some((by, _)) = said.iter().find(|(_, is_reachable)| *is_reachable) {
            return Judgement::HeldBack(format!(
                "silent for {silence} ms, but node {by} reaches it"
            ));
        }
        let asked = said.len();
        if ask_others || asked == 0 {
            return self.suspect(node, ask_others, alive);
        }
        Judgement::Dead(format!(
            "silent for {silence} ms, and {asked} of its neighbours cannot reach it either"
        ))
    }

    /// Not silent for long enough yet: witnesses take as long to be sure as they are asked ahead.
    fn nearly(
        &self,
        now_ms: u64,
        node: NodeId,
        life: &Life,
        alive: &BTreeSet<NodeId>,
    ) -> Judgement {
        let mut others = alive.clone();
        others.remove(&node);
        if self.said(now_ms, life).next().is_some() || others.is_empty() {
            return Judgement::Alive;
        }
        self.suspect(node, false, &others)
    }

    /// What witnesses said of this silence; old answers say nothing about now.
    fn said<'a>(
        &self,
        now_ms: u64,
        life: &'a Life,
    ) -> impl Iterator<Item = (&'a NodeId, bool)> + use<'a> {
        let since = (life.last_ms + life.silence_ms).saturating_sub(self.policy.ahead_ms);
        let said = life.witnesses.iter().filter(move |(_, (at, _))| {
            *at >= since && now_ms.saturating_sub(*at) < life.silence_ms
        });
        said.map(|(by, (_, is_reachable))| (by, *is_reachable))
    }

    fn suspect(&self, node: NodeId, ask_others: bool, alive: &BTreeSet<NodeId>) -> Judgement {
        let (before, after): (Vec<NodeId>, Vec<NodeId>) = alive.iter().partition(|it| **it < node);
        let witnesses: Vec<NodeId> = after.into_iter().chain(before).take(WITNESSES).collect();
        if witnesses.is_empty() && !ask_others {
            return Judgement::HeldBack(
                "silent, but no other node is left that could be asked: declare it dead yourself if you know it is".to_owned(),
            );
        }
        Judgement::Suspect {
            ask_others,
            witnesses,
        }
    }
}

#[cfg(test)]
mod tests;
