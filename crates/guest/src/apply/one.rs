//! One site's share of applying a manifest.

use undine_manifest::SiteSpec;
use undine_manifest::render::{Renderer, SiteFiles};

use super::{Change, Gathered, Place};
use crate::fail::{Doing, Outcome};
use crate::paths::Paths;
use crate::web::{self, Vhost};
use crate::{caps, files, site, units};

/// Ends what a site had before and no longer needs.
pub(super) fn leave(place: &Place<'_>, old: &SiteFiles, new: Option<&SiteFiles>) {
    let none = SiteFiles::default();
    let new = new.unwrap_or(&none);
    let gone: Vec<&str> = [(&old.unit, &new.unit), (&old.worker, &new.worker)]
        .into_iter()
        .filter(|(old, new)| !old.is_empty() && old != new)
        .map(|(old, _)| old.as_str())
        .collect();
    // A unit that does not run needs no stop; one that cannot be stopped is no reason to keep
    // the site.
    let _ = units::stop(&gone);
    for path in old
        .files
        .keys()
        .filter(|path| !new.files.contains_key(*path))
    {
        let _ = files::remove(&place.paths.system(path));
    }
}

/// Brings one site up to date and notes what it asks of the server as a whole.
pub(super) fn one_site(
    place: &Place<'_>,
    change: &Change<'_>,
    renderer: &Renderer<'_>,
    spec: &SiteSpec,
    gathered: &mut Gathered,
) -> Outcome<()> {
    let rendered = renderer.site(spec, "").doing("render the site")?;
    let kept = change.kept(spec);
    let old = change.old_site(spec.id);
    // A site that is as it was may still run otherwise under a new profile.
    let moved = change.profile_changed();
    if !kept || moved {
        if let Some(old) = old {
            let gone = |name: &&_| !spec.names().any(|new| new == *name);
            for name in old.names().filter(gone) {
                site::forget_name(place.paths, old.uid, name).doing("remove a site's name")?;
            }
            let before = change
                .old
                .map(|old| &old.profile)
                .unwrap_or(renderer.profile());
            if let Ok(before) = Renderer::new(before, place.facts).and_then(|r| r.site(old, "")) {
                leave(place, &before, Some(&rendered));
            }
        }
        if old.is_none() {
            // A new site's folders come first: the check opens the log that lies in them.
            site::ensure(place.paths, spec, place.device)?;
        }
        check(place, change, renderer, spec, gathered)?;
        if old.is_some() {
            site::ensure(place.paths, spec, place.device)?;
        }
    }
    if !rendered.unit.is_empty() {
        caps::ensure(&place.units, spec.uid, &spec.caps, place.device)?;
    }
    let changed = write_site_files(place.paths, spec, &rendered)?;
    if !rendered.worker.is_empty() && (changed || spec.suspended) {
        gathered.stop.push(rendered.worker.clone());
    }
    if !rendered.unit.is_empty() && (change.fresh || !kept || moved) {
        gathered.start.push((spec.id, rendered.unit));
    }
    let had = old
        .is_some_and(|old| !old.settings.redirects.is_empty() || old.settings.max_upload.is_some());
    if rendered.vhost.is_some() || had {
        gathered.vhosts.push(Vhost {
            site: spec.id,
            uid: spec.uid,
            text: rendered.vhost,
        });
    }
    Ok(())
}

/// Checks a site's files with the runtime's own program before they go live. Sites without
/// settings of their own render alike: one of them is checked for all.
fn check(
    place: &Place<'_>,
    change: &Change<'_>,
    renderer: &Renderer<'_>,
    spec: &SiteSpec,
    gathered: &mut Gathered,
) -> Outcome<()> {
    let plain = spec.settings.php.is_empty() && spec.settings.env.is_empty();
    let known = |site: &SiteSpec| site.runtime == spec.runtime;
    let seen = gathered.checked.contains(spec.runtime.as_str())
        || (!change.profile_changed()
            && change
                .old
                .is_some_and(|old| old.sites.values().take(50).any(known)));
    if plain && seen {
        return Ok(());
    }
    let root = place.paths.run.join("candidate").join(spec.uid.to_string());
    let candidate = renderer
        .site(spec, &root.to_string_lossy())
        .doing("render the site")?;
    web::write_all(&root, &candidate.files)?;
    let result = web::run_check(&candidate.check);
    let _ = std::fs::remove_dir_all(&root);
    result?;
    gathered.checked.insert(spec.runtime.to_string());
    Ok(())
}

/// Writes a site's rendered files, which only its own group may read; says whether one changed.
fn write_site_files(paths: &Paths, spec: &SiteSpec, rendered: &SiteFiles) -> Outcome<bool> {
    let mut changed = false;
    for (path, text) in &rendered.files {
        let path = paths.system(path);
        if std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            continue;
        }
        // An empty file is a mark that the web server looks for; others may hold secrets.
        let mode = if text.is_empty() { 0o644 } else { 0o640 };
        files::replace_owned(&path, text.as_bytes(), mode, Some((0, spec.uid)))
            .doing(format_args!("write {}", path.display()))?;
        changed = true;
    }
    Ok(changed)
}
