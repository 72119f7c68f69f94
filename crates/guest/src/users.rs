//! A Unix user and group for each site.
//!
//! `/etc/passwd` is in the volatile layer: it is written whole with a whole manifest, and a new
//! site adds one line. Nothing here asks the system's name services.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use undine_manifest::validate::FIRST_UID;

use crate::files;
use crate::paths::Paths;

fn passwd_line(uid: u32) -> String {
    format!("site{uid}:x:{uid}:{uid}::/srv/sites/{uid}:/usr/sbin/nologin\n")
}

fn group_line(uid: u32) -> String {
    format!("site{uid}:x:{uid}:\n")
}

/// Makes exactly these sites' users exist.
pub fn write_all(paths: &Paths, uids: &BTreeSet<u32>) -> io::Result<()> {
    for (path, line) in [
        ("/etc/passwd", passwd_line as fn(u32) -> String),
        ("/etc/group", group_line),
    ] {
        let path = paths.system(path);
        let mut text = system_lines(&path)?;
        for uid in uids {
            let _ = text.write_str(&line(*uid));
        }
        files::replace_if_changed(&path, &text, 0o644)?;
    }
    Ok(())
}

/// Adds the users of new sites, at a cost that does not grow with those that are there.
pub fn add(paths: &Paths, uids: &BTreeSet<u32>) -> io::Result<()> {
    for (path, line) in [
        ("/etc/group", group_line as fn(u32) -> String),
        ("/etc/passwd", passwd_line),
    ] {
        let text: String = uids.iter().map(|uid| line(*uid)).collect();
        let mut file = File::options().append(true).open(paths.system(path))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The lines of users that came with the image.
fn system_lines(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let own = |line: &&str| {
        let uid = line
            .split(':')
            .nth(2)
            .and_then(|uid| uid.parse::<u32>().ok());
        !(line.starts_with("site") && uid.is_some_and(|uid| uid >= FIRST_UID))
    };
    Ok(text
        .lines()
        .filter(own)
        .map(|line| format!("{line}\n"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_follow_the_sites_and_leave_the_systems_own_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: dir.path().into(),
            data: dir.path().join("srv"),
            run: dir.path().join("run"),
        };
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(
            paths.system("/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n",
        )
        .unwrap();
        fs::write(paths.system("/etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();

        write_all(&paths, &[20_001, 20_002].into()).unwrap();
        add(&paths, &[20_003].into()).unwrap();
        let passwd = fs::read_to_string(paths.system("/etc/passwd")).unwrap();
        assert_eq!(passwd.lines().count(), 4);
        assert!(passwd.contains("site20003:x:20003:20003::/srv/sites/20003:/usr/sbin/nologin\n"));

        write_all(&paths, &[20_002].into()).unwrap();
        let group = fs::read_to_string(paths.system("/etc/group")).unwrap();
        assert_eq!(group, "root:x:0:\nwww-data:x:33:\nsite20002:x:20002:\n");
    }
}
