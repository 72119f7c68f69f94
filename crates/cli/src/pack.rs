//! Packs what is to be deployed: a folder becomes a tar.gz, an archive stays as it is.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use undine_api::guest::ArchiveFormat;

/// An archive that is ready to be sent.
pub struct Packed {
    /// The file; a temporary one goes with the value.
    pub file: File,
    /// How it is packed.
    pub format: ArchiveFormat,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    _temporary: Option<NamedTempFile>,
}

/// Packs a folder, or takes an archive.
pub fn pack(path: &Path) -> Result<Packed> {
    let shown = path.display();
    let about = std::fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?;
    if about.is_dir() {
        return folder(path);
    }
    let format = format_of(path)?;
    ensure!(about.len() > 0, "{shown} is empty");
    let file = File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    finish(file, format, None)
}

fn format_of(path: &Path) -> Result<ArchiveFormat> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let known = [
        (".tar.gz", ArchiveFormat::TarGz),
        (".tgz", ArchiveFormat::TarGz),
        (".tar.zst", ArchiveFormat::TarZst),
        (".tar", ArchiveFormat::Tar),
        (".zip", ArchiveFormat::Zip),
    ];
    match known.into_iter().find(|(ending, _)| name.ends_with(ending)) {
        Some((_, format)) => Ok(format),
        None => bail!(
            "{} is no folder and no .tar, .tar.gz, .tar.zst or .zip",
            path.display()
        ),
    }
}

fn folder(path: &Path) -> Result<Packed> {
    let temporary = NamedTempFile::new().context("no temporary file can be made")?;
    let encoder = GzEncoder::new(temporary.reopen()?, Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    // Links are sent as links: the server refuses those that leave the release.
    archive.follow_symlinks(false);
    archive
        .append_dir_all(".", path)
        .with_context(|| format!("{} cannot be packed", path.display()))?;
    archive.into_inner()?.finish()?.sync_all()?;
    finish(temporary.reopen()?, ArchiveFormat::TarGz, Some(temporary))
}

fn finish(file: File, format: ArchiveFormat, temporary: Option<NamedTempFile>) -> Result<Packed> {
    let mut hash = Sha256::new();
    let mut reader = BufReader::with_capacity(1 << 16, &file);
    let mut piece = vec![0u8; 1 << 16];
    let mut size = 0;
    loop {
        let read = reader.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        size += read as u64;
    }
    let mut file = file;
    std::io::Seek::rewind(&mut file)?;
    Ok(Packed {
        file,
        format,
        size,
        sha256: hex::encode(hash.finalize()),
        _temporary: temporary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_packed_and_a_stranger_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "hello").unwrap();
        let packed = pack(folder.path()).unwrap();
        assert_eq!(packed.format, ArchiveFormat::TarGz);
        assert!(packed.size > 0 && packed.sha256.len() == 64);
        let stranger = folder.path().join("index.html");
        assert!(pack(&stranger).is_err());
        assert!(pack(Path::new("/nowhere/at/all")).is_err());
    }
}
