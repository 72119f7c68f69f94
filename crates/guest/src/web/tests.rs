//! Candidate checks with a stand-in for the web server's own check program.

use std::collections::BTreeMap;

use undine_manifest::Profile;
use undine_manifest::render::Facts;
use undine_model::{Bytes, MilliCpu};

use super::*;

/// A profile whose check refuses any block that holds the word `bad`.
fn profile() -> Profile {
    let check = "! grep -rq bad {{ root }}/run/undine/vhosts";
    let service = Service {
        unit: "web.service".into(),
        only_with_databases: false,
        files: BTreeMap::from([("/etc/web.conf".into(), "root={{ root }}\n".into())]),
        check: ["/bin/sh", "-c", check].map(str::to_owned).into(),
        vhosts: true,
        first: None,
    };
    Profile {
        name: "test".parse().unwrap(),
        title: String::new(),
        image: "test".parse().unwrap(),
        memory: Bytes::mib(1),
        vcpus: 1,
        cpu: MilliCpu(1),
        disk: Bytes::mib(1),
        folders: BTreeMap::new(),
        files: BTreeMap::new(),
        services: vec![service],
        runtimes: BTreeMap::new(),
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    paths: Paths,
    profile: Profile,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: dir.path().join("root"),
            data: dir.path().join("srv"),
            run: dir.path().join("run"),
        };
        fs::create_dir_all(paths.vhosts()).unwrap();
        Self {
            _dir: dir,
            paths,
            profile: profile(),
        }
    }

    fn swap(&self, vhosts: &[Vhost]) -> Swapped {
        let renderer = Renderer::new(&self.profile, &Facts::default()).unwrap();
        swap_vhosts(&self.paths, &renderer, &self.profile.services[0], vhosts).unwrap()
    }

    fn live(&self, uid: u32) -> Option<String> {
        fs::read_to_string(self.paths.vhost(uid)).ok()
    }
}

fn vhost(uid: u32, text: Option<&str>) -> Vhost {
    Vhost {
        site: SiteId::from_parts(u64::from(uid), [0; 10]),
        uid,
        text: text.map(str::to_owned),
    }
}

#[test]
fn one_sites_mistake_leaves_the_others_and_its_own_old_block_in_place() {
    let server = Fixture::new();
    assert!(server.swap(&[vhost(20_001, Some("good 1"))]).changed);
    let swapped = server.swap(&[
        vhost(20_001, Some("bad 1")),
        vhost(20_002, Some("good 2")),
        vhost(20_003, Some("bad 3")),
    ]);
    let failed: Vec<_> = swapped.failed.iter().map(|failure| failure.site).collect();
    assert_eq!(failed, [vhost(20_001, None).site, vhost(20_003, None).site]);
    assert!(swapped.changed);
    assert_eq!(server.live(20_001).as_deref(), Some("good 1"));
    assert_eq!(server.live(20_002).as_deref(), Some("good 2"));
    assert_eq!(server.live(20_003), None);
}

#[test]
fn blocks_that_are_as_they_must_be_cause_no_reload() {
    let server = Fixture::new();
    server.swap(&[vhost(20_001, Some("good"))]);
    assert!(
        !server
            .swap(&[vhost(20_001, Some("good")), vhost(20_002, None)])
            .changed
    );
    assert!(server.swap(&[vhost(20_001, None)]).changed);
    assert_eq!(server.live(20_001), None);
}

#[test]
fn a_service_whose_files_fail_their_check_keeps_the_old_ones() {
    let mut server = Fixture::new();
    let renderer = Renderer::new(&server.profile, &Facts::default()).unwrap();
    assert!(bring(&server, &renderer, false).unwrap());
    drop(renderer);
    server.profile.services[0]
        .files
        .insert("/etc/web.conf".into(), "new\n".into());
    server.profile.services[0].check = vec!["/bin/false".into()];
    let renderer = Renderer::new(&server.profile, &Facts::default()).unwrap();
    assert!(bring(&server, &renderer, false).is_err());
    let live = fs::read_to_string(server.paths.system("/etc/web.conf")).unwrap();
    assert_eq!(live, "root=\n");
    // After the server's start nothing is live: the service's own start is the check.
    assert!(bring(&server, &renderer, true).unwrap());
}

fn bring(server: &Fixture, renderer: &Renderer<'_>, fresh: bool) -> Outcome<bool> {
    service_files(&server.paths, renderer, &server.profile.services[0], fresh)
}
