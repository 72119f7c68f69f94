//! Good histories pass; each planted violation is found. The histories are those that real faults
//! of the design would leave behind.

use super::*;

const A: &str = "a.test";
const B: &str = "b.test";

fn write(site: &str, kind: Kind, number: u64, times: (u64, u64), epoch: u64) -> Write {
    Write {
        site: site.to_owned(),
        kind,
        number,
        asked_ms: times.0,
        ended_ms: times.1,
        is_acked: true,
        epoch: Some(epoch),
        trouble: None,
    }
}

fn read(site: &str, times: (u64, u64), seen: u64, epoch: u64) -> Read {
    Read {
        site: site.to_owned(),
        asked_ms: times.0,
        ended_ms: times.1,
        is_right: true,
        seen: Some(seen),
        epoch: Some(epoch),
        trouble: None,
    }
}

fn found(site: &str, kind: Kind, numbers: &[u64]) -> Found {
    Found {
        site: site.to_owned(),
        kind,
        numbers: numbers.to_vec(),
    }
}

/// A server writes, its node dies, it goes on elsewhere under the next epoch.
fn good() -> (Log, Vec<Found>) {
    let mut refused = write(A, Kind::File, 4, (4_000, 9_000), 0);
    (refused.is_acked, refused.epoch) = (false, None);
    let log = Log {
        writes: vec![
            write(A, Kind::File, 1, (1_000, 1_100), 1),
            write(A, Kind::Session, 1, (1_200, 1_300), 1),
            write(A, Kind::File, 2, (2_000, 2_100), 1),
            refused,
            write(A, Kind::File, 5, (10_000, 10_100), 2),
            write(A, Kind::Session, 2, (10_200, 10_300), 2),
            write(B, Kind::Row, 1, (1_000, 1_900), 1),
        ],
        reads: vec![
            read(A, (900, 1_000), 0, 1),
            // Beside the write: either is right.
            read(A, (1_050, 1_150), 0, 1),
            read(A, (1_500, 1_600), 1, 1),
            // Waited at the edge.
            read(A, (4_000, 9_500), 2, 2),
            read(A, (11_000, 11_100), 5, 2),
        ],
    };
    let found = vec![
        found(A, Kind::File, &[1, 2, 4, 5]),
        found(A, Kind::Session, &[2]),
        found(B, Kind::Row, &[1]),
    ];
    (log, found)
}

#[test]
fn a_good_history_passes() {
    let (log, found) = good();
    assert_eq!(judge(&log, &found), Verdict::default());
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    // Acknowledged by one copy (a threshold of 1, or flushes that do nothing), and that one died;
    // or a daemon came back under its old name without what it had been given; or a stale copy was
    // promoted.
    for (kind, site, missing) in [
        (Kind::File, A, &[1, 4, 5][..]),
        (Kind::Session, A, &[1][..]),
        (Kind::Row, B, &[][..]),
    ] {
        let (log, mut held) = good();
        for it in &mut held {
            if (it.site.as_str(), it.kind) == (site, kind) {
                it.numbers = missing.to_vec();
            }
        }
        let verdict = judge(&log, &held);
        assert_eq!(verdict.lost_writes.len(), 1, "{kind:?}");
        assert_eq!(verdict.lost_writes[0].site, site);
        assert!(verdict.double_owner.is_empty() && verdict.stale_reads.is_empty());
    }
}

#[test]
fn a_site_that_nobody_could_ask_has_lost_everything() {
    let (log, mut held) = good();
    held.retain(|it| it.site == A);
    assert_eq!(judge(&log, &held).lost_writes.len(), 1);
}

#[test]
fn an_owner_that_acknowledges_after_the_next_one_has_spoken_is_found() {
    // Promoted without a new epoch being opened: the old owner goes on writing.
    let (mut log, mut held) = good();
    log.writes
        .push(write(A, Kind::File, 6, (10_500, 10_600), 1));
    held[0].numbers.push(6);
    let verdict = judge(&log, &held);
    assert_eq!(verdict.double_owner.len(), 1);
    assert!(verdict.double_owner[0].what.contains("epoch 1"));
    // Asked for before anybody had heard of the new one: nothing is proved.
    let (mut log, _) = good();
    log.writes.push(write(A, Kind::File, 5, (9_000, 10_600), 1));
    assert!(judge(&log, &held).double_owner.is_empty());
}

#[test]
fn a_new_owners_page_is_enough_to_condemn_the_old_owners_write() {
    let (mut log, held) = good();
    log.writes.push(write(A, Kind::File, 5, (9_600, 9_700), 1));
    assert_eq!(judge(&log, &held).double_owner.len(), 1);
}

#[test]
fn a_page_that_knows_less_than_was_known_is_found() {
    // A zombie that was paused too late and still serves; or a promoted stale copy.
    let (mut log, held) = good();
    log.reads.push(read(A, (12_000, 12_100), 2, 2));
    let verdict = judge(&log, &held);
    assert_eq!(verdict.stale_reads.len(), 1);
    assert!(verdict.lost_writes.is_empty());
    // By its epoch alone, when it knows all that was written.
    let (mut log, held) = good();
    log.reads.push(read(A, (12_000, 12_100), 5, 1));
    let verdict = judge(&log, &held);
    assert!(verdict.stale_reads[0].what.contains("epoch 1"));
    assert!(verdict.double_owner.is_empty());
    // What an earlier page has shown, of a write whose acknowledgement was still under way.
    let (mut log, held) = good();
    log.writes[4].ended_ms = 30_000;
    log.reads.push(read(A, (12_000, 12_100), 2, 2));
    assert_eq!(judge(&log, &held).stale_reads.len(), 1);
    // Also when no page, only a writer, had been told of the newer one.
    let (mut log, held) = good();
    log.reads = vec![read(A, (10_101, 10_150), 4, 2)];
    assert_eq!(judge(&log, &held).stale_reads.len(), 1);
    log.reads = vec![read(A, (10_100, 10_150), 4, 2)];
    assert!(judge(&log, &held).stale_reads.is_empty(), "the same moment");
}

#[test]
fn sites_are_judged_apart() {
    let (mut log, mut held) = good();
    log.writes.push(write(B, Kind::Row, 2, (20_000, 20_100), 1));
    held[2].numbers.push(2);
    log.reads.push(read(B, (20_000, 20_100), 0, 1));
    assert_eq!(judge(&log, &held), Verdict::default());
}

#[test]
fn what_was_never_acknowledged_may_be_there_or_not() {
    let (mut log, mut held) = good();
    held[0].numbers = vec![1, 2, 5];
    assert_eq!(judge(&log, &held), Verdict::default());
    // Shown once, and gone with the server's memory.
    log.reads.push(read(A, (8_000, 8_100), 4, 1));
    assert_eq!(judge(&log, &held), Verdict::default());
}
