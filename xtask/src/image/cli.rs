//! The flags of `cargo xtask image`, and the check that two builds give one hash.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{BuiltImage, Options, build, stage};

const HELP: &str = "\
cargo xtask image [flags]      builds a server image (see images/README.md)
  --definition FOLDER    what to build              [images/debian12-web]
  --out FOLDER           where images go            [target/image]
  --guest FILE           a static guest agent       [built from crates/guest]
  --mirror URL           Debian mirror              [this machine's own]
  --refresh              look for newer packages, even when an image is there
  --force                build anew, even when nothing has changed
  --check-reproducible   build twice from nothing and compare
";

/// Runs the command with the arguments after `image`.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments
        .first()
        .is_some_and(|first| first == stage::INSIDE)
    {
        return stage::enter(&arguments[1..]);
    }
    let Some(request) = parse(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    let guest = match &request.guest {
        Some(guest) => guest.clone(),
        None => build_guest()?,
    };
    let options = Options {
        definition: request.definition,
        out: request.out,
        guest,
        program: std::env::current_exe().context("this program's own file is unknown")?,
        mirror: request.mirror,
        refresh: request.refresh,
        force: request.force,
    };
    let say = |line: &str| println!("{line}");
    if request.check_reproducible {
        return check_reproducible(&options, &say);
    }
    let image = build(&options, &say)?;
    println!("{}", image.dir.display());
    Ok(())
}

#[derive(Debug)]
struct Request {
    definition: PathBuf,
    out: PathBuf,
    guest: Option<PathBuf>,
    mirror: Option<String>,
    refresh: bool,
    force: bool,
    check_reproducible: bool,
}

/// `None` when help was asked for.
fn parse(arguments: &[String]) -> Result<Option<Request>> {
    let base = repository();
    let mut request = Request {
        definition: base.join("images/debian12-web"),
        out: base.join("target/image"),
        guest: None,
        mirror: None,
        refresh: false,
        force: false,
        check_reproducible: false,
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--definition" => request.definition = value()?.into(),
            "--out" => request.out = value()?.into(),
            "--guest" => request.guest = Some(value()?.into()),
            "--mirror" => request.mirror = Some(value()?.clone()),
            "--refresh" => request.refresh = true,
            "--force" => request.force = true,
            "--check-reproducible" => request.check_reproducible = true,
            "--help" | "-h" => return Ok(None),
            other => bail!("image does not know {other}; try --help"),
        }
    }
    Ok(Some(request))
}

fn repository() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the guest agent, static, in the profile made for it. Returns its file.
pub fn build_guest() -> Result<PathBuf> {
    println!("building the guest agent");
    // A folder of its own: other flags for the same target would rebuild everything else.
    let target = repository().join("target/guest");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--package",
            "undine-guest",
            "--profile",
            "guest",
        ])
        .args(["--target", GUEST_TARGET, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the guest agent does not build");
    Ok(target.join(GUEST_TARGET).join("guest/undine-guest"))
}

/// Two builds that share nothing must give the same files.
fn check_reproducible(options: &Options, say: &dyn Fn(&str)) -> Result<()> {
    let mut images: Vec<BuiltImage> = Vec::new();
    for number in ["first", "second"] {
        say(&format!("{number} build"));
        let out = options.out.join(format!("check-{number}"));
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        images.push(build(
            &Options {
                out,
                ..options.clone()
            },
            say,
        )?);
    }
    for (role, file) in &images[0].record.files {
        let other = images[1]
            .record
            .files
            .get(role)
            .map(|file| file.sha256.as_str());
        ensure!(
            other == Some(&file.sha256),
            "two builds gave different {} files; both are kept: {} and {}",
            file.file,
            images[0].dir.display(),
            images[1].dir.display()
        );
    }
    say(&format!(
        "two builds gave one hash: {}",
        images[0].record.hash
    ));
    for number in ["first", "second"] {
        std::fs::remove_dir_all(options.out.join(format!("check-{number}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Request>> {
        parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_and_strangers_refused() {
        let request = parsed(&["--out", "/x", "--force", "--mirror", "http://m"])
            .unwrap()
            .unwrap();
        assert_eq!(request.out, Path::new("/x"));
        assert!(request.force && !request.refresh);
        assert!(parsed(&["--help"]).unwrap().is_none());
        assert!(
            parsed(&["--fast"])
                .unwrap_err()
                .to_string()
                .contains("--fast")
        );
        assert!(
            parsed(&["--out"])
                .unwrap_err()
                .to_string()
                .contains("needs a value")
        );
    }
}
