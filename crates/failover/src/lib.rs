//! The decisions that keep a server one server while nodes die, links break and disks are lost
//! (`docs/adr/0013-leases-death-membership.md`).
//!
//! Pure: no clock, no I/O, no randomness. Times are milliseconds of whichever clock the caller
//! measures all of them with. Control, the nodes and their guards act on what is decided here, and
//! the simulator (`undine-sim`) runs the very same functions through thousands of bad days.
//!
//! - [`policy`]: the numbers, with their reasons.
//! - [`liveness`]: is a node dead? What control asks before it says so, and the brake.
//! - [`membership`]: the record of a server, and each way in which it may change.
//! - [`targets`]: where the servers of a dead node go.
//! - [`resync`]: how a copy that fell behind is brought back.
//! - [`slots`]: what the owner's node does to the server's disk when a copy fails.
//! - [`holder`]: which openings the holder of a copy accepts.

pub mod holder;
pub mod liveness;
pub mod membership;
pub mod policy;
pub mod resync;
pub mod slots;
pub mod targets;

pub use policy::Policy;
