//! What is to be broken when, out of a seed alone: the same seed breaks the same things.

use std::fmt;

use crate::trial::rng::Rng;

/// What there is to break.
#[derive(Debug, Clone, Copy)]
pub struct Inventory {
    /// Edges.
    pub edges: usize,
    /// Is the store a PostgreSQL of ours?
    pub has_postgres: bool,
    /// The node whose disk is small enough to be filled, if one is.
    pub small_disk: Option<usize>,
    /// Can the nodes' disks be brought to what was flushed?
    pub are_writes_logged: bool,
}

/// A kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A server's QEMU.
    Qemu,
    /// A copy's storage daemon.
    Storage,
    /// A node's agent.
    Agent,
    /// A node's guard.
    Guard,
    /// An instance of control.
    Control,
    /// A public door.
    Edge,
    /// The database.
    Postgres,
}

impl Program {
    const fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Storage => "storage_daemon",
            Self::Agent => "agent",
            Self::Guard => "guard",
            Self::Control => "control",
            Self::Edge => "edge",
            Self::Postgres => "postgres",
        }
    }
}

/// One thing to break. Places are numbers, taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One process is killed with -9; what watches over it may start it again.
    Kill(Program, usize),
    /// One process is stopped, and continued later.
    Freeze(Program, usize),
    /// Everything on a node is killed at once and stays dead for a while.
    KillNode(usize),
    /// A node loses its power: as [`Fault::KillNode`], and what its disks had not flushed is lost
    /// by a chance that the second number decides.
    LosePower(usize, u64),
    /// All nodes lose their power at once: nowhere is there anything but what was flushed.
    Blackout(u64),
    /// All of a node's cables are pulled.
    CutLink(usize),
    /// A node is not heard any more, but hears.
    CutOut(usize),
    /// A node does not hear any more, but is heard.
    CutIn(usize),
    /// A node's disk is full.
    FillDisk(usize),
}

impl Fault {
    /// Its kind, as reports count it.
    pub fn kind(self) -> String {
        match self {
            Self::Kill(program, _) => format!("kill_{}", program.word()),
            Self::Freeze(program, _) => format!("freeze_{}", program.word()),
            Self::KillNode(_) => "kill_node".to_owned(),
            Self::LosePower(..) => "power_loss".to_owned(),
            Self::Blackout(_) => "blackout".to_owned(),
            Self::CutLink(_) => "cut_link".to_owned(),
            Self::CutOut(_) => "cut_one_way_out".to_owned(),
            Self::CutIn(_) => "cut_one_way_in".to_owned(),
            Self::FillDisk(_) => "disk_full".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blackout(_) => write!(f, "{}", self.kind()),
            Self::Kill(_, at)
            | Self::Freeze(_, at)
            | Self::KillNode(at)
            | Self::LosePower(at, _)
            | Self::CutLink(at)
            | Self::CutOut(at)
            | Self::CutIn(at)
            | Self::FillDisk(at) => write!(f, "{} ({at})", self.kind()),
        }
    }
}

/// One round: what is broken, how long until it may heal, and perhaps something more beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// What is broken.
    pub fault: Fault,
    /// For so long, milliseconds; a process that was killed comes back by itself.
    pub hold_ms: u64,
    /// A program beside it that is killed so long after it, milliseconds.
    pub beside: Option<(u64, Fault)>,
}

/// The rounds of a seed. Every kind of fault comes as often as every other one.
pub fn plan(seed: u64, rounds: usize, there: Inventory) -> Vec<Round> {
    let mut rng = Rng::new(seed);
    let mut deck: Vec<Fault> = Vec::new();
    let mut plan = Vec::new();
    while plan.len() < rounds {
        if deck.is_empty() {
            deck = all(there, &mut rng);
        }
        let fault = deck.swap_remove(rng.below(deck.len()));
        let hold_ms = 3_000 + rng.next() % 15_000;
        let is_double = rng.below(5) == 0;
        let light = light(there, &mut rng);
        let after = rng.next() % 3_000;
        let beside = light
            .filter(|it| is_double && it.kind() != fault.kind())
            .map(|it| (after, it));
        plan.push(Round {
            fault,
            hold_ms,
            beside,
        });
    }
    plan
}

fn all(there: Inventory, rng: &mut Rng) -> Vec<Fault> {
    use Program as P;
    // Servers are several; which one is decided when it is known what runs.
    let mut any = || rng.below(1_000);
    let mut deck = vec![
        Fault::Kill(P::Qemu, any()),
        Fault::Kill(P::Storage, any()),
        Fault::Kill(P::Agent, any()),
        Fault::Kill(P::Guard, any()),
        Fault::Kill(P::Control, any()),
        Fault::Kill(P::Edge, any()),
        Fault::Freeze(P::Qemu, any()),
        Fault::Freeze(P::Storage, any()),
        Fault::Freeze(P::Agent, any()),
        Fault::Freeze(P::Guard, any()),
        Fault::Freeze(P::Control, any()),
        Fault::KillNode(any()),
        Fault::CutLink(any()),
        Fault::CutOut(any()),
        Fault::CutIn(any()),
    ];
    if there.has_postgres {
        deck.push(Fault::Kill(P::Postgres, 0));
    }
    if there.are_writes_logged {
        deck.push(Fault::LosePower(rng.below(1_000), rng.next()));
        deck.push(Fault::Blackout(rng.next()));
    }
    if let Some(node) = there.small_disk {
        deck.push(Fault::FillDisk(node));
    }
    if there.edges < 2 {
        // Visitors have no other door.
        deck.retain(|it| !matches!(it, Fault::Kill(P::Edge, _)));
    }
    deck
}

/// Something that no server should feel, whatever else is broken.
fn light(there: Inventory, rng: &mut Rng) -> Option<Fault> {
    use Program as P;
    let mut any = [P::Agent, P::Guard, P::Control].to_vec();
    if there.has_postgres {
        any.push(P::Postgres);
    }
    let program = rng.pick(&any).copied()?;
    Some(Fault::Kill(program, rng.below(1_000)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: Inventory = Inventory {
        edges: 2,
        has_postgres: true,
        small_disk: Some(2),
        are_writes_logged: true,
    };

    #[test]
    fn a_seed_breaks_the_same_things_again() {
        assert_eq!(plan(7, 60, ALL), plan(7, 60, ALL));
        assert_ne!(plan(7, 60, ALL), plan(8, 60, ALL));
    }

    #[test]
    fn every_kind_comes_equally_often() {
        let rounds = plan(1, 19 * 4, ALL);
        let mut kinds = BTreeMap::new();
        for round in &rounds {
            *kinds.entry(round.fault.kind()).or_insert(0) += 1;
        }
        assert_eq!(kinds.len(), 19, "{kinds:?}");
        assert!(kinds.values().all(|count| *count == 4), "{kinds:?}");
        assert!(rounds.iter().any(|it| it.beside.is_some()));
    }

    #[test]
    fn what_is_not_there_is_not_broken() {
        let bare = Inventory {
            edges: 1,
            has_postgres: false,
            small_disk: None,
            are_writes_logged: false,
        };
        for round in plan(3, 200, bare) {
            let both = [Some(round.fault), round.beside.map(|it| it.1)];
            for fault in both.into_iter().flatten() {
                let kind = fault.kind();
                assert!(!kind.contains("postgres") && kind != "disk_full" && kind != "kill_edge");
                assert!(kind != "power_loss" && kind != "blackout");
            }
        }
    }
}
