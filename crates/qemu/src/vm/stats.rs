//! What a VM used: its disks' counters and its memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Vm, VmError};
use crate::qmp::QmpError;

const BALLOON: &str = "/machine/peripheral/balloon";
/// How often the guest's balloon driver tells its numbers.
const POLL_S: u32 = 10;

/// Counters since the VM's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// By device: `root-disk`, `data-disk`.
    pub disks: BTreeMap<String, DiskStats>,
    /// Memory.
    pub memory: MemoryStats,
}

/// One disk's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Bytes read.
    #[serde(alias = "rd_bytes")]
    pub read_bytes: u64,
    /// Bytes written.
    #[serde(alias = "wr_bytes")]
    pub written_bytes: u64,
    /// Read requests.
    #[serde(alias = "rd_operations")]
    pub reads: u64,
    /// Write requests.
    #[serde(alias = "wr_operations")]
    pub writes: u64,
    /// Flushes.
    #[serde(alias = "flush_operations")]
    pub flushes: u64,
}

/// Memory as QEMU and the guest's balloon driver see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// What the balloon leaves to the guest.
    pub granted_bytes: u64,
    /// The guest's own total, once its driver has told.
    pub total_bytes: Option<u64>,
    /// What the guest could use without swapping, once its driver has told.
    pub available_bytes: Option<u64>,
}

impl Vm {
    /// Reads all counters.
    pub async fn stats(&self) -> Result<Stats, VmError> {
        let blocks = self.ask("query-blockstats", json!({})).await?;
        let balloon = self.ask("query-balloon", json!({})).await;
        let granted = match balloon {
            Ok(balloon) => balloon["actual"].as_u64().unwrap_or_default(),
            // No driver in the guest (yet): all memory is its own.
            Err(VmError::Qmp(QmpError::Refused { .. })) => 0,
            Err(error) => return Err(error),
        };
        let guest = json!({"path": BALLOON, "property": "guest-stats"});
        let guest = self.ask("qom-get", guest).await?;
        Ok(Stats {
            disks: disks(&blocks),
            memory: memory(granted, &guest),
        })
    }

    /// Asks the guest's balloon driver to tell its numbers from now on; a restored VM has
    /// forgotten an earlier wish. Repeating is harmless.
    pub async fn watch_memory(&self) -> Result<(), VmError> {
        let wish = json!({"path": BALLOON, "property": "guest-stats-polling-interval",
            "value": POLL_S});
        self.ask("qom-set", wish).await.map(drop)
    }

    /// Leaves the guest `bytes` of its memory; it gives the rest back when it can.
    pub async fn grant_memory(&self, bytes: u64) -> Result<(), VmError> {
        self.ask("balloon", json!({"value": bytes})).await.map(drop)
    }
}

fn disks(blocks: &Value) -> BTreeMap<String, DiskStats> {
    let blocks = blocks.as_array().map_or(&[][..], Vec::as_slice);
    let device = |block: &Value| block["qdev"].as_str()?.split('/').nth(3).map(str::to_owned);
    let counters = |block: &Value| DiskStats::deserialize(&block["stats"]).unwrap_or_default();
    blocks
        .iter()
        .filter_map(|block| Some((device(block)?, counters(block))))
        .collect()
}

fn memory(granted_bytes: u64, guest: &Value) -> MemoryStats {
    // What the driver has not told is all ones.
    let told = |name: &str| {
        guest["stats"][name]
            .as_u64()
            .filter(|value| *value != u64::MAX)
    };
    MemoryStats {
        granted_bytes,
        total_bytes: told("stat-total-memory"),
        available_bytes: told("stat-available-memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_by_device() {
        let blocks = json!([{"qdev": "/machine/peripheral/data-disk/virtio-backend",
            "node-name": "data", "stats": {"rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3,
            "wr_operations": 4, "flush_operations": 5, "unmap_bytes": 6}}, {"stats": {}}]);
        let wanted = DiskStats {
            read_bytes: 1,
            written_bytes: 2,
            reads: 3,
            writes: 4,
            flushes: 5,
        };
        assert_eq!(
            disks(&blocks),
            BTreeMap::from([("data-disk".into(), wanted)])
        );
    }

    #[test]
    fn what_the_guest_has_not_told_is_unknown() {
        let guest = json!({"last-update": 0, "stats": {"stat-total-memory": u64::MAX,
            "stat-available-memory": 4096}});
        let memory = memory(1, &guest);
        assert_eq!(
            (memory.total_bytes, memory.available_bytes),
            (None, Some(4096))
        );
    }
}
