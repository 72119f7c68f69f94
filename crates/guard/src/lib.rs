//! undine-guard: renews its node's lease at control every half second, apart from the agent, so
//! that an agent that crashes, hangs or is upgraded is no node death.
//!
//! [`lease`] is the pure part: what is known of the lease at a moment of the boot-time clock.
//! [`run`] asks control and tells the world: a status file, and figures for Prometheus.

pub mod lease;
pub mod run;
