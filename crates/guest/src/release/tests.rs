//! Taking, switching and keeping releases, as any user (owners are given to ourselves).

use undine_manifest::Caps;
use undine_model::{AccountId, MilliCpu, SiteId};

use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    paths: Paths,
    site: SiteSpec,
}

fn release(number: u64) -> ReleaseId {
    ReleaseId::from_parts(number, [1; 10])
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: dir.path().join("root"),
            data: dir.path().join("srv"),
            run: dir.path().join("run"),
        };
        let site = SiteSpec {
            id: SiteId::from_parts(1, [0; 10]),
            account: AccountId::from_parts(1, [0; 10]),
            uid: rustix::process::getuid().as_raw(),
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
                disk: Bytes::mib(1),
                inodes: 100,
            },
            suspended: false,
            release: None,
        };
        let at = paths.site(site.uid);
        for folder in [paths.trash(), at.releases(), at.incoming()] {
            fs::create_dir_all(folder).unwrap();
        }
        Self {
            _dir: dir,
            paths,
            site,
        }
    }

    fn releases(&self) -> Releases {
        Releases::new(&self.paths, &self.site, Path::new(""), String::new())
    }

    /// A release with one file, without the change of owner that only root may make.
    fn place(&self, number: u64) {
        let folder = self.releases().at.release(release(number));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("index.html"), number.to_string()).unwrap();
    }

    fn visible(&self) -> String {
        let web = self.releases().at.at("web");
        fs::read_to_string(web.join("index.html")).unwrap()
    }

    fn upload(&self, bytes: &[u8], size: u64, sha256: &str) -> Outcome<Answer> {
        let ask = Upload {
            site: self.site.id,
            release: release(1),
            format: undine_api::guest::ArchiveFormat::Tar,
            size,
            sha256: sha256.to_owned(),
        };
        let mut incoming = Incoming::begin(self.releases(), ask)?;
        incoming.piece(bytes)?;
        incoming.end()
    }
}

#[test]
fn a_switch_shows_the_new_release_and_a_roll_back_the_old_one() {
    let server = Fixture::new();
    server.place(1);
    server.place(2);
    server.releases().activate(release(1)).unwrap();
    assert_eq!(server.visible(), "1");
    server.releases().activate(release(2)).unwrap();
    assert_eq!(server.visible(), "2");
    server.releases().activate(release(1)).unwrap();
    assert_eq!(server.visible(), "1");
}

#[test]
fn a_release_that_was_never_taken_cannot_go_live() {
    let server = Fixture::new();
    server.place(1);
    server.releases().activate(release(1)).unwrap();
    let refused = server.releases().activate(release(9)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::NotFound);
    assert_eq!(server.visible(), "1");
}

#[test]
fn the_live_release_and_the_three_newest_others_are_kept() {
    let server = Fixture::new();
    for number in 1..=6 {
        server.place(number);
    }
    server.releases().activate(release(1)).unwrap();
    let mut kept: Vec<String> = fs::read_dir(server.releases().at.releases())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    let expected: Vec<String> = [1, 4, 5, 6].map(|n| release(n).to_string()).into();
    assert_eq!(kept, expected);
}

#[test]
fn an_archive_that_is_not_the_announced_one_leaves_nothing() {
    let server = Fixture::new();
    for (bytes, size, sha256) in [
        (&b"abc"[..], 3, "00"),
        (&b"abc"[..], 4, "00"),
        (&b"abcd"[..], 3, "00"),
    ] {
        let refused = server.upload(bytes, size, sha256).unwrap_err();
        assert_eq!(refused.kind, FailureKind::BadArchive);
        let left = fs::read_dir(server.releases().at.incoming()).unwrap();
        assert_eq!(left.count(), 0);
    }
    let refused = server.upload(b"", 2 << 20, "00").unwrap_err();
    assert_eq!(refused.kind, FailureKind::Full);
}
