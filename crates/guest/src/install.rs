//! Installs an application of the catalogue into a site.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use undine_api::guest::{FailureKind, Install};
use undine_manifest::DatabaseSpec;
use undine_manifest::app::App;
use undine_manifest::render::{self, AppView};

use crate::command;
use crate::fail::{Doing, Outcome, failure};
use crate::files;
use crate::paths::WEB_GROUP;
use crate::release::Releases;
use crate::site;

/// Random texts that an application's templates may use.
const SECRETS: usize = 16;

/// Copies, configures, installs and makes it live.
pub fn install(releases: &Releases, ask: &Install, database: Option<&DatabaseSpec>) -> Outcome<()> {
    check(releases, ask, database)?;
    let secrets = secrets(SECRETS).doing("draw secrets")?;
    let release = releases.at.release(ask.release);
    let work = releases
        .at
        .at("tmp")
        .join(format!("install-{}", ask.release));
    let rendered = render::app(
        &ask.app,
        &AppView {
            site: &releases.site,
            database,
            answers: &ask.answers,
            secrets: &secrets,
            release: &release.to_string_lossy(),
            work: &work.to_string_lossy(),
        },
    )
    .doing("render the application")?;

    let staged = releases.stage(ask.release)?;
    copy_tree(Path::new(&ask.app.source), &staged, 0).doing("copy the application")?;
    for (path, text) in &rendered.files {
        let path = staged.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).doing("make the application's folders")?;
        }
        // These hold the database's password.
        files::replace(&path, text.as_bytes(), 0o640).doing("write the application's files")?;
    }
    share(releases, &ask.app, &staged)?;
    releases.settle(&staged, ask.release)?;
    let result = run(releases, &work, &release, &rendered, &ask.answers);
    let _ = fs::remove_dir_all(&work);
    result?;
    files::sync_all_of(&releases.at.home).doing("write the application to disk")?;
    releases.activate(ask.release)
}

fn check(releases: &Releases, ask: &Install, database: Option<&DatabaseSpec>) -> Outcome<()> {
    let invalid = |message: String| Err(failure(FailureKind::Invalid, message));
    let app = &ask.app;
    if releases.site.runtime != app.runtime {
        return invalid(format!(
            "{} needs a site that runs `{}`",
            app.title, app.runtime
        ));
    }
    if app.database && database.is_none() {
        return invalid(format!(
            "{} needs a database; make one for this site first",
            app.title
        ));
    }
    if let Some(missing) = app
        .questions
        .keys()
        .find(|key| !ask.answers.contains_key(*key))
    {
        return invalid(format!("{} asks for `{missing}`", app.title));
    }
    let source = Path::new(&app.source);
    if !source.starts_with("/usr/share") || app.source.contains("..") || !source.is_dir() {
        return invalid(format!("this server's image has no {}", app.title));
    }
    Ok(())
}

