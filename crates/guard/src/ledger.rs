//! What the guard has paused; pure, and kept in a file, so that a guard that is started again
//! continues that and nothing else.
//!
//! ```text
//!   running ──about to stop──> Paused ──owned at the same epoch──> Confirmed ──continued──> (gone)
//!                                │  ^                                  │
//!                                │  └────────── isolated again ────────┘
//!                                └──owned elsewhere, or at another epoch──> Stays (until a later
//!                                                          confirmation says otherwise, or it is gone)
//! ```
//!
//! An entry stands for one process of QEMU: another one under the same name was never paused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undine_api::guard::Owned;
use undine_model::ServerId;

/// A server that was paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The epoch under which it ran here.
    pub epoch: u64,
    /// The number of its process.
    pub process: i32,
    /// When, in milliseconds of the boot-time clock.
    pub at_boottime_ms: u64,
    /// Its ownership has changed, as the last confirmation said: whoever looks is told so. It is
    /// asked about again, for an operator may have let the record follow this node.
    #[serde(default)]
    pub stays: bool,
    /// It may be continued until then: control has confirmed it under a lease that lasts so long.
    #[serde(skip)]
    until_ms: Option<u64>,
}

/// Everything that was paused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: BTreeMap<ServerId, Entry>,
}

impl Ledger {
    /// A server that was seen running is about to be stopped.
    pub fn pausing(&mut self, server: ServerId, epoch: u64, process: i32, now_ms: u64) {
        let entry = Entry {
            epoch,
            process,
            at_boottime_ms: now_ms,
            stays: false,
            until_ms: None,
        };
        self.entries.insert(server, entry);
    }

    /// It runs, or somebody else must see to it.
    pub fn forget(&mut self, server: ServerId) {
        self.entries.remove(&server);
    }

    /// Only what the agent still lists under the same epoch is kept: the rest has ended. Tells
    /// whether anything changed.
    pub fn keep_only(&mut self, listed: impl Fn(ServerId) -> Option<u64>) -> bool {
        let before = self.entries.len();
        self.entries
            .retain(|server, entry| listed(*server) == Some(entry.epoch));
        self.entries.len() != before
    }

    /// The node is cut off again: what was confirmed before counts no more.
    pub fn isolated(&mut self) {
        for entry in self.entries.values_mut() {
            entry.until_ms = None;
        }
    }

    /// What control says that this node owns, in answer to a request sent then, under a lease that
    /// lasts until then. What was paused after the request was sent waits for the next answer.
    /// Tells which servers are found to stay paused by this.
    pub fn confirmed(&mut self, owns: &[Owned], sent_ms: u64, until_ms: u64) -> Vec<ServerId> {
        let mut stay = Vec::new();
        for (server, entry) in &mut self.entries {
            if entry.at_boottime_ms > sent_ms {
                continue;
            }
            let owned = owns.iter().find(|it| it.server == *server);
            let is_owned = owned.is_some_and(|it| it.epoch == entry.epoch);
            entry.until_ms = is_owned.then_some(until_ms);
            if !is_owned && !entry.stays {
                stay.push(*server);
            }
            entry.stays = !is_owned;
        }
        stay
    }

    /// Those that may be continued now.
    pub fn free(&self, now_ms: u64) -> Vec<(ServerId, Entry)> {
        let free = |entry: &Entry| !entry.stays && entry.until_ms > Some(now_ms);
        self.entries
            .iter()
            .filter(|(_, entry)| free(entry))
            .map(|(server, entry)| (*server, *entry))
            .collect()
    }

    /// Is there one that a confirmation could free?
    pub fn is_waiting(&self) -> bool {
        !self.entries.is_empty()
    }

    /// What is known of this server.
    pub fn entry(&self, server: ServerId) -> Option<&Entry> {
        self.entries.get(&server)
    }

    /// The servers in it.
    pub fn servers(&self) -> Vec<ServerId> {
        self.entries.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u64) -> ServerId {
        ServerId::from_parts(number, [0; 10])
    }

    fn owned(number: u64, epoch: u64) -> Owned {
        Owned {
            server: server(number),
            epoch,
        }
    }

    fn free(ledger: &Ledger, now_ms: u64) -> Vec<ServerId> {
        ledger
            .free(now_ms)
            .iter()
            .map(|(server, _)| *server)
            .collect()
    }

    #[test]
    fn only_a_server_owned_at_the_same_epoch_goes_on() {
        let mut ledger = Ledger::default();
        for number in 1..=3 {
            ledger.pausing(server(number), 7, 100, 1_000);
        }
        assert!(ledger.is_waiting() && ledger.free(1_500).is_empty());
        let stay = ledger.confirmed(&[owned(1, 7), owned(2, 8)], 1_500, 3_500);
        assert_eq!(stay, [server(2), server(3)]);
        assert_eq!(free(&ledger, 2_000), [server(1)]);
        // Not after the lease under which it was said.
        assert!(ledger.free(3_500).is_empty());
        // What has changed hands is asked about again: an operator may have given it back.
        let stay = ledger.confirmed(&[owned(2, 7)], 4_000, 6_000);
        assert_eq!(stay, [server(1)], "said once of each");
        assert_eq!(free(&ledger, 4_500), [server(2)]);
        assert_eq!(ledger.servers().len(), 3, "and it counts as paused");
    }

    #[test]
    fn an_answer_to_an_older_request_frees_nothing() {
        let mut ledger = Ledger::default();
        ledger.pausing(server(1), 7, 100, 1_000);
        assert!(ledger.confirmed(&[owned(1, 7)], 999, 2_999).is_empty());
        assert!(ledger.free(1_001).is_empty() && ledger.is_waiting());
        // Nor does it condemn anything.
        assert!(ledger.confirmed(&[], 999, 2_999).is_empty());
        ledger.confirmed(&[owned(1, 7)], 1_000, 3_000);
        assert_eq!(free(&ledger, 1_001), [server(1)]);
        ledger.isolated();
        assert!(ledger.free(1_002).is_empty() && ledger.is_waiting());
    }

    #[test]
    fn what_ended_or_began_anew_is_not_remembered() {
        let mut ledger = Ledger::default();
        ledger.pausing(server(1), 7, 100, 0);
        ledger.pausing(server(2), 7, 101, 0);
        ledger.pausing(server(3), 7, 102, 0);
        let listed = |it: ServerId| match it {
            it if it == server(1) => Some(7),
            it if it == server(2) => Some(8),
            _ => None,
        };
        assert!(ledger.keep_only(listed) && !ledger.keep_only(listed));
        assert_eq!(ledger.servers(), [server(1)]);
    }

    #[test]
    fn what_is_kept_in_a_file_holds_no_confirmation() {
        let mut ledger = Ledger::default();
        ledger.pausing(server(1), 7, 100, 0);
        ledger.confirmed(&[owned(1, 7)], 0, 9_000);
        let text = serde_json::to_vec(&ledger).unwrap();
        let read: Ledger = serde_json::from_slice(&text).unwrap();
        assert!(read.free(1).is_empty() && read.is_waiting());
        assert_eq!(read.entry(server(1)).unwrap().process, 100);
    }
}
