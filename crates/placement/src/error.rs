//! What can be wrong with an input, told precisely enough to mend it.

/// A snapshot, policy or demand that contradicts itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InputError {
    /// The JSON does not have the shape of a snapshot.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// Two things have the same id.
    #[error("{kind} {id:?} stands twice")]
    Twice {
        /// Node or server.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// Something names an id that nothing has.
    #[error("{by} names the {kind} {id:?}, which is not in the snapshot")]
    Unknown {
        /// Who names it.
        by: String,
        /// Node or server.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// A server stands on no node.
    #[error("server {server:?} stands on no node")]
    Homeless {
        /// The server.
        server: String,
    },
    /// A copy of a server's disk is listed where another one is.
    #[error("server {server:?} lists a replica on node {node:?}, which already holds a copy")]
    CopyTwice {
        /// The server.
        server: String,
        /// The node.
        node: String,
    },
    /// A server on shared storage, or one of one copy, lists replicas that it cannot have.
    #[error("server {server:?}: {what}")]
    Storage {
        /// The server.
        server: String,
        /// The contradiction.
        what: &'static str,
    },
    /// A node without any of a resource that every node needs.
    #[error("node {node:?} has no {resource}")]
    NoCapacity {
        /// The node.
        node: String,
        /// The resource.
        resource: &'static str,
    },
    /// A number beyond any real machine, which would make sums overflow.
    #[error("{of}: {field} is {value}, beyond any real machine")]
    TooLarge {
        /// Whose number.
        of: String,
        /// Which number.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A policy that no cluster can follow.
    #[error("policy: {what}")]
    Policy {
        /// The contradiction.
        what: String,
    },
}

impl From<serde_json::Error> for InputError {
    fn from(e: serde_json::Error) -> Self {
        let text = e.to_string();
        // serde_json appends the position, which we carry in fields of their own.
        let what = text
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned();
        Self::Json {
            line: e.line(),
            column: e.column(),
            what,
        }
    }
}
