//! A site's files on a real file system, with what hostile programs of the site do meanwhile.
//!
//! As root the site has a user of its own, as in a server; else it is whoever runs the tests.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use undine_api::guest::{Answer, Expect, Failure, FailureKind, FileTask, Piece, Put};
use undine_api::public::{FileEntry, FileKind, FilePage};
use undine_manifest::{Caps, SiteSpec};
use undine_model::{AccountId, Bytes, MilliCpu, ReleaseId, SiteId, SitePath, UploadId};

use crate::fail::Outcome;
use crate::paths::Paths;
use crate::release::Releases;

struct Server {
    dir: tempfile::TempDir,
    releases: Releases,
    uid: u32,
}

fn path(text: &str) -> SitePath {
    text.parse().unwrap()
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

impl Server {
    /// A site whose live release has `index.html`.
    fn new() -> Self {
        let it = Self::empty();
        let release = ReleaseId::from_parts(1, [1; 10]);
        it.releases.blank(release).unwrap();
        it.releases.activate(release).unwrap();
        fs::write(it.live().join("index.html"), "hello").unwrap();
        it.own();
        it
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The site's user may pass through, as in a server.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let paths = Paths {
            root: dir.path().join("root"),
            data: dir.path().join("srv"),
            run: dir.path().join("run"),
        };
        let uid = match rustix::process::getuid().as_raw() {
            0 => 20_001,
            own => own,
        };
        let site = SiteSpec {
            id: SiteId::from_parts(1, [0; 10]),
            account: AccountId::from_parts(1, [0; 10]),
            uid,
            domain: "a.example".parse().unwrap(),
            aliases: Vec::new(),
            runtime: "static".parse().unwrap(),
            settings: undine_manifest::SiteSettings::default(),
            caps: Caps {
                cpu: MilliCpu(100),
                memory: Bytes::mib(100),
                processes: 10,
                io_bytes_per_s: Bytes::mib(1),
                iops: 100,
                disk: Bytes::mib(8),
                inodes: 100,
            },
            suspended: false,
            release: None,
        };
        let releases = Releases::new(&paths, &site, Path::new(""), String::new());
        for folder in [
            paths.trash(),
            releases.at.releases(),
            releases.at.incoming(),
            releases.at.at("shared"),
            releases.at.at("tmp"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        for name in ["shared", "tmp"] {
            chown(releases.at.at(name), Some(uid), Some(uid)).unwrap();
        }
        Self { dir, releases, uid }
    }

    fn live(&self) -> PathBuf {
        self.releases.at.at("current")
    }

    fn shared(&self) -> PathBuf {
        self.releases.at.at("shared")
    }

    /// Everything that a test wrote is the site's, as if its programs had.
    fn own(&self) {
        let trees = [fs::canonicalize(self.live()), Ok(self.shared())];
        for tree in trees.into_iter().flatten() {
            crate::site::own_tree(&tree, self.uid, self.uid).unwrap();
        }
    }

    fn ask(&self, task: FileTask) -> Outcome<Answer> {
        super::run(&self.releases, task)
    }

    fn list(&self, text: &str) -> Outcome<FilePage> {
        let task = FileTask::List {
            path: path(text),
            after: None,
            limit: 100,
        };
        match self.ask(task)? {
            Answer::Listed(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    fn names(&self, text: &str) -> Vec<String> {
        let items = self.list(text).unwrap().items;
        items.into_iter().map(|entry| entry.name).collect()
    }

    fn read(&self, text: &str) -> Outcome<Piece> {
        let task = FileTask::Read {
            path: path(text),
            offset: 0,
            mark: None,
        };
        match self.ask(task)? {
            Answer::Piece(piece) => Ok(piece),
            other => panic!("{other:?}"),
        }
    }

    fn put(&self, text: &str, content: &[u8], expect: Expect) -> Outcome<FileEntry> {
        self.put_in(text, content, expect, false)
    }

    /// The same, with the folders on its way.
    fn put_with_folders(&self, text: &str, content: &[u8]) -> Outcome<FileEntry> {
        self.put_in(text, content, Expect::Any, true)
    }

    fn put_in(
        &self,
        text: &str,
        content: &[u8],
        expect: Expect,
        parents: bool,
    ) -> Outcome<FileEntry> {
        let upload = UploadId::from_parts(7, [7; 10]);
        self.ask(FileTask::Piece {
            upload,
            offset: 0,
            data: STANDARD.encode(content),
        })?;
        let put = Put {
            upload,
            size: content.len() as u64,
            path: path(text),
            expect,
            parents,
        };
        match self.ask(FileTask::Put(put))? {
            Answer::File(entry) => Ok(entry),
            other => panic!("{other:?}"),
        }
    }

    /// Every task that names this path.
    fn every(&self, text: &str) -> Vec<Outcome<Answer>> {
        let (it, free) = (path(text), path("current/free"));
        let put = |path: SitePath| {
            self.put(path.as_str(), b"evil", Expect::Any)
                .map(Answer::File)
        };
        vec![
            self.list(text).map(Answer::Listed),
            self.read(text).map(Answer::Piece),
            put(it.join("evil").unwrap()),
            self.put_with_folders(&format!("{text}/deeper/evil"), b"evil")
                .map(Answer::File),
            self.ask(FileTask::Folder {
                path: it.join("evil").unwrap(),
            }),
            self.ask(FileTask::Move {
                from: it.join("passwd").unwrap(),
                to: free.clone(),
            }),
            self.ask(FileTask::Move {
                from: path("current/index.html"),
                to: it.join("evil").unwrap(),
            }),
            self.ask(FileTask::Remove {
                path: it.join("passwd").unwrap(),
                mark: None,
            }),
            self.ask(FileTask::Pack {
                paths: vec![it.join("passwd").unwrap()],
                to: path("current/free.zip"),
            }),
        ]
    }
}

fn kind_of(outcome: Outcome<impl std::fmt::Debug>) -> FailureKind {
    let failure: Failure = outcome.unwrap_err();
    failure.kind
}

#[test]
fn a_file_that_is_put_is_there_whole_with_the_site_s_owner_and_can_be_read_back() {
    let server = Server::new();
    let entry = server
        .put("current/css/a.css", b"p{}", Expect::Any)
        .map_err(|failure| failure.kind);
    assert_eq!(entry.unwrap_err(), FailureKind::NotFound, "no such folder");
    let made = server.ask(FileTask::Folder {
        path: path("current/css"),
    });
    assert!(matches!(made.unwrap(), Answer::File(entry) if entry.kind == FileKind::Folder));
    let entry = server
        .put("current/css/a.css", b"p{}", Expect::Nothing)
        .unwrap();
    assert_eq!((entry.name.as_str(), entry.size), ("a.css", 3));
    let real = server.live().join("css/a.css");
    assert_eq!(fs::read(&real).unwrap(), b"p{}");
    let meta = fs::metadata(&real).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (server.uid, 0o644));
    let piece = server.read("current/css/a.css").unwrap();
    assert_eq!(STANDARD.decode(piece.data).unwrap(), b"p{}");
    assert_eq!(piece.mark, entry.mark);
    assert_eq!(server.names(""), ["current", "shared"]);
    assert_eq!(server.names("current"), ["css", "index.html"]);
    assert!(
        fs::read_dir(server.releases.at.at("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_file_is_replaced_only_when_it_is_the_expected_one_and_keeps_its_mode() {
    let server = Server::new();
    let real = server.live().join("index.html");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o4640)).unwrap();
    let seen = server.read("current/index.html").unwrap().mark;
    let refused = server.put("current/index.html", b"x", Expect::Nothing);
    assert_eq!(kind_of(refused), FailureKind::Conflict);
    fs::write(&real, "somebody else").unwrap();
    let refused = server.put("current/index.html", b"x", Expect::Mark(seen));
    assert_eq!(kind_of(refused), FailureKind::Conflict);
    assert_eq!(fs::read(&real).unwrap(), b"somebody else");
    let seen = server.read("current/index.html").unwrap().mark;
    server
        .put("current/index.html", b"mine", Expect::Mark(seen))
        .unwrap();
    assert_eq!(fs::read(&real).unwrap(), b"mine");
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
    let gone = server.put("current/gone", b"x", Expect::Mark("1".into()));
    assert_eq!(kind_of(gone), FailureKind::Conflict);
}

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
fn a_long_folder_comes_in_pages() {
    let server = Server::new();
    for number in 0..25 {
        fs::write(server.shared().join(format!("f{number:02}")), "").unwrap();
    }
    server.own();
    let (mut after, mut names, mut pages) = (None, Vec::new(), 0);
    loop {
        let task = FileTask::List {
            path: path("shared"),
            after,
            limit: 10,
        };
        let Answer::Listed(page) = server.ask(task).unwrap() else {
            panic!("no list")
        };
        pages += 1;
        names.extend(page.items.into_iter().map(|it| it.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, names.len()), (3, 25));
    assert!(names.is_sorted());
}

#[test]
fn pieces_make_a_file_in_their_order_and_a_lost_beginning_is_noticed() {
    let server = Server::new();
    let upload = UploadId::from_parts(9, [9; 10]);
    let piece = |offset, data: &[u8]| {
        server.ask(FileTask::Piece {
            upload,
            offset,
            data: STANDARD.encode(data),
        })
    };
    let put = |size| {
        server.ask(FileTask::Put(Put {
            upload,
            size,
            path: path("current/big"),
            expect: Expect::Any,
            parents: false,
        }))
    };
    assert_eq!(kind_of(piece(3, b"def")), FailureKind::Conflict);
    piece(0, b"abc").unwrap();
    assert_eq!(kind_of(piece(9, b"x")), FailureKind::Conflict);
    piece(3, b"def").unwrap();
    // Sent again, because the answer was lost.
    piece(3, b"def").unwrap();
    assert_eq!(kind_of(put(5)), FailureKind::Conflict);
    assert!(!server.live().join("big").exists());
    put(6).unwrap();
    assert_eq!(fs::read(server.live().join("big")).unwrap(), b"abcdef");
    let beyond = piece(undine_api::public::MAX_FILE, b"x");
    assert_eq!(kind_of(beyond), FailureKind::Full);
    let nonsense = server.ask(FileTask::Piece {
        upload,
        offset: 0,
        data: "no base64!".to_owned(),
    });
    assert_eq!(kind_of(nonsense), FailureKind::Invalid);
    piece(0, b"abc").unwrap();
    server.ask(FileTask::Forget { upload }).unwrap();
    server.ask(FileTask::Forget { upload }).unwrap();
    assert!(
        fs::read_dir(server.releases.at.at("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_large_file_is_read_in_pieces_and_a_change_between_them_is_noticed() {
    let server = Server::new();
    let content: Vec<u8> = (0..FileTask::PIECE + 5).map(|n| (n % 251) as u8).collect();
    fs::write(server.live().join("big"), &content).unwrap();
    server.own();
    let first = server.read("current/big").unwrap();
    assert_eq!(first.size, content.len() as u64);
    let next = |mark: &str| {
        server.ask(FileTask::Read {
            path: path("current/big"),
            offset: FileTask::PIECE as u64,
            mark: Some(mark.to_owned()),
        })
    };
    let Answer::Piece(second) = next(&first.mark).unwrap() else {
        panic!("no piece")
    };
    let mut whole = STANDARD.decode(first.data).unwrap();
    whole.extend(STANDARD.decode(second.data).unwrap());
    assert_eq!(whole, content);
    fs::write(server.live().join("big"), "other").unwrap();
    assert_eq!(kind_of(next(&first.mark)), FailureKind::Conflict);
}

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

#[test]
fn before_the_first_release_there_is_nothing_and_a_blank_one_takes_files() {
    let server = Server::empty();
    assert_eq!(server.names(""), ["current", "shared"]);
    assert!(server.names("current").is_empty());
    let put = server.put("current/index.html", b"hello", Expect::Any);
    assert_eq!(kind_of(put), FailureKind::NotFound);
    let release = ReleaseId::from_parts(5, [5; 10]);
    server.releases.blank(release).unwrap();
    server.releases.activate(release).unwrap();
    server
        .put("current/index.html", b"hello", Expect::Any)
        .unwrap();
    // Asked again after a lost answer, nothing is lost.
    server.releases.blank(release).unwrap();
    assert_eq!(server.names("current"), ["index.html"]);
    let seen = fs::read_to_string(server.releases.at.at("web/index.html"));
    assert_eq!(seen.unwrap(), "hello");
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
