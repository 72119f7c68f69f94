//! undine-guard: renews its node's lease at control every half second, apart from the agent, so
//! that an agent that crashes, hangs or is upgraded is no node death; and pauses the node's servers
//! when it is cut off from everybody, so that they serve nothing stale.
//!
//! What is decided is pure, on milliseconds of the boot-time clock: [`lease`] (how the lease
//! stands), [`circle`] (the peers), [`ledger`] (what was paused), together in [`brain`]. Around it:
//! [`run`] asks control and the peers, [`hands`] speak to QEMU by [`qmp`], [`witness`] and [`api`]
//! answer others, [`shared`] keeps files, [`served`] reads the agent's list, [`status`] tells the
//! world.

pub mod api;
pub mod brain;
pub mod circle;
pub mod hands;
pub mod lease;
pub mod ledger;
mod metrics;
pub mod qmp;
mod renew;
pub mod run;
pub mod served;
pub mod shared;
pub mod status;
pub mod witness;
