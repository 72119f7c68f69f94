//! `chaos`: breaks things at random, for real, under visitors who write and read, and lets a judge
//! decide from what they were told alone. The same seed breaks the same things.
//!
//! A round: something is broken (and sometimes something more beside it), heals, and the round ends
//! when every server runs with all of its copies, or when the time for that is over.

pub mod checker;
mod disk;
mod faults;
mod felt;
mod plan;
mod planted;
mod power;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::cluster::Cluster;
use crate::bench::flags::Flags;
use crate::trial::crowd::{Crowd, Held};
use crate::trial::fleet::{Fleet, Member};
use crate::trial::journal::{Journal, Log, now_ms};
use crate::up::supervise;
use checker::Violation;
use plan::{Fault, Inventory, Round};
use planted::Plant;

pub use power::run_if_called_so as run_as_recorder;

const USAGE: &str = "usage: cargo xtask chaos [options]

  --rounds N     so many faults, one after the other (default 50)
  --seed S       decides which (default 1)
  --limit S      seconds that a server may be without an answer (default 60)
  --plant WHAT   instead: put a mistake into a fresh cluster (no-flush, threshold-1,
                 stale-promoted) and see that the judge finds it

The judge's report: target/chaos/report.json; all that visitors met: target/chaos/log.json.
Without a running cluster one is started: three nodes, two instances of control on PostgreSQL.";

const CALM: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|it| it == "--help" || it == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let flags = Flags::read(arguments, &["rounds", "seed", "limit", "plant"], &[])?;
    let rounds: usize = flags.number("rounds", 50)?;
    let seed: u64 = flags.number("seed", 1)?;
    let limit = Duration::from_secs(flags.number("limit", 60)?);
    ensure!(rounds > 0, "--rounds takes at least 1");
    disk::prepare()?;
    let recorder = power::prepare()?.map(|path| path.display().to_string());
    let mut words = vec![
        "--detach",
        "--no-demo",
        "--control",
        "2",
        "--store",
        "postgres",
    ];
    words.extend(recorder.iter().flat_map(|path| ["--storage-daemon", path]));
    let plant: Option<Plant> = flags.text("plant").map(str::parse).transpose()?;
    let mut mistake = Vec::new();
    if let Some(plant) = plant {
        ensure!(
            recorder.is_some(),
            "a mistake is planted in a fresh cluster: run `cargo xtask down` first"
        );
        mistake = plant.prepare()?;
    }
    words.extend(mistake.iter().map(String::as_str));
    let cluster = Cluster::open_or(&words)?;
    ensure!(
        cluster.nodes.len() >= 3,
        "three nodes are needed; see `up --nodes`"
    );
    let fleet = Fleet::ensure(&cluster)?;
    fleet.settle(&cluster)?;
    let inventory = Inventory {
        edges: cluster.edges.len(),
        has_postgres: supervise::pid("postgres").is_some(),
        small_disk: disk::small(&cluster)?,
        are_writes_logged: power::is_logged(),
    };
    let chaos = Chaos {
        cluster: &cluster,
        fleet: &fleet,
        journal: Arc::new(Journal::default()),
        limit,
        faults: BTreeMap::new(),
        spans: Vec::new(),
        not_recovered: Vec::new(),
    };
    match plant {
        Some(plant) => chaos.see(plant),
        None => chaos.run(seed, &plan::plan(seed, rounds, inventory)),
    }
}

struct Chaos<'a> {
    cluster: &'a Cluster,
    fleet: &'a Fleet,
    journal: Arc<Journal>,
    limit: Duration,
    faults: BTreeMap<String, usize>,
    spans: Vec<felt::Span>,
    not_recovered: Vec<Violation>,
}

