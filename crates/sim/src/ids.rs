//! Small numbers for things, and the ids that the protocol knows them by.

use undine_model::{Id, NodeId, ReplicaId, ServerId};

/// The id of a node.
pub fn node(number: usize) -> NodeId {
    Id::from_parts(number as u64, [0; 10])
}

/// The id of a server.
pub fn server(number: usize) -> ServerId {
    Id::from_parts(number as u64, [0; 10])
}

/// The id of a replica.
pub fn replica(number: usize) -> ReplicaId {
    Id::from_parts(number as u64, [0; 10])
}

/// The number of what has this id.
pub fn number<K>(id: Id<K>) -> usize {
    (id.uuid().as_u128() >> 80) as usize
}
