//! Services of the whole server and the web server's blocks of single sites.
//!
//! Files are rendered into a candidate folder first and checked there by the service's own
//! program; only then they replace the live ones. A site's block that does not pass is left out
//! and reported for that site; the others go on.

use std::fs;
use std::path::{Path, PathBuf};

use undine_api::guest::{Failure, SiteFailure};
use undine_manifest::profile::Service;
use undine_manifest::render::{Rendered, Renderer};
use undine_model::SiteId;

use crate::command;
use crate::fail::{Doing, Outcome};
use crate::files;
use crate::paths::Paths;
use crate::units;

/// A site's block: its text, or that it must go.
#[derive(Debug, Clone)]
pub struct Vhost {
    /// Whose.
    pub site: SiteId,
    /// The site's number.
    pub uid: u32,
    /// The block; none removes it.
    pub text: Option<String>,
}

/// What came of bringing the services up to date.
#[derive(Default)]
pub struct Outcomes {
    /// Sites whose own blocks did not pass.
    pub failed: Vec<SiteFailure>,
    /// Why a service that only databases need is not up; sites without one go on.
    pub no_databases: Option<Failure>,
}

/// Brings the files of all services up to date and (re)loads those whose files changed. On a server
/// that has just started (`fresh`) nothing is live that a mistake could spoil: there the start
/// itself is the check, for visitors wait.
pub fn services(
    paths: &Paths,
    renderer: &Renderer<'_>,
    databases: bool,
    vhosts: &[Vhost],
    fresh: bool,
) -> Outcome<Outcomes> {
    let mut outcomes = Outcomes::default();
    for service in &renderer.profile().services {
        let changed = service_files(paths, renderer, service, fresh)?;
        let mut reload = changed;
        if service.vhosts {
            let outcome = swap_vhosts(paths, renderer, service, vhosts)?;
            reload |= outcome.changed;
            outcomes.failed.extend(outcome.failed);
        }
        if service.only_with_databases && !databases {
            continue;
        }
        let came_up = bring_up(service, reload).map_err(|failure| {
            // The service's own check says what is wrong; systemd only that something is.
            let check = renderer.service_check(service, "").unwrap_or_default();
            run_check(&check).err().unwrap_or(failure)
        });
        match came_up {
            Err(failure) if service.only_with_databases => outcomes.no_databases = Some(failure),
            other => other?,
        }
    }
    Ok(outcomes)
}

fn bring_up(service: &Service, reload: bool) -> Outcome<()> {
    if !units::service_runs(&service.unit) {
        first(service)?;
        units::start(&[&service.unit])
    } else if reload {
        units::reload_and_wait(&service.unit)
    } else {
        Ok(())
    }
}

/// Prepares what the service keeps on the data disk, whole or not at all.
fn first(service: &Service) -> Outcome<()> {
    let Some(first) = &service.first else {
        return Ok(());
    };
    let folder = Path::new(&first.folder);
    if folder.exists() {
        return Ok(());
    }
    let new = PathBuf::from(format!("{}.new", first.folder));
    let _ = fs::remove_dir_all(&new);
    let words: Result<Vec<String>, _> = first
        .run
        .iter()
        .map(|word| undine_manifest::render::with_folder(word, &new.to_string_lossy()))
        .collect();
    let words = words.doing("render a service's first command")?;
    if let Some((program, args)) = words.split_first() {
        command::run(program, args)?;
    }
    files::sync_all_of(&new).doing("write the service's data")?;
    fs::rename(&new, folder).doing("put the service's data in place")
}

fn service_files(
    paths: &Paths,
    renderer: &Renderer<'_>,
    service: &Service,
    fresh: bool,
) -> Outcome<bool> {
    let live = renderer.service(service, "").doing("render a service")?;
    let same = |(path, text): (&String, &String)| {
        fs::read(paths.system(path)).is_ok_and(|old| old == text.as_bytes())
    };
    if live.iter().all(same) {
        return Ok(false);
    }
    if !fresh || units::service_runs(&service.unit) {
        let candidate = Candidate::new(paths, renderer, service)?;
        candidate.with_live_vhosts(paths)?;
        candidate.check()?;
    }
    write_all(&paths.root, &live)?;
    Ok(true)
}

