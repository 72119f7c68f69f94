//! A running server's disk: one task watches its replicas, lets failed ones leave when control
//! has committed that, and brings replicas back.
//!
//! It never lets a server go on by itself after a replica's failure: what is acknowledged without
//! a replica before control has committed that would be lost with the others. The one `cont` of
//! its own is the end of a stop of its own (see [`join`]).

pub mod join;
mod keeper;
pub mod record;
mod scrub;
mod shared;

pub use keeper::{Keeper, ROTATE_EVERY, Start, keep};
pub use shared::Shared;

use tokio::sync::oneshot;
use undine_api::Problem;
use undine_api::node::{JoinSpec, JoinStatus, ScrubSpec, ScrubStatus, SlotsSpec};
use undine_model::ReplicaId;

/// What control wants of a disk.
#[derive(Debug)]
pub enum Wish {
    /// It has committed who is in sync.
    Slots(SlotsSpec, oneshot::Sender<Result<(), Problem>>),
    /// A replica shall join, or how far that is.
    Join(Box<JoinSpec>, oneshot::Sender<Result<JoinStatus, Problem>>),
    /// It shall not.
    Cancel(u64, ReplicaId, oneshot::Sender<Result<(), Problem>>),
    /// A replica shall be compared with the own one, or how far that is.
    Scrub(
        ReplicaId,
        ScrubSpec,
        oneshot::Sender<Result<ScrubStatus, Problem>>,
    ),
    /// It shall not.
    EndScrub(u64, ReplicaId, oneshot::Sender<Result<(), Problem>>),
}

impl Wish {
    /// Answers for a server that has no disk now: there is nothing to cancel.
    pub fn without_disk(self, problem: Problem) {
        match self {
            Self::Cancel(_, _, reply) | Self::EndScrub(_, _, reply) => drop(reply.send(Ok(()))),
            other => other.refuse(problem),
        }
    }

    /// Answers with a problem.
    pub fn refuse(self, problem: Problem) {
        match self {
            Self::Slots(_, reply) | Self::Cancel(.., reply) | Self::EndScrub(.., reply) => {
                drop(reply.send(Err(problem)));
            }
            Self::Join(_, reply) => drop(reply.send(Err(problem))),
            Self::Scrub(.., reply) => drop(reply.send(Err(problem))),
        }
    }
}
