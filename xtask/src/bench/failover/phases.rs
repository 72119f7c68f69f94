//! A recovery in phases, out of the times that control, the node and the visitors tell.
//!
//! ```text
//!   kill ─detect─> operation made ─fence─> older exports gone ─turn─> shorter starts went first
//!        ─start─> the agent inside answers ─guest─> its site answers itself
//!        ─route─> a visitor has the right page
//! ```

use serde_json::Value;

use crate::bench::api::{number, text};
use crate::trial::journal::Read;

/// Seconds of each phase.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Phases {
    /// Until control has made the operation.
    pub detect_s: f64,
    /// Until no older owner can write.
    pub fence_s: f64,
    /// Until shorter starts have gone first.
    pub turn_s: f64,
    /// Until the agent inside answers.
    pub start_s: f64,
    /// Until the server answers for itself.
    pub guest_s: f64,
    /// Until a visitor has the page.
    pub route_s: f64,
    /// From the kill to the page.
    pub whole_s: f64,
}

/// Their names, in order.
pub const NAMES: [&str; 6] = ["detect", "fence", "turn", "start", "guest", "route"];

impl Phases {
    /// Out of the operation, the node's report of the start, and the visitor's answer.
    pub fn of(killed_ms: u64, operation: &Value, start: &Value, answered_ms: u64) -> Self {
        let made_ms = number(operation, "created_at");
        let fenced_ms = ended(operation, "fence").unwrap_or(made_ms);
        let up_ms = ended(operation, "boot")
            .or_else(|| ended(operation, "open"))
            .unwrap_or(answered_ms);
        let turn_ms = ended(operation, "turn").unwrap_or(fenced_ms);
        let boot_s = span(turn_ms, up_ms);
        // Of the node's own clock only the share is taken.
        let start_s = share_of_start(start).map_or(boot_s, |share| boot_s * share);
        Self {
            detect_s: span(killed_ms, made_ms),
            fence_s: span(made_ms, fenced_ms),
            turn_s: span(fenced_ms, turn_ms),
            start_s,
            guest_s: boot_s - start_s,
            route_s: span(up_ms, answered_ms),
            whole_s: span(killed_ms, answered_ms),
        }
    }

    /// In the order of [`NAMES`].
    pub fn parts(&self) -> [f64; 6] {
        [
            self.detect_s,
            self.fence_s,
            self.turn_s,
            self.start_s,
            self.guest_s,
            self.route_s,
        ]
    }

    /// For people.
    pub fn line(&self) -> String {
        let parts = NAMES.iter().zip(self.parts());
        let parts: Vec<String> = parts.map(|(name, s)| format!("{name} {s:.2}")).collect();
        format!("{:6.2} s ({})", self.whole_s, parts.join(", "))
    }
}

fn span(from_ms: u64, to_ms: u64) -> f64 {
    to_ms.saturating_sub(from_ms) as f64 / 1000.0
}

fn ended(operation: &Value, step: &str) -> Option<u64> {
    let mut steps = operation["steps"].as_array()?.iter();
    steps.find(|it| text(it, "name") == step)?["ended_at"].as_u64()
}

/// The part of a start that was over when the agent inside answered.
fn share_of_start(report: &Value) -> Option<f64> {
    let at = |name: &str| {
        let mut steps = report["steps_s"].as_array()?.iter();
        steps.find(|step| step[0] == name)?[1].as_f64()
    };
    let (agent, health) = (at("agent")?, at("health")?);
    (health > 0.0).then(|| (agent / health).clamp(0.0, 1.0))
}

/// Is this the operation that brought the server up after the kill?
pub fn is_failover(operation: &Value, server: &str, killed_ms: u64) -> bool {
    let subjects = operation["subjects"].as_array().into_iter().flatten();
    text(operation, "kind") == "server.failover"
        && number(operation, "created_at") >= killed_ms
        && subjects.into_iter().any(|it| it == server)
}

/// When the first visit that began after the kill was answered rightly.
pub fn first_right(reads: &[Read], site: &str, killed_ms: u64) -> Option<u64> {
    reads
        .iter()
        .filter(|it| it.site == site && it.asked_ms > killed_ms && it.is_right)
        .map(|it| it.ended_ms)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation() -> Value {
        json!({
            "kind": "server.failover", "created_at": 13_000, "subjects": ["s1"],
            "steps": [
                {"name": "choose", "started_at": 13_000, "ended_at": 13_050},
                {"name": "fence", "started_at": 13_050, "ended_at": 13_400},
                {"name": "turn", "started_at": 13_400, "ended_at": 13_900},
                {"name": "boot", "started_at": 13_900, "ended_at": 16_400},
                {"name": "open", "started_at": 16_400, "ended_at": 16_500},
            ],
        })
    }

    #[test]
    fn the_phases_add_up_to_the_whole() {
        let start = json!({"steps_s": [["vm", 0.4], ["agent", 1.0], ["health", 2.0]]});
        let phases = Phases::of(10_000, &operation(), &start, 16_700);
        assert_eq!(phases.parts(), [3.0, 0.4, 0.5, 1.25, 1.25, 0.3]);
        assert!((phases.parts().iter().sum::<f64>() - phases.whole_s).abs() < 1e-9);
        // A node that tells nothing: all of it counts as start.
        let phases = Phases::of(10_000, &operation(), &Value::Null, 16_700);
        assert_eq!((phases.start_s, phases.guest_s), (2.5, 0.0));
    }

    #[test]
    fn only_a_failover_of_this_server_after_this_kill_counts() {
        assert!(is_failover(&operation(), "s1", 10_000));
        assert!(!is_failover(&operation(), "s2", 10_000));
        assert!(!is_failover(&operation(), "s1", 13_001));
        let mut other = operation();
        other["kind"] = json!("server.start");
        assert!(!is_failover(&other, "s1", 10_000));
    }

    #[test]
    fn who_came_before_the_kill_proves_nothing() {
        let read = |asked_ms, ended_ms, is_right| Read {
            site: "a".to_owned(),
            asked_ms,
            ended_ms,
            is_right,
            seen: None,
            epoch: None,
            trouble: None,
        };
        let reads = [
            read(900, 1_500, true),
            read(1_001, 1_200, false),
            read(1_002, 9_000, true),
            read(2_000, 8_900, true),
        ];
        assert_eq!(first_right(&reads, "a", 1_000), Some(8_900));
        assert_eq!(first_right(&reads, "b", 1_000), None);
        assert_eq!(first_right(&reads[..2], "a", 1_000), None);
    }
}
