//! Turns Debian's freshly installed packages into the root of a server: takes away what no server
//! needs, disables what the agent starts, and lays the overlay over it. Works on a plain tree.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::definition::{Definition, Trim};

const UNITS: &str = "etc/systemd/system";
const GENERATORS: &str = "usr/lib/systemd/system-generators";

/// Applies the definition's rules and its overlay to a root.
pub fn apply(root: &Path, definition: &Definition, folder: &Path) -> Result<()> {
    check_ids(root, definition)?;
    take_away(root, &definition.trim)?;
    disable(root, &definition.trim)?;
    lay_over(&folder.join("overlay"), root)
}

fn take_away(root: &Path, trim: &Trim) -> Result<()> {
    for path in &trim.remove {
        remove(&root.join(path))?;
    }
    for path in &trim.empty {
        for entry in entries(&root.join(path))? {
            remove(&entry)?;
        }
    }
    for path in &trim.empty_files {
        remove_files(&root.join(path))?;
    }
    Ok(())
}

fn disable(root: &Path, trim: &Trim) -> Result<()> {
    let units = root.join(UNITS);
    for wants in entries(&units)? {
        if wants.extension().is_some_and(|kind| kind == "wants") {
            for unit in trim.disable.iter().chain(&trim.mask) {
                remove(&wants.join(unit))?;
            }
        }
    }
    for unit in &trim.mask {
        mask(&units.join(unit))?;
    }
    if trim.mask_generators {
        let masked = root.join("etc/systemd/system-generators");
        std::fs::create_dir_all(&masked)?;
        for generator in entries(&root.join(GENERATORS))? {
            mask(
                &masked.join(
                    generator
                        .file_name()
                        .context("a generator without a name")?,
                ),
            )?;
        }
    }
    Ok(())
}

fn mask(path: &Path) -> Result<()> {
    remove(path)?;
    symlink("/dev/null", path).with_context(|| format!("{} cannot be masked", path.display()))
}

/// Copies the overlay: folders 0755, programs 0755, other files 0644, links as they are.
fn lay_over(from: &Path, to: &Path) -> Result<()> {
    for source in entries(from)? {
        let target = to.join(
            source
                .file_name()
                .context("an overlay file without a name")?,
        );
        let kind = source.symlink_metadata()?.file_type();
        if kind.is_dir() {
            if !target.is_dir() {
                std::fs::create_dir(&target)?;
                std::fs::set_permissions(&target, PermissionsExt::from_mode(0o755))?;
            }
            lay_over(&source, &target)?;
            continue;
        }
        remove(&target)?;
        if kind.is_symlink() {
            symlink(std::fs::read_link(&source)?, &target)?;
        } else {
            let executable = source.metadata()?.permissions().mode() & 0o100 != 0;
            std::fs::copy(&source, &target)?;
            let mode = if executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&target, PermissionsExt::from_mode(mode))?;
        }
    }
    Ok(())
}

fn check_ids(root: &Path, definition: &Definition) -> Result<()> {
    if definition.ids.is_empty() {
        return Ok(());
    }
    let users = std::fs::read_to_string(root.join("etc/passwd")).context("no etc/passwd")?;
    for (name, id) in &definition.ids {
        let found = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1).unwrap_or_default().to_owned())
        });
        ensure!(
            found.as_deref() == Some(&id.to_string()),
            "the user {name} must have the number {id} and has {}",
            found.as_deref().unwrap_or("none")
        );
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else {
        return Ok(());
    };
    if meta.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
    .with_context(|| format!("{} cannot be removed", path.display()))
}

fn remove_files(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        if path.symlink_metadata()?.is_dir() {
            remove_files(&path)?;
        } else {
            remove(&path)?;
        }
    }
    Ok(())
}

/// What is in a folder; nothing when there is none.
fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let listed = std::fs::read_dir(folder)
        .and_then(|found| found.map(|entry| entry.map(|e| e.path())).collect())
        .with_context(|| format!("{} cannot be listed", folder.display()))?;
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::super::definition::tests::SMALL;
    use super::*;

    fn rules(text: &str) -> Definition {
        Definition::parse(&SMALL.replace("remove = [\"boot\"]", text)).unwrap()
    }

    fn scene(name: &str, files: &[&str]) -> std::path::PathBuf {
        let base = std::env::temp_dir().join(format!("xtask-trim-{name}-{}", std::process::id()));
        for file in files {
            let path = base.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        base
    }

    #[test]
    fn logs_go_and_their_folders_stay() {
        let base = scene(
            "logs",
            &["root/var/log/nginx/access.log", "root/boot/vmlinuz"],
        );
        let definition = rules("remove = [\"boot\"]\nempty_files = [\"var/log\"]");
        apply(&base.join("root"), &definition, &base).unwrap();
        assert!(base.join("root/var/log/nginx").is_dir());
        assert!(!base.join("root/var/log/nginx/access.log").exists());
        assert!(!base.join("root/boot").exists());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_disabled_unit_can_be_started_later_and_a_masked_one_cannot() {
        let wants = "root/etc/systemd/system/multi-user.target.wants";
        let base = scene(
            "units",
            &[
                &format!("{wants}/nginx.service"),
                &format!("{wants}/x.timer"),
            ],
        );
        let definition = rules("disable = [\"nginx.service\"]\nmask = [\"x.timer\"]");
        apply(&base.join("root"), &definition, &base).unwrap();
        assert!(!base.join(wants).join("nginx.service").exists());
        let units = base.join("root").join(UNITS);
        assert!(units.join("nginx.service").symlink_metadata().is_err());
        assert_eq!(
            std::fs::read_link(units.join("x.timer")).unwrap(),
            Path::new("/dev/null")
        );
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_overlay_replaces_a_link_and_not_what_it_points_to() {
        let base = scene("overlay", &["root/etc/other", "overlay/etc/hosts"]);
        symlink("other", base.join("root/etc/hosts")).unwrap();
        apply(&base.join("root"), &rules(""), &base).unwrap();
        let read = |name: &str| std::fs::read_to_string(base.join("root/etc").join(name)).unwrap();
        assert_eq!(read("hosts"), "overlay/etc/hosts");
        assert_eq!(read("other"), "root/etc/other");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_user_whose_number_moved_stops_the_build() {
        let base = scene("ids", &["root/x"]);
        std::fs::create_dir_all(base.join("root/etc")).unwrap();
        std::fs::write(
            base.join("root/etc/passwd"),
            "mysql:x:101:101::/:/bin/false\n",
        )
        .unwrap();
        let text = SMALL.replace("[trim]", "[ids]\nmysql = 110\n[trim]");
        let definition = Definition::parse(&text).unwrap();
        let error = apply(&base.join("root"), &definition, &base).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("must have the number 110 and has 101"),
            "{error}"
        );
        std::fs::remove_dir_all(base).unwrap();
    }
}
