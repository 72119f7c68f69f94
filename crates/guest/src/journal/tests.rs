//! What was applied survives, and a crash in the middle of a line costs only that line.

use std::collections::BTreeMap;

use undine_manifest::{Caps, SiteSettings};
use undine_model::{AccountId, Bytes, MilliCpu};

use super::*;

fn site(number: u32) -> SiteSpec {
    SiteSpec {
        id: SiteId::from_parts(u64::from(number), [0; 10]),
        account: AccountId::from_parts(1, [0; 10]),
        uid: 20_000 + number,
        domain: format!("s{number}.example.com").parse().unwrap(),
        aliases: Vec::new(),
        runtime: "static".parse().unwrap(),
        settings: SiteSettings::default(),
        caps: Caps {
            cpu: MilliCpu(100),
            memory: Bytes::mib(64),
            processes: 10,
            io_bytes_per_s: Bytes::mib(1),
            iops: 100,
            disk: Bytes::mib(10),
            inodes: 1000,
        },
        suspended: false,
        release: None,
    }
}

fn manifest(sites: u32) -> Manifest {
    Manifest {
        format: undine_manifest::FORMAT,
        version: 1,
        server: ServerId::from_parts(1, [0; 10]),
        profile: Profile {
            name: "test".parse().unwrap(),
            title: String::new(),
            image: "test".parse().unwrap(),
            memory: Bytes::mib(1),
            vcpus: 1,
            cpu: MilliCpu(1),
            disk: Bytes::mib(1),
            folders: BTreeMap::new(),
            files: BTreeMap::new(),
            services: Vec::new(),
            runtimes: BTreeMap::new(),
        },
        sites: (1..=sites).map(site).collect(),
        databases: Vec::new(),
    }
}

fn add(from: u64, number: u32) -> ManifestDelta {
    ManifestDelta {
        format: undine_manifest::FORMAT,
        from,
        to: from + 1,
        sites: vec![site(number)],
        removed_sites: Vec::new(),
        databases: Vec::new(),
        removed_databases: Vec::new(),
    }
}

fn paths(dir: &std::path::Path) -> Paths {
    let paths = Paths {
        root: dir.join("root"),
        data: dir.join("srv"),
        run: dir.join("run"),
    };
    fs::create_dir_all(paths.own()).unwrap();
    paths
}

#[test]
fn deltas_are_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let (mut journal, none) = Journal::open(&paths).unwrap();
    assert!(none.is_none());
    let mut applied = Applied::of(manifest(2));
    journal.save(&applied).unwrap();
    for (from, number) in [(1, 3), (2, 4)] {
        applied.change(add(from, number));
        applied.failed = BTreeSet::from([site(4).id]);
        journal.add(add(from, number), &applied).unwrap();
    }
    let (_, read) = Journal::open(&paths).unwrap();
    assert_eq!(read, Some(applied));
}

#[test]
fn a_line_that_a_crash_cut_off_is_left_out_and_later_ones_still_count() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let (mut journal, _) = Journal::open(&paths).unwrap();
    let mut applied = Applied::of(manifest(1));
    journal.save(&applied).unwrap();
    applied.change(add(1, 2));
    journal.add(add(1, 2), &applied).unwrap();
    let mut file = File::options()
        .append(true)
        .open(journal.journal_path())
        .unwrap();
    file.write_all(b"{\"delta\":{\"format\":1,\"fr").unwrap();

    let (mut journal, read) = Journal::open(&paths).unwrap();
    assert_eq!(read.as_ref(), Some(&applied));
    applied.change(add(2, 3));
    journal.add(add(2, 3), &applied).unwrap();
    let (_, read) = Journal::open(&paths).unwrap();
    assert_eq!(read, Some(applied));
}

#[test]
fn a_change_costs_one_line_however_many_sites_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let (mut journal, _) = Journal::open(&paths).unwrap();
    let mut applied = Applied::of(manifest(2_000));
    journal.save(&applied).unwrap();
    applied.change(add(1, 2_001));
    journal.add(add(1, 2_001), &applied).unwrap();
    let line = fs::metadata(journal.journal_path()).unwrap().len();
    assert!(line < 2_000, "{line} bytes for one site");
}

#[test]
fn what_is_removed_is_gone() {
    let mut applied = Applied::of(manifest(2));
    applied.failed.insert(site(1).id);
    applied.change(ManifestDelta {
        sites: Vec::new(),
        removed_sites: vec![site(1).id],
        ..add(1, 1)
    });
    assert!(applied.failed.is_empty());
    assert_eq!(
        applied.sites.keys().copied().collect::<Vec<_>>(),
        [site(2).id]
    );
}
