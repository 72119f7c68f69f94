//! `cargo xtask image`: builds a server image from Debian's packages (see images/README.md).
//!
//! Two halves: the root with its kernel takes minutes and is kept by the hash of its inputs
//! (definition, overlay, package versions); the initramfs with the guest agent takes a second and
//! is made anew whenever the agent changes. Everything is built in a temporary folder and renamed
//! when complete, so a partial result is never taken for an image.

mod apt;
mod cli;
mod cpio;
mod definition;
mod initrd;
mod inputs;
mod modules;
mod record;
mod root;
mod stage;
pub mod tools;
mod trim;
mod vmlinux;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use cli::{build_guest, run};
pub use record::{ImageFile, ImageRecord};

use apt::{Apt, Mirrors};
use definition::Definition;
use root::{Finished, Job};

/// What to build, where and from what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The definition's folder, such as `images/debian12-web`.
    pub definition: PathBuf,
    /// Where images go, such as `target/image`.
    pub out: PathBuf,
    /// The static guest agent.
    pub guest: PathBuf,
    /// This program's own file: the build starts it again inside a namespace.
    pub program: PathBuf,
    /// The Debian mirror; this machine's own when there is none.
    pub mirror: Option<String>,
    /// Asks the mirror whether packages have changed, even when a root is there.
    pub refresh: bool,
    /// Builds the root even when it is there.
    pub force: bool,
}

/// A complete image on disk.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Its folder.
    pub dir: PathBuf,
    /// Its `image.json`.
    pub record: ImageRecord,
}

/// Builds an image, or finds it built. `progress` receives one line at a time.
pub fn build(options: &Options, progress: &dyn Fn(&str)) -> Result<BuiltImage> {
    let file = options.definition.join("image.toml");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("there is no image definition {}", file.display()))?;
    let definition =
        Definition::parse(&text).with_context(|| format!("{} is wrong", file.display()))?;
    // Before minutes are spent on a root that would get no agent.
    let agent = initrd::read_agent(&options.guest)?;
    std::fs::create_dir_all(options.out.join("cache"))
        .with_context(|| format!("{} cannot be created", options.out.display()))?;
    let _alone = lock(&options.out, progress)?;
    clear_leftovers(&options.out)?;
    let root = ensure_root(options, &definition, progress)?;
    assemble(options, &definition, &root, &agent, progress)
}

/// The folder of a finished root for this definition.
fn ensure_root(
    options: &Options,
    definition: &Definition,
    progress: &dyn Fn(&str),
) -> Result<PathBuf> {
    let cache = options.out.join("cache");
    let wanted = inputs::definition_hash(&options.definition, definition)?;
    // Which root the definition meant when it was last resolved: no mirror is needed for that.
    let pointer = cache.join(format!("{}-{}", definition.name, short(&wanted)));
    if !options.force
        && !options.refresh
        && let Ok(name) = std::fs::read_to_string(&pointer)
    {
        let root = cache.join(name.trim());
        if finished(&root).is_ok() {
            progress("the root is built already");
            return Ok(root);
        }
    }
    tools::check_machine(&options.out)?;
    let log = options.out.join("build.log");
    std::fs::write(&log, "").context("the build log cannot be written")?;
    let temporary = Temporary::new(&options.out)?;
    let mirrors = Mirrors::choose(options.mirror.as_deref())?;
    progress("asking the package mirror what there is");
    let apt = Apt::open(&temporary.0.join("apt"), definition, &mirrors, &log)?;
    let kernel = &definition.kernel;
    let mut names = vec!["?essential", "?priority(required)", "apt"];
    names.extend(definition.packages.iter().map(String::as_str));
    let mut packages = apt.resolve(&names)?;
    packages.extend(apt.resolve(&[&kernel.package, &kernel.busybox])?);
    let root = cache.join(format!(
        "root-{}",
        short(&inputs::root_hash(&wanted, &packages))
    ));
    if options.force || finished(&root).is_err() {
        let job = Job {
            definition,
            folder: &options.definition,
            sources: mirrors.sources(definition),
            apt: &apt,
            program: &options.program,
            log: &log,
        };
        let building = temporary.0.join("root");
        std::fs::create_dir(&building)?;
        job.build(&building, progress)?;
        tools::check_null_device()?;
        replace(&building, &root)?;
    } else {
        progress("the packages have not changed");
    }
    std::fs::write(&pointer, file_name(&root))?;
    Ok(root)
}

