//! How far a server is: a pure function of what happened.
//!
//! ```text
//!            Start              AgentAnswered              Healthy
//!   Absent ─────────> Booting ────────────────> Configuring ──────> Running <──┐
//!   Stopped ──┘ Failed ─┘ │                          │                │ Lost   │ Resumed
//!                         │                          │                v        │
//!                         │                          │              Paused ────┘
//!                         └────────── Stop ──────────┴───── Stop ─────┤
//!                                                                     v
//!                                  Stopped <──────── Ended ──────── Stopping
//! ```
//!
//! An end that nobody asked for (`Ended` or `Broke` anywhere but in `Stopping`) is `Failed`.

use undine_api::node::Phase;

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Control wants it up.
    Start,
    /// The agent inside said hello.
    AgentAnswered,
    /// Data disk mounted, manifest applied, own request answered.
    Healthy,
    /// It paused: its disk or its lease is lost.
    Lost,
    /// It goes on.
    Resumed,
    /// Control wants it down.
    Stop,
    /// Its VM is gone.
    Ended,
    /// A step of its start failed for good.
    Broke,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::AgentAnswered,
        Self::Healthy,
        Self::Lost,
        Self::Resumed,
        Self::Stop,
        Self::Ended,
        Self::Broke,
    ];
}

/// The next phase; none when the event means nothing in this one.
pub fn next(phase: Phase, event: Event) -> Option<Phase> {
    use {Event as E, Phase as P};
    match (phase, event) {
        (P::Absent | P::Stopped | P::Failed, E::Start) => Some(P::Booting),
        (P::Booting, E::AgentAnswered) => Some(P::Configuring),
        (P::Configuring, E::Healthy) => Some(P::Running),
        (P::Running, E::Lost) => Some(P::Paused),
        (P::Paused, E::Resumed) => Some(P::Running),
        (P::Booting | P::Configuring | P::Running | P::Paused | P::Failed, E::Stop) => {
            Some(P::Stopping)
        }
        (P::Stopping, E::Ended) => Some(P::Stopped),
        (P::Booting | P::Configuring | P::Running | P::Paused, E::Ended | E::Broke) => {
            Some(P::Failed)
        }
        (P::Stopping, E::Broke) => Some(P::Failed),
        _ => None,
    }
}

/// Is there, or could there be, a VM in this phase?
pub fn has_vm(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Booting | Phase::Configuring | Phase::Running | Phase::Paused | Phase::Stopping
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_start_passes_every_phase_in_order() {
        let mut phase = Phase::Absent;
        for (event, wanted) in [
            (Event::Start, Phase::Booting),
            (Event::AgentAnswered, Phase::Configuring),
            (Event::Healthy, Phase::Running),
            (Event::Lost, Phase::Paused),
            (Event::Resumed, Phase::Running),
            (Event::Stop, Phase::Stopping),
            (Event::Ended, Phase::Stopped),
            (Event::Start, Phase::Booting),
        ] {
            phase = next(phase, event).unwrap();
            assert_eq!(phase, wanted);
        }
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure() {
        for phase in [
            Phase::Booting,
            Phase::Configuring,
            Phase::Running,
            Phase::Paused,
        ] {
            assert_eq!(next(phase, Event::Ended), Some(Phase::Failed));
        }
        assert_eq!(next(Phase::Stopping, Event::Ended), Some(Phase::Stopped));
    }

    proptest! {
        #[test]
        fn a_vm_is_only_started_where_there_is_none(
            events in proptest::collection::vec(proptest::sample::select(&Event::ALL[..]), 0..60),
        ) {
            let mut phase = Phase::Absent;
            let mut vms = 0_i32;
            for event in events {
                let Some(after) = next(phase, event) else { continue };
                if event == Event::Start {
                    vms += 1;
                }
                if has_vm(phase) && !has_vm(after) {
                    vms -= 1;
                }
                // Stopping a failed server only makes sure that nothing is left of it.
                if phase == Phase::Failed && event == Event::Stop {
                    vms += 1;
                }
                prop_assert!((0..=1).contains(&vms));
                prop_assert_eq!(vms == 1, has_vm(after));
                phase = after;
            }
        }
    }
}
