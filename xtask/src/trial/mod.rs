//! What `bench failover` and `chaos` share: servers with sites, visitors who read and write, a
//! journal of all that was asked and answered, nodes that die and come back.

pub mod crowd;
pub mod fleet;
pub mod journal;
pub mod nodes;
pub mod rng;
pub mod writes;