/// Makes the image's folder from a finished root and the guest agent.
fn assemble(
    options: &Options,
    definition: &Definition,
    root: &Path,
    agent: &[u8],
    progress: &dyn Fn(&str),
) -> Result<BuiltImage> {
    let finished = finished(root)?;
    let temporary = Temporary::new(&options.out)?;
    let building = &temporary.0;
    for name in ["root.squashfs", "vmlinux"] {
        std::fs::hard_link(root.join(name), building.join(name))
            .with_context(|| format!("{name} cannot be linked from the cache"))?;
    }
    let init = options.definition.join("../initrd/init");
    initrd::write(&building.join("initrd.img"), root, &finished, &init, agent)?;
    let mut files = BTreeMap::new();
    for (role, name) in [
        ("root", "root.squashfs"),
        ("kernel", "vmlinux"),
        ("initrd", "initrd.img"),
    ] {
        files.insert(role.to_owned(), ImageFile::of(building, name)?);
    }
    let (cmdline, cmdline_tcg) = (
        definition.cmdline.base.join(" "),
        definition.cmdline.tcg.join(" "),
    );
    let record = ImageRecord {
        name: definition.name.clone(),
        release: definition.release.clone(),
        hash: ImageRecord::hash_of(&files, &cmdline, &cmdline_tcg),
        files,
        cmdline,
        cmdline_tcg,
        kernel_release: finished.kernel_release,
        data_format: definition.data_format,
        packages: finished
            .packages
            .into_iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect(),
    };
    std::fs::write(
        building.join(record::FILE),
        serde_json::to_vec_pretty(&record)?,
    )?;
    let dir = options
        .out
        .join(format!("{}-{}", record.name, short(&record.hash)));
    if ImageRecord::read(&dir).as_ref() == Some(&record) {
        progress(&format!("the image is there: {}", dir.display()));
    } else {
        replace(building, &dir)?;
        progress(&format!("the image is complete: {}", dir.display()));
    }
    Ok(BuiltImage { dir, record })
}

fn finished(root: &Path) -> Result<Finished> {
    let text = std::fs::read(root.join("root.json")).context("this root is not complete")?;
    serde_json::from_slice(&text).context("this root was built by another version")
}

/// One build at a time in one folder.
fn lock(out: &Path, progress: &dyn Fn(&str)) -> Result<File> {
    let file = File::create(out.join("lock")).context("the image folder is not writable")?;
    if file.try_lock().is_err() {
        progress("waiting for another image build");
        file.lock().context("the image folder cannot be locked")?;
    }
    Ok(file)
}

const TEMPORARY: &str = ".building-";

/// What a build that was killed has left; the lock says that none is running.
fn clear_leftovers(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            std::fs::remove_dir_all(entry.path()).context("an old build cannot be removed")?;
        }
    }
    Ok(())
}

/// A folder to build in; what is left of it goes when the build ends, well or not.
struct Temporary(PathBuf);

impl Temporary {
    fn new(out: &Path) -> Result<Self> {
        // An absolute path: apt and mmdebstrap change folders.
        let base = out.canonicalize()?;
        for number in 0..1000 {
            let folder = base.join(format!("{TEMPORARY}{number}"));
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("no temporary folder can be made"),
            }
        }
        anyhow::bail!("too many unfinished builds in {}", base.display())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A failure here is repaired by the next build; the folder may have been moved to its place.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Moves a complete folder to its place.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::rename(from, to).with_context(|| format!("{} cannot be put in place", to.display()))
}

fn short(hash: &str) -> &str {
    &hash[..16]
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
