//! A site's files on a real file system, with what hostile programs of the site do meanwhile.
//!
//! As root the site has a user of its own, as in a server; else it is whoever runs the tests.

mod archives;
mod hostile;

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
