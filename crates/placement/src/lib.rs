//! Where servers and their replicas live: a pure planner with reasons, its judge and its simulator.

pub mod generate;
pub mod htools;
pub mod rng;
