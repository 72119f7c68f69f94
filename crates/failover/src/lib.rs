//! The rules that keep a server one server while nodes die, links break and stores forget; pure.
//! Control and node run this code in earnest, and the simulator runs the same code; what a guard
//! decides stands in the guard's own crate, and the simulator runs that as well. Safety
//! never rests on clocks: leases and deadlines only make things fast. Times are milliseconds of
//! the caller's own clock, one that never goes back.
//!
//! | module | who asks it | what |
//! |---|---|---|
//! | [`policy`] | all | the numbers |
//! | [`liveness`] | control | which nodes are dead |
//! | [`membership`] | control | a server's record and every change of it |
//! | [`memory`] | control | may a store that came back be trusted? |
//! | [`targets`] | control | where servers of dead nodes start again |
//! | [`resync`] | control | which copies are filled, how, and where new ones go |
//! | [`scrub`] | control | when copies are compared, and what a difference means |
//! | [`machine`] | control | one fail-over, from observation to next action |
//! | [`slots`] | owner's node | when a failed replica leaves, when the guest may go on |
//! | [`holder`] | a replica's node | which openings are refused |
//!
//! A fail-over in outline: [`liveness::Watch::judge`] says `Dead`; [`targets::spread`] says where;
//! then [`machine::next`] is asked again and again with what is seen, and what it answers is done.

pub mod holder;
pub mod liveness;
pub mod machine;
pub mod membership;
pub mod memory;
pub mod policy;
pub mod resync;
pub mod scrub;
pub mod slots;
pub mod targets;

#[cfg(test)]
mod testing;

pub use liveness::{Judgement, Known, Watch};
pub use machine::{Next, Seen};
pub use membership::{Record, Refusal, Replica, Worth};
pub use policy::Policy;
