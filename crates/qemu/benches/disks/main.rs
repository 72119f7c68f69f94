//! What replication costs: fsync of 4 KiB in a guest with a plain image and with 1 to 3 replicas,
//! plain and encrypted, in turns; then joins of 1 GiB in full and of 64 MiB by a bitmap while the
//! guest writes. Needs QEMU and Debian's cloud kernel, and no cluster.
//!
//! `cargo bench -p undine-qemu [-- rounds]`; writes `target/bench/fsync.json`.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic like a test")]

#[path = "../../tests/guest/mod.rs"]
mod guest;
mod stack;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use stack::{Bench, Disk};

/// Writes of one run.
const WRITES: u32 = 300;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(bench) = Bench::new() else { return };
    let number = |word: String| word.parse::<u32>().ok();
    let rounds = std::env::args().find_map(number).unwrap_or(3);
    let fsync = fsync(&bench, rounds).await;
    let mut joins = Vec::new();
    for tls in [false, true] {
        joins.push(bench.joins(tls).await);
        println!("{}", joins[joins.len() - 1]);
    }
    let report = json!({"what": "fsync of 4 KiB in the guest, microseconds; joins under a writer",
        "accelerator": "tcg", "rounds": rounds, "writes": WRITES, "fsync_us": fsync,
        "joins": joins});
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_vec_pretty(&report).unwrap();
    std::fs::write(folder.join("fsync.json"), text).unwrap();
}

/// In turns, so that whatever else the machine does meets all alike.
async fn fsync(bench: &Bench, rounds: u32) -> BTreeMap<String, Value> {
    let disks = [
        Disk::Plain,
        Disk::Replicas(1, false),
        Disk::Replicas(2, false),
        Disk::Replicas(2, true),
        Disk::Replicas(3, false),
        Disk::Replicas(3, true),
    ];
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..rounds {
        for disk in disks {
            let found = bench.fsync(disk, WRITES).await;
            times.entry(disk.to_string()).or_default().extend(found);
        }
    }
    let figures = times.into_iter().map(|(disk, mut times)| {
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100];
        let (p50, p95, min) = (at(50), at(95), times[0]);
        println!("{disk:24} p50 {p50:6} p95 {p95:6} min {min:6}");
        (disk, json!({"p50": p50, "p95": p95, "min": min}))
    });
    figures.collect()
}
