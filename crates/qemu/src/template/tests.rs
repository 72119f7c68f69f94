//! Keys, names, and which files make a template; taking and restoring one is tested on a real VM.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::store::place;
use super::*;
use crate::command::{Accel, DEFAULT_MACHINE};
use crate::files::beside;

fn key() -> TemplateKey {
    let shape = Shape {
        memory_mib: 512,
        vcpus: 1,
        machine: DEFAULT_MACHINE.into(),
        cpu: "qemu64".into(),
        accel: Accel::Tcg,
        tb_size_mib: 32,
    };
    TemplateKey {
        image_hash: "abc".into(),
        shape,
        qemu_version: "10.0.2 (Debian)".into(),
    }
}

fn changed(change: impl FnOnce(&mut TemplateKey)) -> TemplateKey {
    let mut key = key();
    change(&mut key);
    key
}

fn store() -> (TemplateStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (TemplateStore::open(dir.path().join("t")).unwrap(), dir)
}

fn put(store: &TemplateStore, key: &TemplateKey) -> Template {
    let partial = beside(&store.memory(key), "partial");
    fs::write(&partial, "memory").unwrap();
    place(store, key.clone(), &partial, None).unwrap()
}

#[test]
fn every_part_of_the_key_changes_the_name() {
    let others = [
        changed(|key| key.image_hash.push('d')),
        changed(|key| key.shape.memory_mib = 513),
        changed(|key| key.shape.vcpus = 2),
        changed(|key| key.shape.machine = "pc-q35-9.2".into()),
        changed(|key| key.shape.cpu = "Nehalem".into()),
        changed(|key| key.shape.accel = Accel::Kvm),
        changed(|key| key.qemu_version.push('1')),
    ];
    let mut names: Vec<String> = others.iter().map(TemplateKey::file_name).collect();
    names.push(key().file_name());
    assert!(names.iter().all(|name| !name.contains(['.', '/', ' '])));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8);
}

#[test]
fn a_template_without_its_note_or_of_another_length_does_not_exist() {
    let (store, _dir) = store();
    assert_eq!(store.find(&key()), None);
    let template = put(&store, &key());
    assert_eq!(store.find(&key()), Some(template.clone()));
    assert_eq!(store.find(&changed(|key| key.shape.vcpus = 2)), None);
    let note = fs::read(store.note(&key())).unwrap();
    fs::remove_file(store.note(&key())).unwrap();
    assert_eq!(store.find(&key()), None);
    fs::write(store.note(&key()), note).unwrap();
    fs::set_permissions(template.memory(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(template.memory(), "mem").unwrap();
    assert_eq!(store.find(&key()), None);
}

#[test]
fn templates_nobody_wants_go_with_their_left_overs() {
    let (store, _dir) = store();
    let other = changed(|key| key.image_hash = "old".into());
    put(&store, &key());
    put(&store, &other);
    fs::write(beside(&store.memory(&other), "partial"), "half").unwrap();
    assert_eq!(store.keep_only(&[key()]).unwrap(), 3);
    assert!(store.find(&key()).is_some());
    store.remove(&key()).unwrap();
    store.remove(&key()).unwrap();
    assert_eq!(store.find(&key()), None);
}

#[test]
fn taking_again_replaces_what_is_there() {
    let (store, _dir) = store();
    put(&store, &key());
    put(&store, &key());
    assert!(store.find(&key()).is_some());
}

#[test]
fn one_that_came_from_elsewhere_is_found_by_key_and_by_name() {
    let (store, _dir) = store();
    let name = key().file_name();
    assert_eq!(store.named(&name), None);
    fs::write(store.incoming(&key()), "memory").unwrap();
    assert_eq!(
        store.find(&key()),
        None,
        "what is still coming is no template"
    );
    let arrived = store.arrived(key(), "node-2").unwrap();
    assert_eq!(store.find(&key()), Some(arrived.clone()));
    assert_eq!(store.named(&name), Some(arrived));
    let note = fs::read_to_string(store.note(&key())).unwrap();
    assert!(note.contains("node-2"), "{note}");
    for strange in ["", "..", "../x", "a/b", "nothing"] {
        assert_eq!(store.named(strange), None, "{strange}");
    }
    fs::write(store.incoming(&key()), "again").unwrap();
    store.remove(&key()).unwrap();
    assert!(!store.incoming(&key()).exists() && store.named(&name).is_none());
}
