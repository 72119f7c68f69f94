//! What a guard knows of its node's lease; pure, on milliseconds of the boot-time clock (which
//! goes on while the machine sleeps).
//!
//! ```text
//!              answer                 lease over since its request was sent
//!   Unknown ───────────> Held ──────────────────────────────────────────> Lapsed
//!                          ^                      answer                     │
//!                          └─────────────────────────────────────────────────┘
//! ```
//!
//! A lease counts from the moment at which the answered request was *sent*: that it arrived, and
//! when, only control knows.

use serde::{Deserialize, Serialize};
use undine_api::internal::{LeaseAnswer, LeaseRequest};

/// How the lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No answer yet since the guard began.
    Unknown,
    /// Control counts this node as alive.
    Held,
    /// Control may count this node as dead.
    Lapsed,
}

impl State {
    /// As a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Held => "held",
            Self::Lapsed => "lapsed",
        }
    }
}

/// The lease, and the numbers that make a renewal a confirmed round trip.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    number: u64,
    last_answered: u64,
    /// Number and moment of requests that may still be answered, oldest first.
    sent: Vec<(u64, u64)>,
    until_ms: Option<u64>,
}

/// Requests that were sent longer ago than this are not waited for any more.
const KEEP_MS: u64 = 30_000;

impl Lease {
    /// A lease that a guard before this one held until then.
    pub fn remembered(until_ms: u64) -> Self {
        Self {
            until_ms: Some(until_ms),
            ..Self::default()
        }
    }

    /// The next request, sent now. Its number is the machine's clock where that is ahead: a guard
    /// that starts anew goes on above the numbers of the one before it.
    pub fn ask(&mut self, now_ms: u64) -> LeaseRequest {
        self.number = now_ms.max(self.number + 1);
        self.sent
            .retain(|(_, at)| now_ms.saturating_sub(*at) < KEEP_MS);
        self.sent.push((self.number, now_ms));
        LeaseRequest {
            number: self.number,
            last_answered: self.last_answered,
            confirm: false,
            paused: Vec::new(),
        }
    }

    /// An answer arrived; tells when its request was sent. One to a request that nobody sent, or
    /// that is older than the last answered one, counts for nothing.
    pub fn answered(&mut self, answer: &LeaseAnswer) -> Option<u64> {
        let at = self
            .sent
            .iter()
            .position(|(number, _)| *number == answer.number)?;
        let (number, sent_ms) = self.sent[at];
        self.sent.drain(..=at);
        self.last_answered = number;
        let until = sent_ms.saturating_add(answer.lease_ms);
        // A later answer with a shorter lease counts: control may have changed its mind.
        self.until_ms = Some(until);
        Some(sent_ms)
    }

    /// How it stands now.
    pub fn state(&self, now_ms: u64) -> State {
        match self.until_ms {
            None => State::Unknown,
            Some(until) if now_ms < until => State::Held,
            Some(_) => State::Lapsed,
        }
    }

    /// When it ends, or ended; none before the first answer.
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// Milliseconds that are left of it.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        self.until_ms.unwrap_or(0).saturating_sub(now_ms)
    }

    /// The number of the last request.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of the last answer.
    pub fn last_answered(&self) -> u64 {
        self.last_answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(number: u64) -> LeaseAnswer {
        LeaseAnswer {
            number,
            lease_ms: 2_000,
            owns: None,
            peers: Vec::new(),
        }
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_its_request() {
        let mut lease = Lease::default();
        assert_eq!(lease.state(0), State::Unknown);
        let request = lease.ask(10_000);
        assert_eq!((request.number, request.last_answered), (10_000, 0));
        // The answer took a second and a half.
        lease.answered(&answer(10_000));
        assert_eq!(lease.state(11_500), State::Held);
        assert_eq!(lease.left_ms(11_500), 500);
        assert_eq!(lease.state(12_000), State::Lapsed);
        assert_eq!(lease.ask(12_100).last_answered, 10_000);
    }

    #[test]
    fn late_and_foreign_answers_count_for_nothing() {
        let mut lease = Lease::default();
        lease.ask(0);
        lease.ask(500);
        lease.answered(&answer(500));
        lease.answered(&answer(1));
        lease.answered(&answer(77));
        assert_eq!(lease.last_answered(), 500);
        assert_eq!(lease.state(2_499), State::Held);
        assert_eq!(lease.state(2_500), State::Lapsed);
    }

    proptest! {
        #[test]
        fn a_lease_is_never_held_longer_than_from_the_last_answered_request(
            steps in proptest::collection::vec((1_u64..3_000, any::<bool>(), 0_usize..4), 1..200),
        ) {
            let mut lease = Lease::default();
            let mut now = 0;
            let mut sent: Vec<(u64, u64)> = Vec::new();
            let mut newest_answered = None::<u64>;
            for (wait, ask, back) in steps {
                now += wait;
                if ask {
                    sent.push((lease.ask(now).number, now));
                } else if let Some((number, at)) = sent.iter().rev().nth(back) {
                    lease.answered(&answer(*number));
                    newest_answered = newest_answered.max(Some(*at));
                }
                if lease.state(now) == State::Held {
                    let at = newest_answered.expect("held without an answer");
                    prop_assert!(now < at + 2_000);
                }
            }
        }
    }
}