impl Chaos<'_> {
    fn run(mut self, seed: u64, rounds: &[Round]) -> Result<()> {
        let crowd = Crowd::gather(&self.cluster.edges, self.fleet, &self.journal);
        let (mut done, mut trouble) = (0, None);
        for (number, round) in rounds.iter().enumerate() {
            std::thread::sleep(CALM);
            println!("round {}: {}", number + 1, round.fault);
            match self.round(round) {
                Ok(()) => done += 1,
                Err(error) => {
                    // The judge speaks also about a trial that could not go on.
                    trouble = Some(error.context(format!("round {}", number + 1)));
                    break;
                }
            }
        }
        let (held, deaf) = match crowd.dismiss() {
            Ok(held) => (held, None),
            Err(error) => (Held::default(), Some(error)),
        };
        let log = self.judged(&held);
        let verdict = checker::judge(&log, &held.found);
        let outcome = told::Outcome {
            seed,
            rounds: done,
            faults: self.faults,
            felt: felt::felt(&self.spans, &log.reads),
            not_recovered: self.not_recovered,
            verdict,
        };
        told::write(&self.cluster.machine, &outcome, &log, &held.found)?;
        match trouble.or(deaf) {
            Some(error) => Err(error),
            None => held.all().map(drop).and_then(|()| outcome.pass()),
        }
    }

    /// What visitors met, without the writes to sites that do not tell what they hold: nothing is
    /// known of these, neither good nor bad.
    fn judged(&self, held: &Held) -> Log {
        for error in &held.silent {
            println!("  not judged: {error:#}");
        }
        let mut log = self.journal.log(|log| log.clone());
        log.writes
            .retain(|it| held.found.iter().any(|found| found.site == it.site));
        log
    }

    /// The judge has to find a mistake that was planted.
    fn see(mut self, plant: Plant) -> Result<()> {
        let crowd = Crowd::gather(&self.cluster.edges, self.fleet, &self.journal);
        let came_out = plant.bring_out(&mut self);
        let held = crowd.dismiss();
        came_out?;
        let held = held?;
        // A site that does not answer would prove nothing about the judge.
        let verdict = checker::judge(&self.judged(&held), &held.found);
        let (lost, twice) = (verdict.lost_writes.len(), verdict.double_owner.len());
        let stale = verdict.stale_reads.len();
        println!(
            "{plant:?}: the judge found {lost} lost writes, {twice} double owners, {stale} stale pages"
        );
        for it in verdict
            .lost_writes
            .iter()
            .chain(&verdict.stale_reads)
            .take(4)
        {
            println!("  {}: {}", it.site, it.what);
        }
        ensure!(
            lost + twice + stale > 0,
            "the judge is blind: it found nothing"
        );
        Ok(())
    }

    fn round(&mut self, round: &Round) -> Result<()> {
        let begun = Instant::now();
        let mut fault = round.fault.kind();
        if let Some((_, beside)) = round.beside {
            fault.push('+');
            fault.push_str(&beside.kind());
        }
        self.spans.push(felt::Span {
            fault,
            from_ms: now_ms(),
        });
        let mut wounds = Vec::new();
        wounds.extend(self.inflict(round.fault)?);
        if let Some((after_ms, beside)) = round.beside {
            std::thread::sleep(Duration::from_millis(after_ms));
            wounds.extend(self.inflict(beside)?);
        }
        let hold = Duration::from_millis(round.hold_ms);
        std::thread::sleep(hold.saturating_sub(begun.elapsed()));
        if stays_broken(round.fault) {
            // Everything else has to go on without it: it heals only when that was seen.
            self.wait_for_answers()?;
        }
        drop(wounds);
        self.wait_for_answers()?;
        let took = self.fleet.settle(self.cluster)?;
        println!("  whole again after {took:.1} s");
        Ok(())
    }

    fn inflict(&mut self, fault: Fault) -> Result<Option<faults::Wound>> {
        let wound = faults::inflict(self.cluster, fault)?;
        match &wound {
            Some(wound) => {
                *self.faults.entry(fault.kind()).or_default() += 1;
                println!("  {}", wound.what);
            }
            None => println!("  {fault}: there is none now"),
        }
        Ok(wound)
    }

    /// Every server has answered a visitor who came after now, within its time.
    fn wait_for_answers(&mut self) -> Result<()> {
        let (begun, from_ms) = (Instant::now(), now_ms());
        loop {
            let silent = Self::silent_since(self.fleet, &self.journal, from_ms);
            if silent.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > self.limit {
                for member in silent {
                    let after = self.limit.as_secs();
                    println!("  {} does not answer after {after} s", member.name);
                    self.not_recovered.push(Violation {
                        site: member.host.clone(),
                        at_ms: from_ms,
                        what: format!("no right answer within {after} s"),
                    });
                }
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn silent_since<'f>(fleet: &'f Fleet, journal: &Journal, from_ms: u64) -> Vec<&'f Member> {
        let answered = |member: &&Member| {
            journal.log(|log| {
                let newest_first = log.reads.iter().rev();
                newest_first
                    .filter(|it| it.site == member.host)
                    .any(|it| it.is_right && it.asked_ms >= from_ms)
            })
        };
        let members = fleet.members.iter();
        members.filter(|member| !answered(member)).collect()
    }
}

/// Servers must answer although this is still broken.
fn stays_broken(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::KillNode(_) | Fault::LosePower(..) | Fault::CutLink(_) | Fault::FillDisk(_)
    )
}
