//! The fields of a form that asks for limits: of a plan, or of a reseller.

use undine_api::public::PlanLimits;
use undine_manifest::Caps;
use undine_model::{Bytes, MilliCpu};

use super::fields::Fields;
use crate::refusal::{Refusal, Result};

/// What the form shows, as text.
pub struct Limits {
    /// Sites.
    pub sites: String,
    /// Databases.
    pub databases: String,
    /// What each site gets: the field, its label, its value.
    pub site: Vec<(&'static str, &'static str, String)>,
}

const MIB: u64 = 1 << 20;

impl Limits {
    /// Filled in.
    pub fn of(limits: &PlanLimits) -> Self {
        let caps = &limits.site;
        let site = vec![
            ("memory", "Memory, MiB", (caps.memory.0 / MIB).to_string()),
            ("disk", "Disk, MiB", (caps.disk.0 / MIB).to_string()),
            ("inodes", "Files and folders", caps.inodes.to_string()),
            ("cpu", "Processors, thousandths", caps.cpu.0.to_string()),
            ("processes", "Processes", caps.processes.to_string()),
            (
                "io",
                "Disk throughput, MiB a second",
                (caps.io_bytes_per_s.0 / MIB).to_string(),
            ),
            ("iops", "Disk operations a second", caps.iops.to_string()),
        ];
        Self {
            sites: limits.sites.to_string(),
            databases: limits.databases.to_string(),
            site,
        }
    }

    /// What a form for something new begins with.
    pub fn usual() -> Self {
        Self::of(&PlanLimits {
            sites: 10,
            databases: 10,
            site: Caps {
                cpu: MilliCpu(1_000),
                memory: Bytes::mib(256),
                processes: 100,
                io_bytes_per_s: Bytes::mib(100),
                iops: 5_000,
                disk: Bytes::gib(1),
                inodes: 100_000,
            },
        })
    }
}

fn mib(fields: &Fields, name: &str) -> Result<Bytes> {
    let value: u64 = fields.parse(name)?;
    let bytes = value.checked_mul(MIB);
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .map(Bytes)
        .ok_or_else(|| Refusal::invalid(name, "That is more than there is anywhere."))
}

/// What was sent.
pub fn sent(fields: &Fields) -> Result<PlanLimits> {
    Ok(PlanLimits {
        sites: fields.parse("sites")?,
        databases: fields.parse("databases")?,
        site: Caps {
            cpu: MilliCpu(fields.parse("cpu")?),
            memory: mib(fields, "memory")?,
            processes: fields.parse("processes")?,
            io_bytes_per_s: mib(fields, "io")?,
            iops: fields.parse("iops")?,
            disk: mib(fields, "disk")?,
            inodes: fields.parse("inodes")?,
        },
    })
}
