//! How patient the cluster is with silent nodes, and how it copies disks: one setting, with
//! defaults that hold where it was never written.

use serde::{Deserialize, Serialize};
use undine_failover::Policy as Rules;
use undine_store::Db;

use crate::refusal::{Refusal, Result};

/// What decides about deaths and copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// A node with KVM may be dead after this silence, ms.
    pub silence_kvm_ms: u64,
    /// A node whose guests are emulated may be dead after this silence, ms: it is slow.
    pub silence_tcg_ms: u64,
    /// When more than this share of the nodes falls silent together, nobody is declared dead.
    pub brake_percent: u32,
    /// What counts as together, ms.
    pub brake_window_ms: u64,
    /// A copy whose node has been away for so long is replaced elsewhere, ms.
    pub replace_after_ms: u64,
    /// A copy is filled with at most so many bytes a second; 0 for no limit.
    pub limit_bytes_s: u64,
    /// So many copies at once are filled on, or from, a node.
    pub joins_per_node: u32,
    /// The copies of a running server's disk are compared after so many days; 0 for never.
    pub scrub_every_days: u32,
    /// They are read with at most so many bytes a second; 0 for no limit.
    pub scrub_limit_bytes_s: u64,
    /// Are connections between a server and its remote copies encrypted?
    pub tls: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            silence_kvm_ms: 2_500,
            silence_tcg_ms: 3_000,
            brake_percent: 30,
            brake_window_ms: 60_000,
            replace_after_ms: 120_000,
            limit_bytes_s: 200 << 20,
            joins_per_node: 2,
            scrub_every_days: 30,
            scrub_limit_bytes_s: 50 << 20,
            tls: true,
        }
    }
}

/// Does a node with this accelerator translate its guests' code? Everything there takes longer.
pub fn is_emulated(accelerator: &str) -> bool {
    accelerator != "kvm"
}

impl Policy {
    /// The setting that holds it.
    pub const KEY: &'static str = "failover";

    /// As it is set.
    pub async fn of(db: &impl Db) -> Result<Self> {
        Ok(db.settings().get(Self::KEY).await?.unwrap_or_default())
    }

    /// A node with this accelerator may be dead after this silence, ms.
    pub fn silence_ms(&self, accelerator: &str) -> u64 {
        if is_emulated(accelerator) {
            self.silence_tcg_ms
        } else {
            self.silence_kvm_ms
        }
    }

    /// The numbers that decide about deaths.
    pub fn rules(&self) -> Rules {
        Rules {
            brake_percent: self.brake_percent as usize,
            brake_window_ms: self.brake_window_ms,
            ..Rules::default()
        }
    }

    /// Values that make sense.
    pub fn check(&self) -> Result<()> {
        let silence = 2_500..=60_000;
        for (field, value) in [
            ("silence_kvm_ms", self.silence_kvm_ms),
            ("silence_tcg_ms", self.silence_tcg_ms),
        ] {
            if !silence.contains(&value) {
                return Err(Refusal::invalid(
                    field,
                    "A node may be declared dead after 2500 to 60000 ms of silence: its own lease ends after 2000.",
                ));
            }
        }
        if !(1..=50).contains(&self.brake_percent) {
            return Err(Refusal::invalid(
                "brake_percent",
                "The brake holds from 1 to 50 percent of the nodes on.",
            ));
        }
        if !(1_000..=3_600_000).contains(&self.brake_window_ms) {
            return Err(Refusal::invalid(
                "brake_window_ms",
                "The brake looks at 1000 to 3600000 ms.",
            ));
        }
        if !(1..=64).contains(&self.joins_per_node) {
            return Err(Refusal::invalid(
                "joins_per_node",
                "A node fills 1 to 64 copies at once.",
            ));
        }
        if self.limit_bytes_s != 0 && self.limit_bytes_s < 1 << 20 {
            return Err(Refusal::invalid(
                "limit_bytes_s",
                "A copy is filled with at least 1 MiB a second, or without limit (0).",
            ));
        }
        if self.scrub_every_days > 3_650 {
            return Err(Refusal::invalid(
                "scrub_every_days",
                "Copies are compared every 1 to 3650 days, or never (0).",
            ));
        }
        if self.scrub_limit_bytes_s != 0 && self.scrub_limit_bytes_s < 1 << 20 {
            return Err(Refusal::invalid(
                "scrub_limit_bytes_s",
                "Copies are compared with at least 1 MiB a second, or without limit (0).",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_set_is_the_default_and_what_makes_no_sense_is_refused() {
        let policy: Policy = serde_json::from_str(r#"{"joins_per_node": 3}"#).unwrap();
        assert_eq!(policy.joins_per_node, 3);
        assert_eq!(policy.silence_ms("kvm"), 2_500);
        assert_eq!(policy.silence_ms("tcg"), 3_000);
        policy.check().unwrap();
        let hasty = Policy {
            silence_kvm_ms: 500,
            ..Policy::default()
        };
        let refusal = hasty.check().unwrap_err();
        assert_eq!(refusal.0.field.as_deref(), Some("silence_kvm_ms"));
        let never = Policy {
            scrub_every_days: 0,
            scrub_limit_bytes_s: 0,
            ..Policy::default()
        };
        never.check().unwrap();
        let slow = Policy {
            scrub_limit_bytes_s: 1,
            ..Policy::default()
        };
        let refusal = slow.check().unwrap_err();
        assert_eq!(refusal.0.field.as_deref(), Some("scrub_limit_bytes_s"));
        let rare = Policy {
            scrub_every_days: 9_999,
            ..Policy::default()
        };
        let refusal = rare.check().unwrap_err();
        assert_eq!(refusal.0.field.as_deref(), Some("scrub_every_days"));
    }
}
