//! `package`: Debian packages of the programs, with their units, profiles, applications and the
//! server image, made by Debian's own `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{ask, command, output};
use crate::machine::cargo;
use crate::up::{self, layout::checkout};

const USAGE: &str = "usage: cargo xtask package [--debug] [--no-image]

  --debug      package the debug build: quick, for tests of the packages themselves
  --no-image   leave out the package with the server image";

/// One package and what goes into it.
struct Package {
    name: &'static str,
    summary: &'static str,
    /// `LIBC` stands for the C library, not older than this machine's.
    depends: &'static str,
    programs: &'static [&'static str],
    units: &'static [&'static str],
}

const PACKAGES: [Package; 4] = [
    Package {
        name: "undine-control",
        summary: "control plane of Undine: API, operations, records",
        depends: "LIBC, libgcc-s1, undine-common, undine-cli",
        programs: &["undine-control"],
        units: &["undine-control.service"],
    },
    Package {
        name: "undine-node",
        summary: "hardware node of Undine: agent and guard",
        depends: "LIBC, libgcc-s1, undine-common, qemu-system-x86 (>= 1:10.0), \
                  qemu-utils (>= 1:10.0), iproute2, nftables, unbound, e2fsprogs",
        programs: &["undine-node", "undine-guard"],
        units: &["undine-node.service", "undine-guard.service"],
    },
    Package {
        name: "undine-edge",
        summary: "public door of Undine",
        depends: "LIBC, libgcc-s1, undine-common",
        programs: &["undine-edge"],
        units: &["undine-edge.service"],
    },
    Package {
        name: "undine-cli",
        summary: "command line of Undine",
        depends: "LIBC, libgcc-s1",
        programs: &["undine"],
        units: &[],
    },
];

/// The command.
pub fn run(arguments: &[String]) -> Result<()> {
    let (mut profile, mut image) = ("release", true);
    for word in arguments {
        match word.as_str() {
            "--debug" => profile = "debug",
            "--no-image" => image = false,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => bail!("`{word}` is not an option of package\n{USAGE}"),
        }
    }
    build(profile)?;
    let out = checkout().join("target/package");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    for package in &PACKAGES {
        let tree = programs(package, profile, &out)?;
        finish(
            package.name,
            package.summary,
            package.depends,
            "amd64",
            &tree,
            &out,
        )?;
    }
    common(&out)?;
    if image {
        server_image(&out)?;
    }
    Ok(())
}

fn build(profile: &str) -> Result<()> {
    let mut words = vec!["build"];
    for program in [
        "undine-control",
        "undine-node",
        "undine-guard",
        "undine-edge",
        "undine-cli",
    ] {
        words.extend(["--package", program]);
    }
    if profile == "release" {
        words.push("--release");
    }
    cargo(&words)
}

fn programs(package: &Package, profile: &str, out: &Path) -> Result<PathBuf> {
    let tree = out.join(format!("tree-{}", package.name));
    for program in package.programs {
        let built = checkout().join("target").join(profile).join(program);
        place(&built, &tree.join("usr/bin").join(program), 0o755)?;
        if profile == "debug" {
            ask(
                "strip",
                &[
                    "--strip-debug",
                    &tree.join("usr/bin").join(program).to_string_lossy(),
                ],
            )?;
        }
    }
    for unit in package.units {
        let from = checkout().join("packaging/systemd").join(unit);
        place(
            &from,
            &tree.join("usr/lib/systemd/system").join(unit),
            0o644,
        )?;
    }
    if !package.units.is_empty() {
        script(&tree, "postinst", &postinst(package.units))?;
        script(&tree, "prerm", &prerm(package.units))?;
    }
    Ok(tree)
}

/// systemd learns of the units; they are enabled by the one who joins the machine, not by us. An
/// upgrade starts running programs anew; servers outlive their agent.
fn postinst(units: &[&str]) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n  systemctl daemon-reload\n  if [ \"$1\" = configure ] && [ -n \"$2\" ]; then\n    systemctl try-restart {}\n  fi\nfi\n",
        units.join(" ")
    )
}

/// A removal stops the programs; servers, disks and records stay.
fn prerm(units: &[&str]) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n  systemctl disable --now {}\nfi\n",
        units.join(" ")
    )
}

/// What the programs share: the system user, profiles, applications, documents.
fn common(out: &Path) -> Result<()> {
    let tree = out.join("tree-undine-common");
    for (from, to) in [
        ("profiles", "usr/share/undine/profiles"),
        ("apps", "usr/share/undine/apps"),
        ("docs/guides", "usr/share/doc/undine"),
    ] {
        copy_tree(&checkout().join(from), &tree.join(to))?;
    }
    place(
        &checkout().join("packaging/sysusers/undine.conf"),
        &tree.join("usr/lib/sysusers.d/undine.conf"),
        0o644,
    )?;
    script(
        &tree,
        "postinst",
        "#!/bin/sh\nset -e\nsystemd-sysusers undine.conf\nfor part in control edge; do\n  install -d -o undine -g undine -m 0750 /var/lib/undine-$part\ndone\n",
    )?;
    finish(
        "undine-common",
        "profiles, applications and documents of Undine",
        "systemd",
        "all",
        &tree,
        out,
    )
}

fn server_image(out: &Path) -> Result<()> {
    let built = up::build_image()?;
    let tree = out.join("tree-undine-image-debian12-web");
    copy_tree(&built, &tree.join("usr/share/undine/images/debian12-web"))?;
    finish(
        "undine-image-debian12-web",
        "server image of Undine: Debian 12 with web services",
        "undine-common",
        "all",
        &tree,
        out,
    )
}

fn finish(
    name: &str,
    summary: &str,
    depends: &str,
    architecture: &str,
    tree: &Path,
    out: &Path,
) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let depends = depends.replace("LIBC", &format!("libc6 (>= {})", libc()?));
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Undine developers <undine@example.org>\nDepends: {depends}\nSection: admin\nPriority: optional\nDescription: {summary}\n"
    );
    let folder = tree.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("control"), control)?;
    place(
        &checkout().join("LICENSE"),
        &tree.join(format!("usr/share/doc/{name}/copyright")),
        0o644,
    )?;
    let file = out.join(format!("{name}_{version}_{architecture}.deb"));
    output(&mut command(
        "dpkg-deb",
        [
            "--root-owner-group",
            "-Zzstd",
            "--build",
            &tree.to_string_lossy(),
            &file.to_string_lossy(),
        ],
    ))?;
    fs::remove_dir_all(tree)?;
    println!("{}", file.display());
    Ok(())
}

/// The upstream version of this machine's C library, which the programs are linked with.
fn libc() -> Result<String> {
    let version = ask(
        "dpkg-query",
        &["--show", "--showformat=${Version}", "libc6"],
    )?;
    let upstream = version.split(['-', '+']).next();
    Ok(upstream.unwrap_or(&version).to_owned())
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("{} cannot be packaged", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn script(tree: &Path, name: &str, text: &str) -> Result<()> {
    let path = tree.join("DEBIAN").join(name);
    fs::create_dir_all(tree.join("DEBIAN"))?;
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let entries =
        fs::read_dir(from).with_context(|| format!("{} cannot be packaged", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            place(&entry.path(), &target, 0o644)?;
        }
    }
    Ok(())
}
