//! What visitors felt of each kind of fault: those who came from its beginning until the next one
//! began.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::trial::journal::Read;

/// A round as it was.
#[derive(Debug, Clone)]
pub struct Span {
    /// What was broken; two things at once are joined by `+`.
    pub fault: String,
    /// When, milliseconds since 1970.
    pub from_ms: u64,
}

/// What visitors felt.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Felt {
    /// How often it was broken.
    pub rounds: usize,
    /// Visits meanwhile.
    pub visits: usize,
    /// Those that got no right page.
    pub failed: usize,
    /// The longest wait for a right page, seconds.
    pub longest_s: f64,
}

/// By kind of fault.
pub fn felt(spans: &[Span], reads: &[Read]) -> BTreeMap<String, Felt> {
    let mut all: BTreeMap<String, Felt> = BTreeMap::new();
    for (at, span) in spans.iter().enumerate() {
        let until_ms = spans.get(at + 1).map_or(u64::MAX, |next| next.from_ms);
        let felt = all.entry(span.fault.clone()).or_default();
        felt.rounds += 1;
        let meanwhile = span.from_ms..until_ms;
        for read in reads.iter().filter(|it| meanwhile.contains(&it.asked_ms)) {
            felt.visits += 1;
            if read.is_right {
                let waited_s = read.ended_ms.saturating_sub(read.asked_ms) as f64 / 1000.0;
                felt.longest_s = felt.longest_s.max(waited_s);
            } else {
                felt.failed += 1;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_counts_for_the_fault_that_began_last() {
        let span = |fault: &str, from_ms| Span {
            fault: fault.to_owned(),
            from_ms,
        };
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
            read(50, 90, false),
            read(100, 1_600, true),
            read(150, 160, false),
            read(200, 250, true),
            read(900, 901, true),
        ];
        let felt = felt(&[span("a", 100), span("b", 200), span("a", 800)], &reads);
        assert_eq!(
            felt["a"],
            Felt {
                rounds: 2,
                visits: 3,
                failed: 1,
                longest_s: 1.5
            }
        );
        assert_eq!((felt["b"].visits, felt["b"].failed), (1, 0));
    }
}
