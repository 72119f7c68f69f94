//! Makes the server run what its manifest says, at a cost that follows what changed.
//!
//! Each site is brought up to date on its own; what fails is reported for that site, and every
//! other one goes on. All steps are safe to repeat.

mod one;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use undine_api::guest::SiteFailure;
use undine_manifest::render::{Facts, Renderer};
use undine_manifest::{DatabaseSpec, Profile, SiteSpec};
use undine_model::SiteId;

use crate::fail::{Doing, Outcome};
use crate::journal::Applied;
use crate::paths::Paths;
use crate::web::{self, Vhost};
use crate::{caps, database, files, site, units, users};
use one::{leave, one_site};

/// From so many units on they are started in one job.
const MANY: usize = 8;

/// Where and for whom to apply.
pub struct Place<'a> {
    /// The server's folders.
    pub paths: &'a Paths,
    /// The data disk's device.
    pub device: &'a Path,
    /// What templates may know of the server.
    pub facts: &'a Facts,
    /// Where systemd reads volatile units.
    pub units: PathBuf,
}

/// What to do, and what was there before.
pub struct Change<'a> {
    /// What the data disk holds.
    pub old: Option<&'a Applied>,
    /// The profile from now on.
    pub profile: &'a Profile,
    /// Will there be any database?
    pub wants_databases: bool,
    /// Nothing has been applied since the server started: what is not on the data disk is gone.
    pub fresh: bool,
    /// The sites to look at.
    pub sites: Vec<&'a SiteSpec>,
    /// Sites to remove.
    pub removed: Vec<&'a SiteSpec>,
    /// The databases to look at.
    pub databases: Vec<&'a DatabaseSpec>,
    /// Databases to remove.
    pub removed_databases: Vec<&'a DatabaseSpec>,
}

impl<'a> Change<'a> {
    /// Everything, with whatever is no longer wanted removed.
    pub fn whole(old: Option<&'a Applied>, new: &'a Applied, fresh: bool) -> Self {
        let gone = |id: &SiteId| !new.sites.contains_key(id);
        let (mut removed, mut removed_databases) = (Vec::new(), Vec::new());
        if let Some(old) = old {
            removed.extend(old.sites.values().filter(|site| gone(&site.id)));
            let gone = |d: &&DatabaseSpec| !new.databases.contains_key(&d.id);
            removed_databases.extend(old.databases.values().filter(gone));
        }
        Self {
            old,
            profile: &new.profile,
            wants_databases: !new.databases.is_empty(),
            fresh,
            sites: new.sites.values().collect(),
            removed,
            databases: new.databases.values().collect(),
            removed_databases,
        }
    }

    fn profile_changed(&self) -> bool {
        self.old.is_none_or(|old| old.profile != *self.profile)
    }

    fn old_site(&self, id: SiteId) -> Option<&'a SiteSpec> {
        self.old.and_then(|old| old.sites.get(&id))
    }

    /// Is the site on the data disk as it must be?
    fn kept(&self, site: &SiteSpec) -> bool {
        self.old.is_some_and(|old| {
            old.sites.get(&site.id) == Some(site) && !old.failed.contains(&site.id)
        })
    }
}

/// What single sites ask of the server as a whole.
#[derive(Default)]
struct Gathered {
    start: Vec<(SiteId, String)>,
    stop: Vec<String>,
    vhosts: Vec<Vhost>,
    failed: BTreeMap<SiteId, String>,
    checked: BTreeSet<String>,
}

/// Does it; returns the sites that failed.
pub fn apply(place: &Place<'_>, change: &Change<'_>) -> Outcome<Vec<SiteFailure>> {
    let renderer = Renderer::new(change.profile, place.facts).doing("read the profile")?;
    if change.fresh || change.profile_changed() {
        profile(place, &renderer)?;
    }
    user_accounts(place, change).doing("write the sites' users")?;

    let mut gathered = Gathered::default();
    remove_sites(place, change, &mut gathered)?;
    for spec in &change.sites {
        if change.kept(spec) && !change.fresh && !change.profile_changed() {
            continue;
        }
        if let Err(error) = one_site(place, change, &renderer, spec, &mut gathered) {
            gathered.failed.insert(spec.id, error.message);
        }
    }
    stop_units(&gathered);
    let vhosts = std::mem::take(&mut gathered.vhosts);
    let outcomes = web::services(
        place.paths,
        &renderer,
        change.wants_databases,
        &vhosts,
        change.fresh,
    )?;
    for failure in outcomes.failed {
        gathered.failed.insert(failure.site, failure.error);
    }
    start_units(&mut gathered);
    match outcomes.no_databases {
        None => databases(change, &mut gathered),
        Some(failure) => {
            let waiting = change.databases.iter().map(|database| database.site);
            let failed = waiting.map(|site| (site, failure.message.clone()));
            gathered.failed.extend(failed);
        }
    }
    Ok(gathered
        .failed
        .into_iter()
        .map(|(site, error)| SiteFailure { site, error })
        .collect())
}

