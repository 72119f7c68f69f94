//! Ids and records for the tests of this crate.

use std::collections::BTreeSet;

use undine_model::{NodeId, ReplicaId, ServerId};

use crate::membership::{Record, Replica, Worth};

pub fn node(number: u64) -> NodeId {
    NodeId::from_parts(number, [0; 10])
}

pub fn server(number: u64) -> ServerId {
    ServerId::from_parts(number, [0; 10])
}

pub fn replica_id(number: u64) -> ReplicaId {
    ReplicaId::from_parts(number, [0; 10])
}

pub fn ids(numbers: &[u64]) -> BTreeSet<ReplicaId> {
    numbers.iter().copied().map(replica_id).collect()
}

pub fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(node).collect()
}

/// A server at epoch 3, version 7, owned by node 1; replica n lies on node n.
pub fn record(worths: &[Worth]) -> Record {
    let replicas = (1..).zip(worths).map(|(number, worth)| Replica {
        id: replica_id(number),
        node: node(number),
        worth: *worth,
        left_epoch: None,
    });
    Record {
        server: server(1),
        epoch: 3,
        version: 7,
        owner: Some(node(1)),
        replicas: replicas.collect(),
        slots: worths.len(),
        wanted: true,
    }
}
