//! A whole cluster on one thread: instances of control over a store, guards, agents, storage
//! daemons, virtual machines that write and flush, an edge; with simulated time, network and
//! disks, under seeded faults. The decisions are those of `undine_failover`, the same code that
//! runs in earnest. After each event the invariants of the protocol are checked; when everything
//! is mended, everything must run again. A seed that fails is run again with a trace.
//!
//! ```
//! assert!(undine_sim::run(1, None).is_ok());
//! ```

mod agent;
mod bug;
mod check;
mod copies;
mod copying;
mod disk;
mod drive;
mod faults;
mod guard;
pub mod ids;
mod instance;
mod msg;
mod node;
mod rng;
mod store;
mod vm;
mod world;

pub use bug::Bug;
pub use msg::Change;
pub use store::{Claim, Database, Founding, Memory};
pub use world::{Counts, World};

/// Runs one seed.
///
/// # Errors
/// What went wrong.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Counts, String> {
    World::new(seed, bug, false).run()
}

/// Runs one seed and keeps everything that happened, a line each.
pub fn replay(seed: u64, bug: Option<Bug>) -> (Result<Counts, String>, Vec<String>) {
    told(World::new(seed, bug, true))
}

/// Runs a world to its end and tells what happened in it, a line each.
pub fn told(mut world: World) -> (Result<Counts, String>, Vec<String>) {
    let result = world.run();
    let trace = world.trace();
    (result, trace)
}

/// The first of these seeds that, run so, finds the mistake, how many were needed, and what was
/// found.
pub fn hunt(
    run: impl Fn(u64, Option<Bug>) -> Result<Counts, String>,
    bug: Bug,
    seeds: std::ops::Range<u64>,
) -> Option<(u64, u64, String)> {
    let first = seeds.start;
    seeds.into_iter().find_map(|seed| {
        let found = run(seed, Some(bug)).err()?;
        Some((seed, seed - first + 1, found))
    })
}
