//! The rules that a plan follows; every threshold has a name and a default.

use serde::{Deserialize, Serialize};

use crate::error::InputError;

/// How strictly copies are kept in different racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RackRule {
    /// Racks do not matter.
    Ignore,
    /// Different racks where that is possible.
    #[default]
    Prefer,
    /// A copy is rather not placed than placed in the same rack.
    Require,
}

/// The rules of a cluster. Shares are in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Above this predicted use a node is to be relieved.
    pub high_water: u64,
    /// A move may bring its target up to this predicted use.
    pub target_water: u64,
    /// A move must improve what it is for by at least this share.
    pub min_gain: u64,
    /// How many of the last samples must be above the mark.
    pub trigger_samples: usize,
    /// How many of the last samples are looked at.
    pub trigger_window: usize,
    /// Pressure (PSI or steal) from which a node is to be relieved whatever its use.
    pub pressure_limit: u64,
    /// A server that moved less than this ago stays, unless its node is overloaded or drained.
    pub cool_down_s: u64,
    /// A server that moved less than this ago stays even then, unless its node is drained.
    pub rest_s: u64,
    /// CPU that may be reserved on a node, as a share of what it has.
    pub cpu_overcommit: u64,
    /// The same for memory.
    pub memory_overcommit: u64,
    /// The same for disk space.
    pub disk_overcommit: u64,
    /// The same for disk operations.
    pub io_overcommit: u64,
    /// The same for network.
    pub net_overcommit: u64,
    /// How many nodes may be lost at once with every server that has another copy restarted.
    pub survive_losses: usize,
    /// Copies of a replicated server's disk, the owner's included.
    pub copies: usize,
    /// Racks.
    pub racks: RackRule,
    /// Most moves in one plan.
    pub max_moves: usize,
    /// Memory copied a second by a migration.
    pub bandwidth_mib_s: u64,
    /// Seconds of copying that one thousandth of gained use is worth.
    pub seconds_per_point: u64,
    /// Evening out begins when the busiest node is this far above the mean.
    pub evenness_gap: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            high_water: 800,
            target_water: 700,
            min_gain: 100,
            trigger_samples: 3,
            trigger_window: 5,
            pressure_limit: 400,
            cool_down_s: 1800,
            rest_s: 60,
            cpu_overcommit: 4000,
            memory_overcommit: 1000,
            disk_overcommit: 1000,
            io_overcommit: 4000,
            net_overcommit: 4000,
            survive_losses: 1,
            copies: 2,
            racks: RackRule::Prefer,
            max_moves: 10_000,
            bandwidth_mib_s: 1000,
            seconds_per_point: 2,
            evenness_gap: 250,
        }
    }
}

impl Policy {
    /// Finds the first rule that contradicts another.
    ///
    /// # Errors
    /// That rule, in words.
    pub fn check(&self) -> Result<(), InputError> {
        let bad = |what: String| Err(InputError::Policy { what });
        if self.target_water > self.high_water {
            return bad(format!(
                "target_water {} is above high_water {}, so relieving one node may overload another",
                self.target_water, self.high_water
            ));
        }
        if self.trigger_samples == 0 || self.trigger_samples > self.trigger_window {
            return bad(format!(
                "trigger_samples {} is not between 1 and trigger_window {}",
                self.trigger_samples, self.trigger_window
            ));
        }
        if self.copies == 0 {
            return bad("copies is 0, so no disk would exist".to_owned());
        }
        if self.survive_losses > 3 {
            return bad(format!("survive_losses {} is above 3", self.survive_losses));
        }
        if self.bandwidth_mib_s == 0 {
            return bad("bandwidth_mib_s is 0, so nothing could move".to_owned());
        }
        for (value, name) in [
            (self.cpu_overcommit, "cpu_overcommit"),
            (self.memory_overcommit, "memory_overcommit"),
            (self.disk_overcommit, "disk_overcommit"),
            (self.io_overcommit, "io_overcommit"),
            (self.net_overcommit, "net_overcommit"),
            (self.high_water, "high_water"),
        ] {
            if value == 0 || value > 100_000 {
                return bad(format!("{name} {value} is not between 1 and 100000"));
            }
        }
        Ok(())
    }
}
