//! undine-control: the API, the operations and the reconcilers; N equal instances.
//!
//! `commands` are what the program can be told on its command line; `api` is the public REST API
//! and `internal` what nodes, edges and other instances call; both are thin and call `app`, the
//! use cases. `operations` holds the durable work, `background` what goes on by itself. Nothing
//! that another instance needs is kept in memory only. The README says where what goes.

pub mod api;
pub mod app;
pub mod asking;
pub mod background;
pub mod blobs;
pub mod clock;
pub mod commands;
pub mod control;
pub mod copies;
pub mod dns;
pub mod failpoint;
pub mod fencing;
pub mod heard;
pub mod internal;
pub mod leases;
pub mod mail;
pub mod manifests;
pub mod memory;
pub mod nodes;
pub mod operations;
pub mod pages;
pub mod placement;
pub mod policy;
pub mod power;
pub mod refusal;
pub mod routes;
pub mod secrets;
pub mod slots;
pub mod state_dir;

pub use control::{Cluster, Control};
pub use refusal::Refusal;
