//! Where servers and their replicas live: a pure planner with reasons, its judge and its simulator.
//!
#![doc = include_str!("../README.md")]

mod cluster;
pub mod error;
pub mod generate;
pub mod htools;
pub mod judge;
pub mod plan;
pub mod policy;
pub mod predict;
pub mod rng;
pub mod roadef;
pub mod simulate;
pub mod snapshot;
mod survive;

pub use plan::{
    Action, Capacity, Change, Plan, PlanError, Step, WhatIf, capacity, drain, failover,
    place_server, rebalance, what_if,
};
pub use policy::Policy;
pub use snapshot::Snapshot;
