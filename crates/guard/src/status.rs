//! How the lease stands, for everybody on the node: a file, and figures for Prometheus.

use serde::{Deserialize, Serialize};
use undine_model::ServerId;

use crate::brain::Brain;
use crate::lease::State;

/// The file in the guard's folder.
pub const STATUS_FILE: &str = "lease.json";

/// How the lease stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// Milliseconds of the boot-time clock at which this was written.
    pub at_boottime_ms: u64,
    /// Milliseconds of the boot-time clock at which the lease ends.
    pub until_boottime_ms: u64,
    /// The same, or when it ended; none before the first answer.
    #[serde(default)]
    pub held_until_boottime_ms: Option<u64>,
    /// Renewals sent.
    pub sent: u64,
    /// The last one that was answered.
    pub answered: u64,
    /// The node reaches neither control nor half of its peers.
    #[serde(default)]
    pub isolated: bool,
    /// The servers that the guard has paused and not continued.
    #[serde(default)]
    pub paused: Vec<ServerId>,
}

/// How it stands now.
pub fn of(brain: &Brain, now_ms: u64) -> Status {
    let lease = brain.lease();
    Status {
        state: lease.state(now_ms),
        at_boottime_ms: now_ms,
        until_boottime_ms: now_ms + lease.left_ms(now_ms),
        held_until_boottime_ms: lease.until_ms(),
        sent: lease.number(),
        answered: lease.last_answered(),
        isolated: brain.is_isolated(),
        paused: brain.ledger().servers(),
    }
}

/// As Prometheus reads it.
pub fn figures(status: &Status) -> String {
    let held = u8::from(status.state == State::Held);
    let left = status.until_boottime_ms - status.at_boottime_ms;
    format!(
        "# HELP undine_guard_lease_held 1 while control counts this node as alive\n\
         # TYPE undine_guard_lease_held gauge\nundine_guard_lease_held {held}\n\
         # HELP undine_guard_lease_left_seconds What is left of the lease\n\
         # TYPE undine_guard_lease_left_seconds gauge\n\
         undine_guard_lease_left_seconds {}.{:03}\n\
         # HELP undine_guard_renewals_total Renewals sent\n\
         # TYPE undine_guard_renewals_total counter\nundine_guard_renewals_total {}\n\
         # HELP undine_guard_isolated 1 while neither control nor half of the peers is reached\n\
         # TYPE undine_guard_isolated gauge\nundine_guard_isolated {}\n\
         # HELP undine_guard_paused_servers Servers paused and not continued\n\
         # TYPE undine_guard_paused_servers gauge\nundine_guard_paused_servers {}\n",
        left / 1000,
        left % 1000,
        status.sent,
        u8::from(status.isolated),
        status.paused.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;
    use crate::ledger::Ledger;

    #[test]
    fn the_figures_tell_what_is_left() {
        let brain = Brain::new(0, Lease::remembered(2_000), vec![], Ledger::default());
        let text = figures(&of(&brain, 750));
        assert!(text.contains("lease_held 1\n") && text.contains("left_seconds 1.250\n"));
        assert!(text.contains("isolated 0\n") && text.contains("paused_servers 0\n"));
        let text = figures(&of(&brain, 2_500));
        assert!(text.contains("lease_held 0\n") && text.contains("left_seconds 0.000\n"));
    }

    #[test]
    fn a_file_of_an_older_guard_is_read() {
        let old =
            r#"{"state":"held","at_boottime_ms":1,"until_boottime_ms":2,"sent":3,"answered":2}"#;
        let read: Status = serde_json::from_str(old).unwrap();
        assert!(!read.isolated && read.paused.is_empty() && read.held_until_boottime_ms.is_none());
    }
}
