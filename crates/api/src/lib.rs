//! Every type that crosses a process border of Undine, and nothing else.
//!
//! `public` is the REST API; `internal` is what nodes, guards and edges say to control; `node` is
//! what control says to a node; `guard` is what a node's guard answers; `guest` is what a node says to the agent inside a server; `edge`
//! is the routing table. All of it is JSON, refuses unknown requests and keeps its field names.

pub mod edge;
pub mod guard;
pub mod guest;
pub mod internal;
pub mod node;
pub mod problem;
pub mod public;

pub use problem::Problem;
