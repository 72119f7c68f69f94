//! Links, pipes, other users and programs that change things meanwhile: all stays inside.

use super::*;

#[test]
fn links_are_shown_and_never_followed() {
    let server = Server::new();
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "secret").unwrap();
    symlink(&outside, server.live().join("abs")).unwrap();
    symlink("../../../../../outside", server.live().join("rel")).unwrap();
    symlink("/proc/self/root", server.live().join("magic")).unwrap();
    symlink(outside.join("passwd"), server.live().join("file")).unwrap();
    fs::create_dir(server.live().join("deep")).unwrap();
    symlink(&outside, server.live().join("deep/abs")).unwrap();
    server.own();
    for text in ["abs", "rel", "magic", "deep/abs", "file"] {
        for (at, outcome) in server
            .every(&format!("current/{text}"))
            .into_iter()
            .enumerate()
        {
            let failure = outcome.expect_err(&format!("{text}, task {at}"));
            assert_ne!(
                failure.kind,
                FailureKind::Internal,
                "{text} {at}: {failure}"
            );
            assert!(!failure.message.contains("secret"));
        }
    }
    assert_eq!(kind_of(server.read("current/file")), FailureKind::Invalid);
    let put = server.put("current/file", b"evil", Expect::Any);
    assert_eq!(kind_of(put), FailureKind::Conflict);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(outside.join("passwd")).unwrap(),
        "secret"
    );
    let items = server.list("current").unwrap().items;
    let links = items.iter().filter(|it| it.kind == FileKind::Link);
    assert_eq!(links.clone().count(), 4);
    assert!(links.clone().all(|it| it.leads_to.is_none()));
    // A link itself can go; what it led to stays.
    server
        .ask(FileTask::Remove {
            path: path("current/abs"),
            mark: None,
        })
        .unwrap();
    assert!(outside.join("passwd").exists());
}

#[test]
fn a_link_to_the_shared_folder_says_where_it_leads() {
    let server = Server::new();
    fs::create_dir_all(server.shared().join("wp-content/uploads")).unwrap();
    fs::create_dir(server.live().join("wp-content")).unwrap();
    let way = "../../../shared/wp-content/uploads";
    symlink(way, server.live().join("wp-content/uploads")).unwrap();
    symlink("../index.html", server.live().join("wp-content/home")).unwrap();
    symlink(
        "../../../../../shared",
        server.live().join("wp-content/far"),
    )
    .unwrap();
    let named = server.releases.at.home.join("shared/wp-content");
    symlink(named, server.live().join("wp-content/named")).unwrap();
    symlink("../../x/../tmp", server.shared().join("odd")).unwrap();
    server.own();
    let leads = |folder: &str| -> Vec<Option<String>> {
        let items = server.list(folder).unwrap().items;
        items
            .iter()
            .map(|it| it.leads_to.as_ref().map(ToString::to_string))
            .collect()
    };
    assert_eq!(
        leads("current/wp-content"),
        [
            None,
            Some("current/index.html".to_owned()),
            Some("shared/wp-content".to_owned()),
            Some("shared/wp-content/uploads".to_owned()),
        ]
    );
    assert_eq!(leads("shared"), [None, None]);
}

#[test]
fn nothing_is_read_from_pipes_and_folders() {
    let server = Server::new();
    let pipe = server.live().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    server.own();
    assert_eq!(kind_of(server.read("current/pipe")), FailureKind::Invalid);
    assert_eq!(kind_of(server.read("current")), FailureKind::Invalid);
    let put = server.put("current/pipe", b"x", Expect::Any);
    assert_eq!(kind_of(put), FailureKind::Conflict);
    // And an archive passes over it instead of waiting.
    fs::create_dir(server.live().join("d")).unwrap();
    fs::rename(&pipe, server.live().join("d/pipe")).unwrap();
    server.own();
    let packed = server.ask(FileTask::Pack {
        paths: vec![path("current/d")],
        to: path("current/d.zip"),
    });
    assert!(matches!(packed.unwrap(), Answer::Uploaded { files: 0, .. }));
}

#[test]
fn the_kernel_holds_the_site_s_user_to_its_own() {
    if !is_root() {
        return;
    }
    let server = Server::new();
    let foreign = server.live().join("foreign");
    fs::write(&foreign, "root's").unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        kind_of(server.read("current/foreign")),
        FailureKind::Invalid
    );
    let locked = server.live().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("a"), "").unwrap();
    for outcome in [
        server
            .put("current/locked/b", b"x", Expect::Any)
            .map(Answer::File),
        server.ask(FileTask::Remove {
            path: path("current/locked/a"),
            mark: None,
        }),
        server.ask(FileTask::Folder {
            path: path("current/locked/c"),
        }),
    ] {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains("mode"), "{failure}");
    }
    // The thread that asked is who it was.
    fs::write(server.dir.path().join("root-s"), "").unwrap();
    assert_eq!(
        fs::metadata(server.dir.path().join("root-s"))
            .unwrap()
            .uid(),
        0
    );
}

