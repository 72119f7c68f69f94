//! The numbers of the lease protocol. Safety rests on none of them: they bound how long stale
//! pages could be read, and make things fast.

/// Numbers that every decision is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A node pauses its servers so long after its last confirmed renewal was *sent*.
    pub lease_ms: u64,
    /// A guard renews this often.
    pub renewal_ms: u64,
    /// Control counts a node as silent after so long; more than the lease, so that by then the
    /// node has paused what it cannot be sure of.
    pub silence_ms: u64,
    /// An instance that itself stood still for so long declares nobody dead for one lease.
    pub stall_ms: u64,
    /// Of the nodes, in percent: when more fall silent together, nothing is fenced.
    pub brake_percent: u64,
    /// Nodes that fall silent within this time of each other fall silent together.
    pub brake_window_ms: u64,
    /// The owner's node gives up on a copy that has not answered for so long.
    pub probe_ms: u64,
}

impl Policy {
    /// Nodes whose processors run guests themselves.
    pub const HARDWARE: Self = Self {
        lease_ms: 2_000,
        renewal_ms: 500,
        silence_ms: 2_500,
        stall_ms: 500,
        brake_percent: 30,
        brake_window_ms: 60_000,
        probe_ms: 2_000,
    };

    /// Emulated guests starve everything beside them: more patience before a node is called dead.
    pub const EMULATED: Self = Self {
        silence_ms: 4_000,
        ..Self::HARDWARE
    };
}

const _: () = assert!(
    Policy::HARDWARE.silence_ms > Policy::HARDWARE.lease_ms
        && Policy::EMULATED.silence_ms > Policy::EMULATED.lease_ms,
    "a node must have paused before it is called dead"
);