/// Each 64 characters of letters and digits.
fn secrets(count: usize) -> std::io::Result<Vec<String>> {
    let mut bytes = vec![0; count * 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(bytes.chunks(32).map(hex).collect())
}

/// Copies what links lead to, so that the release stands alone; Debian's packages share files by
/// links all over `/usr/share`. Links into nowhere are left out.
fn copy_tree(from: &Path, to: &Path, depth: usize) -> std::io::Result<()> {
    if depth > 40 {
        return Err(std::io::Error::other("folders are nested in a ring"));
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let Ok(meta) = fs::metadata(entry.path()) else {
            continue;
        };
        let target = to.join(entry.file_name());
        if meta.is_dir() {
            copy_tree(&entry.path(), &target, depth + 1)?;
        } else if meta.is_file() {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Moves folders that outlive releases out of this one and links them.
fn share(releases: &Releases, app: &App, staged: &Path) -> Outcome<()> {
    let uid = releases.site.uid;
    for folder in &app.shared {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if folder.starts_with('/') || !folder.split('/').all(plain) {
            return Err(failure(
                FailureKind::Invalid,
                format!("{folder} is no folder of a release"),
            ));
        }
        let wrong = format!("share the folder {folder}");
        let kept = releases.at.at("shared").join(folder);
        let inside = staged.join(folder);
        if !kept.exists() {
            fs::create_dir_all(&kept).doing(&wrong)?;
            if inside.is_dir() {
                copy_tree(&inside, &kept, 0).doing(&wrong)?;
            }
            site::own_tree(&releases.at.at("shared"), uid, uid).doing(&wrong)?;
            chown(releases.at.at("shared"), Some(uid), Some(WEB_GROUP)).doing(&wrong)?;
        }
        if inside.is_dir() {
            fs::remove_dir_all(&inside).doing(&wrong)?;
        } else if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent).doing(&wrong)?;
        }
        symlink(way_to_shared(folder), &inside).doing(&wrong)?;
    }
    Ok(())
}

/// From `releases/<id>/<folder>` to `shared/<folder>`.
fn way_to_shared(folder: &str) -> PathBuf {
    let ups = folder.split('/').count() + 1;
    let mut path: PathBuf = std::iter::repeat_n("..", ups).collect();
    path.push("shared");
    path.push(folder);
    path
}

fn run(
    releases: &Releases,
    work: &Path,
    release: &Path,
    rendered: &render::AppFiles,
    answers: &BTreeMap<String, String>,
) -> Outcome<()> {
    if rendered.install.is_empty() {
        return Ok(());
    }
    let uid = releases.site.uid;
    files::folder(work, uid, uid, 0o700).doing("make the installer's folder")?;
    for (name, text) in &rendered.scripts {
        files::replace_owned(&work.join(name), text.as_bytes(), 0o600, Some((uid, uid)))
            .doing("write the installer")?;
    }
    let input = serde_json::json!({
        "site": { "domain": releases.site.domain, "home": releases.at.home },
        "answers": answers,
    });
    let (asked, said) = (work.join(".input"), work.join(".output"));
    files::replace(&asked, input.to_string().as_bytes(), 0o600).doing("write the answers")?;
    let mut args = unit_arguments(releases, work, release);
    args.extend_from_slice(&rendered.install);
    command::run("/usr/bin/systemd-run", &args).map_err(|mut failed| {
        let said = fs::read_to_string(&said).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        failed.message = format!(
            "the installer failed: {}",
            last.into_iter().rev().collect::<Vec<_>>().join("; ")
        );
        failed
    })?;
    Ok(())
}

/// A unit that lives as long as the installer runs, with the site's user and caps. Input and
/// output are files, because systemd hands over open ones only by way of D-Bus.
fn unit_arguments(releases: &Releases, work: &Path, release: &Path) -> Vec<String> {
    let uid = releases.site.uid;
    let work = work.display();
    vec![
        "--quiet".to_owned(),
        "--collect".to_owned(),
        "--service-type=oneshot".to_owned(),
        format!("--unit=undine-install-{uid}.service"),
        format!("--uid={uid}"),
        format!("--gid={uid}"),
        format!("--slice={}", crate::caps::slice(uid)),
        format!("--working-directory={}", release.display()),
        format!("--property=StandardInput=file:{work}/.input"),
        format!("--property=StandardOutput=file:{work}/.output"),
        format!("--property=StandardError=file:{work}/.output"),
        "--property=TimeoutStartSec=900".to_owned(),
        "--property=NoNewPrivileges=yes".to_owned(),
        "--".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_folder_is_found_from_inside_a_release() {
        assert_eq!(
            way_to_shared("wp-content/uploads"),
            Path::new("../../../shared/wp-content/uploads")
        );
    }

    #[test]
    fn a_copy_follows_links_and_skips_dead_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(dir.path().join("elsewhere"), "text").unwrap();
        symlink(dir.path().join("elsewhere"), from.join("linked")).unwrap();
        symlink("/nowhere/at/all", from.join("dead")).unwrap();
        copy_tree(&from, &to, 0).unwrap();
        assert_eq!(fs::read_to_string(to.join("linked")).unwrap(), "text");
        assert!(
            !fs::symlink_metadata(to.join("linked"))
                .unwrap()
                .is_symlink()
        );
        assert!(!to.join("dead").exists());
    }
}
