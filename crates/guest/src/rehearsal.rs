//! A spare runs everything once that a start will run, on a data disk in memory, and undoes it.
//!
//! What stays is warm: files in the page cache, memory that the kernel has given out, and under
//! emulation the translated code, without which a first page takes seconds of processor time. What
//! was made for it is gone: nothing of a rehearsal is in the server that the spare becomes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use undine_api::guest::FailureKind;
use undine_manifest::render::{Facts, Renderer};
use undine_manifest::{Profile, SiteSpec, rehearsal};
use undine_model::ReleaseId;

use crate::apply::{Change, Place, apply};
use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::health;
use crate::journal::Applied;
use crate::paths::{Paths, is_mounted};
use crate::release::Releases;
use crate::{command, disk, units};

/// What is run a second time is translated in the ways that the first time did not take.
const TIMES: usize = 2;
/// Visits of each page in each of them.
const VISITS: usize = 3;
/// The first page of a program takes seconds even on a quiet machine.
const PAGE: Duration = Duration::from_secs(180);
/// How long the disk may stay busy.
const STRIKE: Duration = Duration::from_secs(20);

/// Rehearses a start with this profile.
pub fn run(paths: &Paths, profile: &Profile) -> Outcome<()> {
    let stage = Stage::set(paths)?;
    let manifest = rehearsal::manifest(profile);
    let empty = Applied {
        sites: Default::default(),
        databases: Default::default(),
        ..Applied::of(manifest.clone())
    };
    let whole = Applied::of(manifest);
    for _ in 0..TIMES {
        command::run("/usr/sbin/ip", &["link", "set", "dev", "lo", "up"])?;
        stage.apply(&Change::whole(None, &whole, true))?;
        for site in whole.sites.values() {
            stage.play(profile, site)?;
        }
        stage.apply(&Change::whole(Some(&whole), &empty, false))?;
        stop(profile)?;
    }
    stage.strike()
}

fn stop(profile: &Profile) -> Outcome<()> {
    let mut names: Vec<&str> = profile.services.iter().map(|it| it.unit.as_str()).collect();
    names.push("undine-site.slice");
    units::stop(&names)
}

/// The data disk in memory; taken away when dropped.
struct Stage<'a>(&'a Paths);

impl<'a> Stage<'a> {
    fn set(paths: &'a Paths) -> Outcome<Self> {
        if is_mounted(&paths.data) {
            return Err(failure(
                FailureKind::Invalid,
                "a data disk is mounted: this is no spare",
            ));
        }
        fs::create_dir_all(&paths.data).doing("make the mount point")?;
        let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            "tmpfs",
            &paths.data,
            "tmpfs",
            flags,
            Some(c"size=60%,mode=755"),
        )
        .doing("mount the rehearsal's disk")?;
        disk::skeleton(paths)?;
        Ok(Self(paths))
    }

    fn apply(&self, change: &Change<'_>) -> Outcome<()> {
        let place = Place {
            paths: self.0,
            device: Path::new(""),
            facts: &Facts::default(),
            units: PathBuf::from("/run/systemd/system"),
        };
        match apply(&place, change)?.first() {
            None => Ok(()),
            Some(failed) => Err(failure(FailureKind::Internal, failed.error.clone())),
        }
    }

    /// Puts the runtime's program into the site and visits it.
    fn play(&self, profile: &Profile, site: &SiteSpec) -> Outcome<()> {
        let Some(runtime) = profile.runtimes.get(&site.runtime) else {
            return Ok(());
        };
        let renderer = Renderer::new(profile, &Facts::default()).doing("read the profile")?;
        let worker = renderer.site(site, "").doing("render the site")?.worker;
        let releases = Releases::new(self.0, site, Path::new(""), worker);
        let release = ReleaseId::from_parts(0, [0; 10]);
        releases.blank(release)?;
        releases.activate(release)?;
        let folder = releases.at.release(release);
        for (name, text) in &runtime.rehearsal {
            let path = folder.join(name);
            files::replace_owned(&path, text.as_bytes(), 0o644, Some((site.uid, site.uid)))
                .doing(format_args!("write {}", path.display()))?;
        }
        for name in runtime.rehearsal.keys() {
            for _ in 0..VISITS {
                health::visit(site.domain.as_str(), &format!("/{name}"), PAGE)
                    .doing(format_args!("see the page {name} of {}", site.domain))?;
            }
        }
        Ok(())
    }

    /// Takes the disk away for good; what keeps it busy is no spare's.
    fn strike(self) -> Outcome<()> {
        let until = Instant::now() + STRIKE;
        while let Err(error) = unmount(&self.0.data, UnmountFlags::empty()) {
            // What was thrown away is still being deleted.
            if Instant::now() > until {
                return Err(error).doing("unmount the rehearsal's disk");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // The rehearsal failed; the node ends this VM.
        let _ = unmount(&self.0.data, UnmountFlags::DETACH);
    }
}