#[test]
fn folders_on_the_way_are_made_when_asked_for_as_the_site_s_user_and_inside_only() {
    let server = Server::new();
    let plain = server.put("current/a/b/c.txt", b"x", Expect::Any);
    assert_eq!(kind_of(plain), FailureKind::NotFound);
    assert!(!server.live().join("a").exists());
    server.put_with_folders("current/a/b/c.txt", b"x").unwrap();
    for made in ["a", "a/b"] {
        let meta = fs::metadata(server.live().join(made)).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (server.uid, 0o755));
    }
    assert_eq!(fs::read(server.live().join("a/b/c.txt")).unwrap(), b"x");
    // Again, and with some of them there; beside the live release too.
    server.put_with_folders("current/a/b/c.txt", b"y").unwrap();
    server.put_with_folders("current/a/d/e/f", b"z").unwrap();
    server.put_with_folders("shared/one/two", b"z").unwrap();
    assert_eq!(server.names("current/a"), ["b", "d"]);

    let outside = server.dir.path().join("elsewhere");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(&outside, server.live().join("link")).unwrap();
    symlink("a", server.live().join("near")).unwrap();
    symlink("nowhere", server.live().join("dangling")).unwrap();
    server.own();
    for (through, kind) in [
        ("current/link/x/evil", FailureKind::Invalid),
        ("current/near/x/evil", FailureKind::Invalid),
        ("current/dangling/x/evil", FailureKind::Invalid),
        ("current/index.html/x/evil", FailureKind::Invalid),
        ("current/a/.undine-x/evil", FailureKind::Invalid),
        ("current/a/new /evil", FailureKind::Invalid),
        ("current/a/fresh/.undine-evil", FailureKind::Invalid),
    ] {
        let put = server.put_with_folders(through, b"evil");
        assert_eq!(kind_of(put), kind, "{through}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(server.names("current/a"), ["b", "d"], "nothing half made");
}

#[test]
fn a_program_that_swaps_folders_for_links_meanwhile_gains_nothing() {
    let server = Server::new();
    let outside = server.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    // Open to everybody: only the way there must keep it safe.
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("passwd"), "secret").unwrap();
    fs::create_dir(server.live().join("a")).unwrap();
    symlink(&outside, server.live().join("b")).unwrap();
    server.own();
    let (a, b, c) = ["a", "b", "c"].map(|name| server.live().join(name)).into();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::rename(&a, &c);
                let _ = fs::rename(&b, &a);
                let _ = fs::rename(&a, &b);
                let _ = fs::rename(&c, &a);
            }
        });
        for _ in 0..400 {
            let _ = server.put("current/a/evil", b"evil", Expect::Any);
            let _ = server.ask(FileTask::Folder {
                path: path("current/a/made"),
            });
            let _ = server.put_with_folders("current/a/x/y/evil", b"evil");
            if let Ok(piece) = server.read("current/a/passwd") {
                panic!("read {piece:?}");
            }
            let _ = server.ask(FileTask::Remove {
                path: path("current/a/passwd"),
                mark: None,
            });
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn strange_names_are_listed_moved_and_removed_but_not_made() {
    use std::os::unix::ffi::OsStrExt as _;
    let server = Server::new();
    let evil = "<script>\u{1b}[2J\n\u{202e}.txt";
    fs::write(server.live().join(evil), "x").unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    fs::write(server.live().join(raw), "x").unwrap();
    server.own();
    let page = server.list("current").unwrap();
    assert_eq!(page.items.len(), 3);
    let entry = page.items.iter().find(|it| it.name == evil).unwrap();
    let odd = page.items.iter().find(|it| it.path.is_none()).unwrap();
    assert_eq!(odd.kind, FileKind::Other);
    let from = entry.path.clone().unwrap();
    let put = server.put(&format!("current/new{evil}"), b"x", Expect::Any);
    assert_eq!(kind_of(put), FailureKind::Invalid);
    server
        .ask(FileTask::Move {
            from,
            to: path("current/tame.txt"),
        })
        .unwrap();
    assert!(server.live().join("tame.txt").exists());
}

#[test]
fn a_live_link_that_is_not_the_agent_s_own_is_not_followed() {
    let server = Server::new();
    fs::remove_file(server.live()).unwrap();
    symlink("/etc", server.live()).unwrap();
    assert!(server.names("current").is_empty());
    assert_eq!(
        kind_of(server.read("current/passwd")),
        FailureKind::NotFound
    );
}
