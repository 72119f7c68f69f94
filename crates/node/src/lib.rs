//! undine-node: the hardware node's agent, one task a VM.
//!
//! Control asks by [`api`]; [`agent`] holds everything that the node has: [`images`],
//! [`replicas`], [`templates`] and one task a [`server`], which talks to the agent inside by
//! [`guest`]. [`net`] is the node's part of the server network, [`cgroup`] and [`uids`] keep
//! servers apart, [`usage`] and [`report`] tell control what is used. VMs and storage daemons
//! outlive the agent: a new one takes them over without touching them.

pub mod agent;
pub mod api;
pub mod blobs;
pub mod cgroup;
pub mod files;
pub mod guard_file;
pub mod guest;
pub mod host;
pub mod images;
pub mod inventory;
pub mod join;
pub mod metrics;
pub mod net;
pub mod problems;
pub mod renew;
pub mod replicas;
pub mod report;
pub mod run;
pub mod server;
pub mod settings;
pub mod spares;
pub mod templates;
pub mod terms;
pub mod uids;
pub mod usage;
