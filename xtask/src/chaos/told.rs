//! The report: what was broken, what the judge found.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::checker::{Verdict, Violation};
use super::felt::Felt;
use crate::bench::report::Machine;
use crate::trial::journal::{Found, Log};
use crate::up::layout;

/// How it ended.
pub struct Outcome {
    /// What decided the faults.
    pub seed: u64,
    /// Rounds that came to their end.
    pub rounds: usize,
    /// How often what was broken.
    pub faults: BTreeMap<String, usize>,
    /// What visitors felt of each kind of fault.
    pub felt: BTreeMap<String, Felt>,
    /// Servers that were silent for too long.
    pub not_recovered: Vec<Violation>,
    /// What visitors met that must not happen.
    pub verdict: Verdict,
}

impl Outcome {
    /// Nothing happened that must not.
    pub fn pass(&self) -> Result<()> {
        let counts = self.counts();
        let bad: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        ensure!(bad.is_empty(), "{} (seed {})", bad.join(", "), self.seed);
        Ok(())
    }

    fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("lost_writes", self.verdict.lost_writes.len()),
            ("double_owner", self.verdict.double_owner.len()),
            ("stale_reads", self.verdict.stale_reads.len()),
            ("not_recovered", self.not_recovered.len()),
        ]
    }

    fn json(&self, machine: &Machine, log: &Log) -> Value {
        let acked = log.writes.iter().filter(|it| it.is_acked).count();
        let right = log.reads.iter().filter(|it| it.is_right).count();
        let mut whole = json!({
            "machine": machine, "rounds": self.rounds, "seed": self.seed, "faults": self.faults,
            "felt": self.felt, "acked_writes": acked,
            "unacknowledged_writes": log.writes.len() - acked,
            "requests": log.reads.len(),
            "failed_requests": log.reads.len() - right,
            "violations": { "visitors": self.verdict, "not_recovered": self.not_recovered },
        });
        for (name, count) in self.counts() {
            whole[name] = json!(count);
        }
        whole
    }
}

/// Writes the report and the log it was judged by.
pub fn write(machine: &Machine, outcome: &Outcome, log: &Log, found: &[Found]) -> Result<()> {
    let folder = layout::checkout().join("target/chaos");
    fs::create_dir_all(&folder)?;
    let report = outcome.json(machine, log);
    for (name, value) in [
        ("report.json", &report),
        ("log.json", &json!({ "log": log, "found": found })),
    ] {
        let path = folder.join(name);
        fs::write(&path, format!("{value:#}\n"))
            .with_context(|| format!("{} could not be written", path.display()))?;
    }
    println!("\n  {} rounds, seed {}", outcome.rounds, outcome.seed);
    for (kind, count) in &outcome.faults {
        println!("  {kind:22} {count}");
    }
    println!("\n  felt by visitors               rounds  visits  failed  longest");
    for (kind, felt) in &outcome.felt {
        let (rounds, visits, failed) = (felt.rounds, felt.visits, felt.failed);
        let longest = felt.longest_s;
        println!("  {kind:30} {rounds:6}  {visits:6}  {failed:6}  {longest:5.1} s");
    }
    for name in ["acked_writes", "requests", "failed_requests"] {
        println!("  {name:22} {}", report[name]);
    }
    for (name, count) in outcome.counts() {
        println!("  {name:22} {count}");
    }
    println!("\n{}", folder.join("report.json").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_violation_of_any_kind_is_a_failure_that_names_the_seed() {
        let mut outcome = Outcome {
            seed: 42,
            rounds: 5,
            faults: BTreeMap::new(),
            felt: BTreeMap::new(),
            not_recovered: Vec::new(),
            verdict: Verdict::default(),
        };
        assert!(outcome.pass().is_ok());
        outcome.verdict.stale_reads.push(Violation {
            site: "a".to_owned(),
            at_ms: 1,
            what: "old".to_owned(),
        });
        let said = outcome.pass().unwrap_err().to_string();
        assert!(
            said.contains("1 stale_reads") && said.contains("seed 42"),
            "{said}"
        );
    }
}