struct Swapped {
    changed: bool,
    failed: Vec<SiteFailure>,
}

fn swap_vhosts(
    paths: &Paths,
    renderer: &Renderer<'_>,
    service: &Service,
    vhosts: &[Vhost],
) -> Outcome<Swapped> {
    let live = |vhost: &&Vhost| {
        let old = fs::read_to_string(paths.vhost(vhost.uid)).ok();
        old != vhost.text
    };
    let mut changed: Vec<&Vhost> = vhosts.iter().filter(live).collect();
    if changed.is_empty() {
        return Ok(Swapped {
            changed: false,
            failed: Vec::new(),
        });
    }
    fs::create_dir_all(paths.vhosts()).doing("make the folder of site blocks")?;
    let candidate = Candidate::new(paths, renderer, service)?;
    candidate.with_live_vhosts(paths)?;
    let mut failed = Vec::new();
    changed.iter().try_for_each(|vhost| candidate.put(vhost))?;
    if candidate.check().is_err() {
        // Together they fail: one after the other tells whose mistake it is.
        for vhost in &changed {
            candidate.restore(paths, vhost)?;
        }
        let mut good = Vec::new();
        for vhost in changed {
            candidate.put(vhost)?;
            match candidate.check() {
                Ok(()) => good.push(vhost),
                Err(error) => {
                    candidate.restore(paths, vhost)?;
                    failed.push(SiteFailure {
                        site: vhost.site,
                        error: error.message,
                    });
                }
            }
        }
        changed = good;
    }
    for vhost in &changed {
        let path = paths.vhost(vhost.uid);
        match &vhost.text {
            Some(text) => files::replace(&path, text.as_bytes(), 0o644),
            None => files::remove(&path),
        }
        .doing("write a site's block")?;
    }
    Ok(Swapped {
        changed: !changed.is_empty(),
        failed,
    })
}

/// A service's files beside the live ones.
struct Candidate {
    folder: PathBuf,
    check: Vec<String>,
}

impl Candidate {
    fn new(paths: &Paths, renderer: &Renderer<'_>, service: &Service) -> Outcome<Self> {
        let folder = paths.run.join("candidate").join(&service.unit);
        let _ = fs::remove_dir_all(&folder);
        let root = folder.to_string_lossy().into_owned();
        let rendered = renderer.service(service, &root).doing("render a service")?;
        let check = renderer
            .service_check(service, &root)
            .doing("render a service's check")?;
        write_all(&folder, &rendered)?;
        Ok(Self { folder, check })
    }

    fn vhosts(&self) -> PathBuf {
        self.folder.join("run/undine/vhosts")
    }

    fn with_live_vhosts(&self, paths: &Paths) -> Outcome<()> {
        fs::create_dir_all(self.vhosts()).doing("make the candidate folder")?;
        for entry in fs::read_dir(paths.vhosts()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // Half-written successors have a leading dot.
            if name.to_string_lossy().ends_with(".conf") {
                let _ = fs::copy(entry.path(), self.vhosts().join(name));
            }
        }
        Ok(())
    }

    fn put(&self, vhost: &Vhost) -> Outcome<()> {
        let path = self.vhosts().join(format!("{}.conf", vhost.uid));
        match &vhost.text {
            Some(text) => fs::write(path, text),
            None => files::remove(&path),
        }
        .doing("write a candidate block")
    }

    fn restore(&self, paths: &Paths, vhost: &Vhost) -> Outcome<()> {
        self.put(&Vhost {
            text: fs::read_to_string(paths.vhost(vhost.uid)).ok(),
            ..vhost.clone()
        })
    }

    fn check(&self) -> Outcome<()> {
        run_check(&self.check)
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs a check command; an empty one passes.
pub fn run_check(words: &[String]) -> Outcome<()> {
    match words.split_first() {
        Some((program, args)) => command::run(program, args).map(drop),
        None => Ok(()),
    }
}

/// Writes rendered files below a folder.
pub fn write_all(root: &Path, rendered: &Rendered) -> Outcome<()> {
    for (path, text) in rendered {
        let path = root.join(path.trim_start_matches('/'));
        files::replace_if_changed(&path, text, 0o644)
            .doing(format_args!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
