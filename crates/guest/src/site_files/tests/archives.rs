//! Moves and archives: nothing is overwritten, nothing grows beyond what the site may have.

use super::*;

#[test]
fn nothing_is_overwritten_by_a_move_and_no_folder_moves_into_itself() {
    let server = Server::new();
    fs::create_dir_all(server.live().join("a/b")).unwrap();
    fs::write(server.live().join("other"), "other").unwrap();
    server.own();
    let go = |from: &str, to: &str| {
        server.ask(FileTask::Move {
            from: path(from),
            to: path(to),
        })
    };
    assert_eq!(
        kind_of(go("current/index.html", "current/other")),
        FailureKind::Conflict
    );
    assert_eq!(
        kind_of(go("current/a", "current/a/b/c")),
        FailureKind::Invalid
    );
    assert_eq!(
        kind_of(go("current/none", "current/some")),
        FailureKind::NotFound
    );
    for tree in ["current", "shared", ""] {
        assert_eq!(
            kind_of(go(tree, "current/x")),
            FailureKind::Invalid,
            "{tree}"
        );
        assert_eq!(
            kind_of(go("current/a", tree)),
            FailureKind::Invalid,
            "{tree}"
        );
        let gone = server.ask(FileTask::Remove {
            path: path(tree),
            mark: None,
        });
        assert_eq!(kind_of(gone), FailureKind::Invalid, "{tree}");
    }
    go("current/a", "shared/a").unwrap();
    assert!(server.shared().join("a/b").is_dir());
    let gone = |mark| {
        server.ask(FileTask::Remove {
            path: path("shared/a"),
            mark,
        })
    };
    assert_eq!(kind_of(gone(Some("old".to_owned()))), FailureKind::Conflict);
    gone(None).unwrap();
    assert!(!server.shared().join("a").exists());
    assert_eq!(kind_of(gone(None)), FailureKind::NotFound);
}

#[test]
fn an_archive_is_made_and_comes_out_again_elsewhere() {
    let server = Server::new();
    fs::create_dir_all(server.live().join("css/deep")).unwrap();
    fs::write(server.live().join("css/deep/a.css"), "p{}").unwrap();
    symlink("/etc/passwd", server.live().join("css/link")).unwrap();
    server.own();
    let pack = |to: &str| {
        server.ask(FileTask::Pack {
            paths: vec![path("current/css"), path("current/index.html")],
            to: path(to),
        })
    };
    assert_eq!(kind_of(pack("current/all.rar")), FailureKind::Invalid);
    let Answer::Uploaded { files, bytes } = pack("current/all.zip").unwrap() else {
        panic!("no archive")
    };
    assert_eq!((files, bytes), (2, Bytes(8)));
    assert_eq!(kind_of(pack("current/all.zip")), FailureKind::Conflict);
    // Into a folder where one of them is already, and another stays.
    fs::create_dir_all(server.shared().join("out/css")).unwrap();
    fs::write(server.shared().join("out/css/kept"), "kept").unwrap();
    fs::write(server.shared().join("out/index.html"), "old").unwrap();
    server.own();
    let unpack = |from: &str, into: &str| {
        server.ask(FileTask::Unpack {
            path: path(from),
            into: path(into),
        })
    };
    unpack("current/all.zip", "shared/out").unwrap();
    let out = server.shared().join("out");
    assert_eq!(
        fs::read_to_string(out.join("css/deep/a.css")).unwrap(),
        "p{}"
    );
    assert_eq!(fs::read_to_string(out.join("index.html")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(out.join("css/kept")).unwrap(), "kept");
    assert!(!out.join("css/link").is_symlink());
    assert_eq!(
        fs::metadata(out.join("css/deep")).unwrap().uid(),
        server.uid
    );
    assert_eq!(
        kind_of(unpack("current/index.html", "shared")),
        FailureKind::Invalid
    );
    assert_eq!(
        kind_of(unpack("current/all.zip", "shared/none")),
        FailureKind::NotFound
    );
    for left in ["tmp", "incoming"] {
        let left = fs::read_dir(server.releases.at.at(left)).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_bomb_and_a_hostile_archive_leave_everything_as_it_was() {
    use std::io::Write as _;
    let server = Server::new();
    let zip = |name: &str, content: &[u8]| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "a", "/etc").unwrap();
    let cases = [
        (
            "bomb.zip",
            zip("zeros", &vec![0; 32 << 20]),
            FailureKind::Full,
        ),
        ("up.zip", zip("../../evil", b"x"), FailureKind::BadArchive),
        ("abs.zip", zip("/etc/evil", b"x"), FailureKind::BadArchive),
        (
            "link.tar",
            link.into_inner().unwrap(),
            FailureKind::BadArchive,
        ),
        ("not.tgz", b"nothing".to_vec(), FailureKind::BadArchive),
    ];
    for (name, bytes, wanted) in cases {
        fs::write(server.shared().join(name), bytes).unwrap();
        server.own();
        let outcome = server.ask(FileTask::Unpack {
            path: path(&format!("shared/{name}")),
            into: path("current"),
        });
        assert_eq!(kind_of(outcome), wanted, "{name}");
        assert_eq!(server.names("current"), ["index.html"], "{name}");
    }
    // A name that is a link here is not written through.
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, server.live().join("css")).unwrap();
    fs::write(server.shared().join("in.zip"), zip("css/evil", b"x")).unwrap();
    server.own();
    let outcome = server.ask(FileTask::Unpack {
        path: path("shared/in.zip"),
        into: path("current"),
    });
    assert_eq!(kind_of(outcome), FailureKind::Conflict);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
