//! Archives that a hostile customer might send, and those that honest ones do.

use std::fs;
use std::io::Write;

use ::tar::{Builder, EntryType, Header};
use undine_api::guest::FailureKind;

use super::*;

const ROOM: Limits = Limits {
    bytes: 1 << 20,
    inodes: 100,
};

enum Item<'a> {
    File(&'a str, &'a [u8]),
    Folder(&'a str),
    Link(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Device(&'a str),
}

/// Writes names as they are: the tar crate itself would refuse hostile ones.
fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        let (name, kind, content, target): (_, _, &[u8], _) = match item {
            Item::File(name, content) => (name, EntryType::Regular, *content, ""),
            Item::Folder(name) => (name, EntryType::Directory, &[], ""),
            Item::Link(name, target) => (name, EntryType::Symlink, &[], *target),
            Item::HardLink(name, target) => (name, EntryType::Link, &[], *target),
            Item::Device(name) => (name, EntryType::Char, &[], ""),
        };
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Try {
    dir: tempfile::TempDir,
    result: Outcome<Taken>,
}

fn take(bytes: &[u8], format: ArchiveFormat, limits: Limits) -> Try {
    let dir = tempfile::tempdir().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let result = unpack(&mut file, format, &dir.path().join("release"), limits);
    Try { dir, result }
}

fn refused(items: &[Item<'_>]) -> String {
    let attempt = take(&tar(items), ArchiveFormat::Tar, ROOM);
    let failure = attempt.result.expect_err("it must be refused");
    assert_eq!(failure.kind, FailureKind::BadArchive, "{failure}");
    // Nothing may lie beside the release.
    assert_eq!(fs::read_dir(attempt.dir.path()).unwrap().count(), 1);
    failure.message
}

#[test]
fn an_honest_archive_comes_out_whole() {
    let bytes = tar(&[
        Item::Folder("./"),
        Item::File("./index.html", b"hello"),
        Item::File("css/deep/site.css", b"p{}"),
        Item::Link("css/main.css", "deep/site.css"),
        Item::HardLink("copy.html", "index.html"),
    ]);
    let attempt = take(&bytes, ArchiveFormat::Tar, ROOM);
    assert_eq!(attempt.result.unwrap(), Taken { files: 4, bytes: 8 });
    let release = attempt.dir.path().join("release");
    assert_eq!(
        fs::read_to_string(release.join("css/main.css")).unwrap(),
        "p{}"
    );
    assert_eq!(
        fs::read_to_string(release.join("copy.html")).unwrap(),
        "hello"
    );
}

#[test]
fn every_packing_is_understood() {
    let bytes = tar(&[Item::File("index.html", b"hello")]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bytes).unwrap();
    let gz = gz.finish().unwrap();
    let zst = ruzstd::encoding::compress_to_vec(
        bytes.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    for (bytes, format) in [
        (gz, ArchiveFormat::TarGz),
        (zst, ArchiveFormat::TarZst),
        (zipped(&[("index.html", b"hello")]), ArchiveFormat::Zip),
    ] {
        let attempt = take(&bytes, format, ROOM);
        assert_eq!(attempt.result.unwrap().bytes, 5, "{format:?}");
        let text = fs::read_to_string(attempt.dir.path().join("release/index.html"));
        assert_eq!(text.unwrap(), "hello", "{format:?}");
    }
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer
            .start_file(*name, ::zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn a_name_that_leads_out_is_refused() {
    for name in [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a/b/../../../evil",
        "a\\..\\evil",
    ] {
        refused(&[Item::File(name, b"x")]);
        let attempt = take(&zipped(&[(name, b"x")]), ArchiveFormat::Zip, ROOM);
        assert_eq!(
            attempt.result.unwrap_err().kind,
            FailureKind::BadArchive,
            "{name}"
        );
        assert!(!attempt.dir.path().join("evil").exists());
    }
}

#[test]
fn a_link_that_leads_out_is_refused() {
    for target in ["/etc/passwd", "../x", "a/../../x", "..", ""] {
        refused(&[Item::Link("link", target)]);
    }
    refused(&[Item::Link("a/b/link", "../../../x")]);
    let inside = tar(&[Item::File("x", b"1"), Item::Link("a/b/link", "../../x")]);
    assert!(take(&inside, ArchiveFormat::Tar, ROOM).result.is_ok());
}

#[test]
fn nothing_is_written_through_a_link() {
    refused(&[Item::Link("a", "b"), Item::File("a/evil", b"x")]);
    refused(&[Item::File("a", b"x"), Item::File("a/evil", b"x")]);
    refused(&[
        Item::Folder("b"),
        Item::Link("a", "b"),
        Item::Link("a/c", "../../x"),
    ]);
}

#[test]
fn a_file_replaces_a_link_of_its_name_and_not_what_it_leads_to() {
    let bytes = tar(&[
        Item::File("kept", b"old"),
        Item::Link("name", "kept"),
        Item::File("name", b"new"),
    ]);
    let attempt = take(&bytes, ArchiveFormat::Tar, ROOM);
    attempt.result.unwrap();
    let release = attempt.dir.path().join("release");
    assert_eq!(fs::read_to_string(release.join("kept")).unwrap(), "old");
    assert_eq!(fs::read_to_string(release.join("name")).unwrap(), "new");
}

#[test]
fn a_hard_link_reaches_only_files_of_the_archive() {
    refused(&[Item::HardLink("shadow", "/etc/shadow")]);
    refused(&[Item::HardLink("shadow", "../../etc/shadow")]);
    refused(&[Item::Link("a", "x"), Item::HardLink("b", "a")]);
}

#[test]
fn devices_and_empty_archives_are_refused() {
    refused(&[Item::Device("zero")]);
    refused(&[]);
    refused(&[Item::Folder("only")]);
    let attempt = take(b"this is no archive at all", ArchiveFormat::Zip, ROOM);
    assert_eq!(attempt.result.unwrap_err().kind, FailureKind::BadArchive);
    let attempt = take(b"this is no archive at all", ArchiveFormat::TarGz, ROOM);
    assert_eq!(attempt.result.unwrap_err().kind, FailureKind::BadArchive);
}

#[test]
fn a_bomb_stops_at_the_sites_room() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&tar(&[Item::File("zeros", &vec![0; 32 << 20])]))
        .unwrap();
    let bomb = gz.finish().unwrap();
    assert!(bomb.len() < 64 << 10);
    let attempt = take(&bomb, ArchiveFormat::TarGz, ROOM);
    assert_eq!(attempt.result.unwrap_err().kind, FailureKind::Full);
    let written = fs::metadata(attempt.dir.path().join("release/zeros")).unwrap();
    assert!(written.len() <= ROOM.bytes);
}

#[test]
fn too_many_files_stop_at_the_sites_room() {
    let names: Vec<String> = (0..200).map(|n| format!("f{n}")).collect();
    let items: Vec<Item<'_>> = names.iter().map(|name| Item::File(name, b"")).collect();
    let attempt = take(&tar(&items), ArchiveFormat::Tar, ROOM);
    assert_eq!(attempt.result.unwrap_err().kind, FailureKind::Full);
}

proptest::proptest! {
    #[test]
    fn no_name_at_all_leaves_the_release(name in "[a-z./\\\\]{1,40}", target in "[a-z./]{1,40}") {
        let bytes = tar(&[Item::Link(&name, &target), Item::File(&name, b"x")]);
        let attempt = take(&bytes, ArchiveFormat::Tar, ROOM);
        proptest::prop_assert!(fs::read_dir(attempt.dir.path()).unwrap().count() <= 1);
    }
}
