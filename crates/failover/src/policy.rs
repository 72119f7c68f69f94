//! The numbers of the protocol, each with where it comes from (the sections are those of the
//! design, "How a server stays one server").

/// The numbers. They bound how long things take; no rule of safety depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A node pauses its servers so long after its last acknowledged renewal was sent (§4).
    pub lease_ms: u64,
    /// How often a guard renews (§4).
    pub renew_every_ms: u64,
    /// Control suspects a node that was not heard of for so long (§5).
    pub silence_ms: u64,
    /// Witnesses are asked so long before that silence is over: they take as long to be sure (§5).
    pub ahead_ms: u64,
    /// An instance that did nothing for so long was stalled, and declares nobody dead for one
    /// lease (§4).
    pub stall_ms: u64,
    /// A replica that does not answer its owner's node within this has failed (§3).
    pub probe_ms: u64,
    /// Nodes that fall silent within so long of each other are counted together (§5).
    pub brake_window_ms: u64,
    /// More of the nodes than this, in percent, are never fenced together (§5) …
    pub brake_percent: usize,
    /// … unless they are no more than this many.
    pub brake_least: usize,
}

impl Policy {
    /// On real hardware.
    pub const KVM: Self = Self {
        lease_ms: 2_000,
        renew_every_ms: 500,
        silence_ms: 2_500,
        ahead_ms: 1_000,
        stall_ms: 500,
        probe_ms: 2_000,
        brake_window_ms: 60_000,
        brake_percent: 30,
        brake_least: 1,
    };
    /// Where servers are emulated, and everything on the machine is slow (§5).
    pub const EMULATION: Self = Self {
        silence_ms: 3_000,
        ..Self::KVM
    };

    /// So many of these nodes may be fenced together.
    ///
    /// ```
    /// use undine_failover::Policy;
    /// assert_eq!(Policy::KVM.brake_limit(3), 1);
    /// assert_eq!(Policy::KVM.brake_limit(10), 3);
    /// ```
    pub fn brake_limit(&self, nodes: usize) -> usize {
        (nodes * self.brake_percent / 100).max(self.brake_least)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::KVM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_pauses_before_control_may_count_it_as_dead() {
        for policy in [Policy::KVM, Policy::EMULATION] {
            assert!(policy.lease_ms < policy.silence_ms);
            assert!(policy.renew_every_ms * 3 < policy.lease_ms);
        }
    }
}
