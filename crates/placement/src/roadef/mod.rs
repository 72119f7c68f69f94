//! The ROADEF/EURO 2012 machine reassignment problem (set by Google): reader, judge and solver.
//!
//! It is the public benchmark of what this crate does: move costs, spread, dependencies, resources
//! that a moving process needs on both sides, balance. All values are whole numbers.

mod check;
mod counts;
mod generate;
mod model;
mod oust;
mod search;
mod state;

pub use check::{CheckError, cost};
pub use generate::generate;
pub use model::{Balance, Machine, Model, Process, ReadError, Resource, Service, read_assignment};
pub use search::{Effort, Solution, solve};

#[cfg(test)]
mod tests;
