//! For tests: a cluster in network namespaces, fakes of the wire, failpoints.

pub mod node;
pub mod postgres;
pub mod smtp;
