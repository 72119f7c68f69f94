//! Which spares are made and which go; making one is tested on a real VM.

use std::collections::BTreeMap;
use std::time::Duration;

use undine_qemu::command::{Accel, DEFAULT_MACHINE, Shape};

use super::*;

fn key(memory_mib: u32, accel: Accel) -> TemplateKey {
    TemplateKey {
        image_hash: "abc".into(),
        shape: Shape {
            memory_mib,
            vcpus: 1,
            machine: DEFAULT_MACHINE.into(),
            cpu: "qemu64".into(),
            accel,
            tb_size_mib: 64,
        },
        qemu_version: "10.0.2".into(),
    }
}

fn profile() -> Profile {
    Profile {
        name: "static".parse().unwrap(),
        title: "Files".into(),
        image: "image".parse().unwrap(),
        memory: undine_model::Bytes::mib(384),
        vcpus: 1,
        cpu: undine_model::MilliCpu(250),
        disk: undine_model::Bytes::gib(1),
        folders: BTreeMap::new(),
        files: BTreeMap::new(),
        services: Vec::new(),
        runtimes: BTreeMap::new(),
    }
}

fn wish(elsewhere: u32) -> TemplateWish {
    TemplateWish {
        image_hash: "abc".into(),
        memory: undine_model::Bytes::mib(512),
        vcpus: 1,
        machine: DEFAULT_MACHINE.into(),
        cpu_model: "qemu64".into(),
        peers: Vec::new(),
        rehearsal: Some(Box::new(profile())),
        elsewhere,
    }
}

fn boot() -> Boot {
    Boot {
        kernel: "/k".into(),
        initrd: "/i".into(),
        root_image: "/r".into(),
        cmdline: "quiet".into(),
    }
}

async fn spares(dir: &Path) -> Spares {
    let uids = Arc::new(Uids::open(dir, 70_000, 100).unwrap());
    let cgroup = Cgroup::new(crate::cgroup::Mounts::V2(dir.join("cgroup")), "undine/test");
    Spares::open(dir, uids, &cgroup, 2).await.unwrap()
}

const PLENTY: undine_model::Bytes = undine_model::Bytes::gib(16);

#[tokio::test]
async fn as_many_are_made_as_run_elsewhere_but_never_more_than_the_node_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let spares = spares(dir.path()).await;
    let lacking = |spares: &Spares| {
        let wished = spares.book().lacking(Instant::now(), PLENTY);
        wished.map(|wished| wished.count)
    };
    assert_eq!(lacking(&spares), None);
    spares.wish(&wish(1), &key(512, Accel::Tcg), &boot());
    assert_eq!(lacking(&spares), Some(1));
    spares.wish(&wish(7), &key(512, Accel::Tcg), &boot());
    assert_eq!(lacking(&spares), Some(2));
    spares.wish(&wish(0), &key(512, Accel::Tcg), &boot());
    assert_eq!(lacking(&spares), None, "no server could come here");
}

#[tokio::test]
async fn none_is_made_with_kvm_without_memory_beside_a_start_or_after_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let spares = spares(dir.path()).await;
    spares.wish(&wish(1), &key(512, Accel::Kvm), &boot());
    assert!(spares.book().lacking(Instant::now(), PLENTY).is_none());
    let key = key(512, Accel::Tcg);
    spares.wish(&wish(1), &key, &boot());
    let now = Instant::now();
    let little = undine_model::Bytes::mib(2500);
    assert!(spares.book().lacking(now, little).is_none());
    assert!(spares.book().lacking(now, PLENTY).is_some());
    spares.starting();
    assert!(spares.book().lacking(now, PLENTY).is_none());
    let later = now + Duration::from_secs(21);
    assert!(spares.book().lacking(later, PLENTY).is_some());
    let name = key.file_name();
    spares.book().wishes.get_mut(&name).unwrap().failed = Some(now);
    // Control says it again, which is no reason to try at once.
    spares.wish(&wish(1), &key, &boot());
    assert!(spares.book().lacking(later, PLENTY).is_none());
    assert!(
        spares
            .book()
            .lacking(now + Duration::from_secs(601), PLENTY)
            .is_some()
    );
}

#[tokio::test]
async fn a_shape_of_which_control_says_no_more_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let spares = spares(dir.path()).await;
    spares.wish(&wish(1), &key(512, Accel::Tcg), &boot());
    let later = Instant::now() + Duration::from_secs(601);
    assert!(spares.book().useless(later, PLENTY).is_empty());
    assert!(spares.book().lacking(later, PLENTY).is_none());
}

#[test]
fn a_spare_suits_only_a_server_of_the_shape_and_profile_that_it_rehearsed() {
    let (own, other) = (key(512, Accel::Tcg), key(384, Accel::Tcg));
    let kind = Kind {
        key: own.clone(),
        profile: profile(),
    };
    assert!(kind.suits(&own, &profile()));
    assert!(!kind.suits(&other, &profile()));
    let mut changed = profile();
    changed.files.insert("/run/a".into(), "b".into());
    assert!(
        !kind.suits(&own, &changed),
        "another profile, or a changed one"
    );
}

#[tokio::test]
async fn a_profile_that_was_mended_is_rehearsed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let spares = spares(dir.path()).await;
    let key = key(512, Accel::Tcg);
    spares.wish(&wish(1), &key, &boot());
    let now = Instant::now();
    let name = key.file_name();
    spares.book().wishes.get_mut(&name).unwrap().failed = Some(now);
    let mut mended = wish(1);
    let profile = mended.rehearsal.as_mut().unwrap();
    profile.files.insert("/run/a".into(), "b".into());
    spares.wish(&mended, &key, &boot());
    assert!(spares.book().lacking(now, PLENTY).is_some());
}