/// Folders and files of the whole server.
fn profile(place: &Place<'_>, renderer: &Renderer<'_>) -> Outcome<()> {
    for (path, wanted) in &renderer.profile().folders {
        let path = place.paths.system(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).doing("make a profile's folder")?;
        }
        files::folder(&path, 0, wanted.group, wanted.mode)
            .doing(format_args!("make {}", path.display()))?;
    }
    let shared = renderer.shared().doing("render the profile's files")?;
    let stale_units = shared.iter().any(|(path, text)| {
        path.starts_with("/run/systemd/system/")
            && std::fs::read(place.paths.system(path)).is_ok_and(|old| old != text.as_bytes())
    });
    web::write_all(&place.paths.root, &shared)?;
    // Units that systemd has never met are found by themselves.
    if stale_units {
        units::daemon_reload()?;
    }
    Ok(())
}

fn user_accounts(place: &Place<'_>, change: &Change<'_>) -> std::io::Result<()> {
    let is_new = |site: &&&SiteSpec| change.old_site(site.id).is_none();
    let new: BTreeSet<u32> = change.sites.iter().filter(is_new).map(|s| s.uid).collect();
    if change.fresh || !change.removed.is_empty() {
        let old = change.old.iter().flat_map(|old| old.sites.values());
        let mut all: BTreeSet<u32> = old.map(|site| site.uid).collect();
        all.extend(&new);
        for gone in &change.removed {
            all.remove(&gone.uid);
        }
        users::write_all(place.paths, &all)
    } else if new.is_empty() {
        Ok(())
    } else {
        users::add(place.paths, &new)
    }
}

fn remove_sites(place: &Place<'_>, change: &Change<'_>, gathered: &mut Gathered) -> Outcome<()> {
    let Some(old) = change.old.filter(|_| !change.removed.is_empty()) else {
        return Ok(());
    };
    let renderer = Renderer::new(&old.profile, place.facts).doing("read the old profile")?;
    for spec in &change.removed {
        if let Ok(rendered) = renderer.site(spec, "") {
            leave(place, &rendered, None);
        }
        // Whatever else the site's user has running goes with the slice.
        if units::site_cgroup(spec.uid).exists() {
            let _ = units::stop(&[&caps::slice(spec.uid)]);
        }
        caps::remove(&place.units, spec.uid).doing("remove a site's caps")?;
        site::remove(place.paths, spec, place.device)?;
        gathered.vhosts.push(Vhost {
            site: spec.id,
            uid: spec.uid,
            text: None,
        });
    }
    Ok(())
}

fn stop_units(gathered: &Gathered) {
    let names: Vec<&str> = gathered.stop.iter().map(String::as_str).collect();
    if !names.is_empty() {
        // Not running is fine, and systemd says so by success.
        let _ = units::stop(&names);
    }
}

fn start_units(gathered: &mut Gathered) {
    let names: Vec<&str> = gathered
        .start
        .iter()
        .map(|(_, unit)| unit.as_str())
        .collect();
    if names.is_empty() {
        return;
    }
    let down: BTreeSet<String> = if names.len() < MANY {
        match units::start(&names) {
            Ok(()) => return,
            Err(_) => names.iter().map(ToString::to_string).collect(),
        }
    } else {
        units::start_many(&names).into_iter().collect()
    };
    // One after the other tells whose mistake it is.
    for (site, unit) in gathered
        .start
        .iter()
        .filter(|(_, unit)| down.contains(unit))
    {
        if let Err(error) = units::start(&[unit]) {
            gathered.failed.insert(*site, error.message);
        }
    }
}

fn databases(change: &Change<'_>, gathered: &mut Gathered) {
    let kept = |database: &&&DatabaseSpec| {
        change.old.is_some_and(|old| {
            old.databases.get(&database.id) == Some(**database)
                && !old.failed.contains(&database.site)
        })
    };
    let new: Vec<&DatabaseSpec> = change
        .databases
        .iter()
        .filter(|database| !kept(database))
        .copied()
        .collect();
    for (site, error) in database::apply(&new, &change.removed_databases) {
        gathered.failed.insert(site, error);
    }
}
