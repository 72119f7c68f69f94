//! How a copy that fell behind is brought back, and where a missing one is made.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use undine_model::{NodeId, ReplicaId};

use crate::membership::{Record, Replica, Worth};

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// What the owner's daemon has recorded as written since the copy fell behind.
    Bitmap,
    /// Everything.
    Full,
}

/// Which way back a copy has, and why. The record of writes is enough only when the owner's daemon
/// (`source` is its incarnation now) has kept it without a gap and the owner is the one under whom
/// the copy left: a dead owner may have written to this copy what no other has.
pub fn method(record: &Record, replica: &Replica, source: Option<&str>) -> (Method, &'static str) {
    let Some(left) = &replica.left else {
        return (Method::Full, "nobody knows since when it lacks writes");
    };
    if left.epoch != record.epoch {
        return (Method::Full, "the owner changed since it fell behind");
    }
    if Some(left.source.as_str()) != source {
        return (Method::Full, "the owner's daemon was restarted since");
    }
    (
        Method::Bitmap,
        "the owner recorded every write since it fell behind",
    )
}

/// What a server with too few members needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It has all its copies.
    Nothing,
    /// This copy is brought back.
    Refill(ReplicaId),
    /// A new copy is made on one of the other nodes; the one named is given up.
    New {
        /// Nodes that may take it: alive, without a copy of this server.
        nodes: Vec<NodeId>,
        /// Nobody waits for it any more.
        instead_of: Option<ReplicaId>,
    },
    /// There is nothing to do but wait.
    Wait(&'static str),
}

/// Decides it. `alive` are the nodes that may hold copies; `is_patient` says for a node that is
/// away whether it is still waited for.
pub fn next(
    record: &Record,
    wanted: usize,
    alive: &BTreeSet<NodeId>,
    is_patient: impl Fn(NodeId) -> bool,
) -> Next {
    if !record.owner.is_some_and(|owner| alive.contains(&owner)) {
        return Next::Wait("its owner is away");
    }
    if record.members().count() >= wanted {
        return Next::Nothing;
    }
    let behind = |replica: &&Replica| !matches!(replica.worth, Worth::InSync | Worth::Lost);
    let mut others = record.replicas.iter().filter(behind);
    // One that is being filled goes on first: its way is the shortest.
    let here = others
        .clone()
        .filter(|replica| alive.contains(&replica.node))
        .min_by_key(|replica| {
            (
                replica.worth != Worth::Syncing,
                replica.left.is_none(),
                replica.id,
            )
        });
    if let Some(replica) = here {
        return Next::Refill(replica.id);
    }
    if record.replicas.len() >= wanted && others.clone().any(|replica| is_patient(replica.node)) {
        return Next::Wait("the node of its other copy is expected back");
    }
    let holders: BTreeSet<NodeId> = record.replicas.iter().map(|replica| replica.node).collect();
    let nodes: Vec<NodeId> = alive.difference(&holders).copied().collect();
    if nodes.is_empty() {
        return Next::Wait("no other node is there to hold a copy");
    }
    let full = record.replicas.len() >= wanted;
    Next::New {
        nodes,
        instead_of: full
            .then(|| others.next().map(|replica| replica.id))
            .flatten(),
    }
}

#[cfg(test)]
mod tests {
    use undine_model::Id;

    use super::*;

    fn node(n: u8) -> NodeId {
        Id::from_parts(1, [n; 10])
    }

    fn copy(n: u8, worth: Worth) -> Replica {
        Replica::new(Id::from_parts(2, [n; 10]), node(n), worth)
    }

    fn record(replicas: Vec<Replica>) -> Record {
        Record {
            server: Id::from_parts(3, [0; 10]),
            epoch: 3,
            version: 1,
            owner: Some(node(1)),
            replicas,
        }
    }

    fn alive(nodes: &[u8]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(node).collect()
    }

    #[test]
    fn the_record_of_writes_counts_only_without_a_gap() {
        let two = record(vec![copy(1, Worth::InSync), copy(2, Worth::InSync)]);
        let degraded = two.degrade(copy(2, Worth::InSync).id, Some("abc")).unwrap();
        let behind = degraded.on(node(2)).unwrap();
        assert_eq!(method(&degraded, behind, Some("abc")).0, Method::Bitmap);
        assert_eq!(method(&degraded, behind, Some("new")).0, Method::Full);
        assert_eq!(method(&degraded, behind, None).0, Method::Full);
        let mut moved = degraded.clone();
        moved.epoch += 1;
        assert_eq!(method(&moved, behind, Some("abc")).0, Method::Full);
        let promoted = two.promote(node(2)).unwrap();
        let behind = promoted.on(node(1)).unwrap();
        assert_eq!(method(&promoted, behind, Some("abc")).0, Method::Full);
    }

    #[test]
    fn a_copy_that_is_there_comes_back_before_a_new_one_is_made() {
        let server = record(vec![copy(1, Worth::InSync), copy(2, Worth::Stale)]);
        let id = server.replicas[1].id;
        assert_eq!(
            next(&server, 2, &alive(&[1, 2, 3]), |_| true),
            Next::Refill(id)
        );
        let full = record(vec![copy(1, Worth::InSync), copy(2, Worth::InSync)]);
        assert_eq!(next(&full, 2, &alive(&[1, 2, 3]), |_| true), Next::Nothing);
    }

    #[test]
    fn a_node_that_stays_away_is_replaced_after_some_patience() {
        let server = record(vec![copy(1, Worth::InSync), copy(2, Worth::Stale)]);
        let waits = next(&server, 2, &alive(&[1, 3]), |_| true);
        assert!(matches!(waits, Next::Wait(_)), "{waits:?}");
        let new = Next::New {
            nodes: vec![node(3)],
            instead_of: Some(server.replicas[1].id),
        };
        assert_eq!(next(&server, 2, &alive(&[1, 3]), |_| false), new);
        let waits = next(&server, 2, &alive(&[1]), |_| false);
        assert!(matches!(waits, Next::Wait(_)), "nobody else is there");
        assert!(matches!(
            next(&server, 2, &alive(&[2, 3]), |_| false),
            Next::Wait(_)
        ));
    }

    #[test]
    fn a_server_that_wants_more_copies_gets_them_beside_the_others() {
        let server = record(vec![copy(1, Worth::InSync)]);
        let new = Next::New {
            nodes: vec![node(2), node(3)],
            instead_of: None,
        };
        assert_eq!(next(&server, 2, &alive(&[1, 2, 3]), |_| false), new);
    }
}
