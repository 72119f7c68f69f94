//! The judge: decides from what visitors were told alone whether anything that must not happen
//! has happened. Pure; knows nothing of how the cluster works.
//!
//! - **lost write**: somebody was told that a thing is written, and in the end it is not there.
//! - **double owner**: a server acknowledged a write under an epoch although an answer under a
//!   higher one had been seen before the write was even asked for.
//! - **stale read**: a page lacked an acknowledged write that had been acknowledged, or shown by an
//!   earlier page, before it was asked for; or it came from an old owner after a new one had spoken.
//!   (What was shown but never acknowledged may be gone after a crash, as on any server.)
//! - **not recovered**: a server that could run did not answer within the time it had.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::trial::journal::{Found, Kind, Log, Read, Write};

/// Something that must not happen, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where.
    pub site: String,
    /// When it was asked for, milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Acknowledged and not there.
    pub lost_writes: Vec<Violation>,
    /// Acknowledged by an old owner.
    pub double_owner: Vec<Violation>,
    /// Pages that knew less than was known.
    pub stale_reads: Vec<Violation>,
}

/// Decides.
pub fn judge(log: &Log, found: &[Found]) -> Verdict {
    Verdict {
        lost_writes: lost(&log.writes, found),
        double_owner: double_owner(log),
        stale_reads: stale(log),
    }
}

/// The acknowledged writes that are not there in the end. A site that was not asked in the end
/// proves nothing: all of its writes count as lost.
pub fn lost(writes: &[Write], found: &[Found]) -> Vec<Violation> {
    let mut held: BTreeMap<(&str, Kind), Vec<u64>> = BTreeMap::new();
    for it in found {
        let numbers = held.entry((it.site.as_str(), it.kind)).or_default();
        numbers.extend(&it.numbers);
    }
    for numbers in held.values_mut() {
        numbers.sort_unstable();
    }
    let is_there = |write: &Write| {
        let Some(numbers) = held.get(&(write.site.as_str(), write.kind)) else {
            return false;
        };
        match write.kind {
            // A session holds the newest value alone.
            Kind::Session => numbers.last().is_some_and(|last| *last >= write.number),
            Kind::File | Kind::Line | Kind::Row => numbers.binary_search(&write.number).is_ok(),
        }
    };
    let lost = writes.iter().filter(|it| it.is_acked && !is_there(it));
    lost.map(|it| Violation {
        site: it.site.clone(),
        at_ms: it.asked_ms,
        what: format!(
            "{:?} {} was acknowledged and is not there",
            it.kind, it.number
        ),
    })
    .collect()
}

/// An answer and the epoch of the server that gave it.
struct Word<'a> {
    site: &'a str,
    asked_ms: u64,
    ended_ms: u64,
    epoch: u64,
    is_write: bool,
}

fn words(log: &Log) -> Vec<Word<'_>> {
    let writes = log.writes.iter().filter(|it| it.is_acked);
    let writes = writes.filter_map(|it| {
        Some(Word {
            site: &it.site,
            asked_ms: it.asked_ms,
            ended_ms: it.ended_ms,
            epoch: it.epoch?,
            is_write: true,
        })
    });
    let reads = log.reads.iter().filter(|it| it.is_right);
    let reads = reads.filter_map(|it| {
        Some(Word {
            site: &it.site,
            asked_ms: it.asked_ms,
            ended_ms: it.ended_ms,
            epoch: it.epoch?,
            is_write: false,
        })
    });
    writes.chain(reads).collect()
}

fn double_owner(log: &Log) -> Vec<Violation> {
    after_newer(log, |it| it.is_write, "acknowledged a write")
}

/// Words of an owner that were asked for after a newer one had spoken.
fn after_newer(log: &Log, which: impl Fn(&Word) -> bool, did: &str) -> Vec<Violation> {
    let words = words(log);
    let newest = Newest::of(words.iter().map(|it| (it.site, it.ended_ms, it.epoch)));
    let mut found = Vec::new();
    for it in words.iter().filter(|it| which(it)) {
        if let Some(newer) = newest
            .before(it.site, it.asked_ms)
            .filter(|e| *e > it.epoch)
        {
            found.push(Violation {
                site: it.site.to_owned(),
                at_ms: it.asked_ms,
                what: format!("epoch {} {did} after epoch {newer}", it.epoch),
            });
        }
    }
    found
}

fn stale(log: &Log) -> Vec<Violation> {
    let shown = |it: &Read| Some((it.ended_ms, it.seen.filter(|_| it.is_right)?));
    let acked = || {
        let files = log.writes.iter().filter(|it| it.is_acked);
        let files = files.filter(|it| it.kind == Kind::File);
        files.map(|it| (it.site.as_str(), it.ended_ms, it.number))
    };
    let is_acked: BTreeSet<(&str, u64)> = acked().map(|(site, _, it)| (site, it)).collect();
    let pages = log
        .reads
        .iter()
        .filter_map(|it| shown(it).map(|(at, seen)| (it.site.as_str(), at, seen)))
        .filter(|(site, _, seen)| is_acked.contains(&(*site, *seen)));
    let newest = Newest::of(pages.chain(acked()));
    let mut found = old_owners(log);
    for it in &log.reads {
        let Some((_, seen)) = shown(it) else { continue };
        if let Some(known) = newest.before(&it.site, it.asked_ms).filter(|n| *n > seen) {
            found.push(Violation {
                site: it.site.clone(),
                at_ms: it.asked_ms,
                what: format!("a page knew {seen} when {known} was known"),
            });
        }
    }
    found
}

/// Pages of an owner after a newer one had spoken.
fn old_owners(log: &Log) -> Vec<Violation> {
    after_newer(log, |it| !it.is_write, "showed a page")
}

/// The highest number that anybody knew of a site, by time.
struct Newest<'a>(BTreeMap<&'a str, Vec<(u64, u64)>>);

impl<'a> Newest<'a> {
    fn of(known: impl Iterator<Item = (&'a str, u64, u64)>) -> Self {
        let mut by_site: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for (site, at_ms, number) in known {
            by_site.entry(site).or_default().push((at_ms, number));
        }
        for numbers in by_site.values_mut() {
            numbers.sort_unstable();
            let mut highest = 0;
            for (_, number) in numbers {
                highest = highest.max(*number);
                *number = highest;
            }
        }
        Self(by_site)
    }

    /// What was known before this moment: times are whole milliseconds, so the same one does not
    /// count.
    fn before(&self, site: &str, at_ms: u64) -> Option<u64> {
        let numbers = self.0.get(site)?;
        let end = numbers.partition_point(|(at, _)| *at < at_ms);
        numbers[..end].last().map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests;
